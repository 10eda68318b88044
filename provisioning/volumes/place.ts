// The folder that a volume is mounted over: what forbids it, the filesystem and content that go there, and the mount itself.
//
// INVARIANTS
// - mkfs is planned only for a volume that bears the tag garrison.unformatted, that blkid finds blank or marked with our own UUID, and
//   that nobody holds open. The tag is removed after mkfs has ended and before the first mount.
// - Nothing is mounted over a folder with content. Moving it keeps the original: it is copied, then renamed, never removed.

import type { Blocked, Step } from '../resource.ts'
import { mkfsExt4 } from './ext4.ts'
import { tooSmall, wantedExtents } from './lvm.ts'
import { unitMark } from './mount-unit.ts'
import { asidePath, copiedTag, type MountPlace, stagePath, unformattedTag } from './observe.ts'
import {
  after,
  blocked,
  change,
  listed,
  lvmName,
  minuteMs,
  pathOf,
  run,
  type Subject,
  step,
} from './subject.ts'
import { mkfsXfs } from './xfs.ts'

/** Folders without which the host does not run: never mounted over, never moved. */
const systemFolder =
  /^\/(bin|boot|etc|lib|lib32|lib64|libx32|root|sbin|tmp|usr|var|var\/(lib|run|tmp))$|^\/(dev|proc|run|sys)(\/|$)|^\/(etc|var\/lib)\/garrison(\/|$)/

/** Why nothing may be mounted at the place as it is, or null. `fill`: content of the folder will be moved first. */
function placeObjection(subject: Subject, place: MountPlace, fill: boolean): Blocked | null {
  const { rival, want } = subject
  const { path, realPath, unitText, fstabLine, occupant, folder, users, below, aside } = place
  if (systemFolder.test(path))
    return blocked('volumes.mount-refused', `${path} is a folder that the host itself needs`)
  if (rival !== null) return blocked('volumes.mount-refused', `${rival} is to be mounted at ${path} too`)
  if (realPath !== path)
    return blocked(
      'volumes.mount-refused',
      `${path} leads through a link to ${realPath}, which systemd refuses`,
    )
  // systemd trims blanks at the end of a line and takes a backslash there for a continuation.
  if (/[\x00-\x1f\x7f\\]|\s$/.test(path))
    return blocked('volumes.mount-refused', `${JSON.stringify(path)} cannot be written in a unit file`)
  if (fstabLine !== null)
    return blocked('volumes.unit-foreign', `line ${fstabLine} of /etc/fstab mounts something at ${path}`)
  if (unitText === '') return blocked('volumes.unit-foreign', `${place.unit.name} is masked`)
  if (unitText !== null && !unitText.startsWith(unitMark))
    return blocked('volumes.unit-foreign', `${place.unit.path} was not written by Garrison`)
  if (occupant !== null)
    return occupant.ours
      ? null
      : blocked('volumes.mount-taken', `${occupant.source} is mounted at ${path}`, { path })
  if (!folder?.length) return null
  const content = { path, content: folder.slice(0, 20) }
  if (!fill)
    return blocked(
      'volumes.folder-not-empty',
      want.onContent === 'move'
        ? `${path} has content, and so may the volume, which was in use before: ${listed(folder)}`
        : `${path} has content: ${listed(folder)}`,
      content,
    )
  if (aside)
    return blocked(
      'volumes.folder-not-empty',
      `${path} has content (${listed(folder)}), and ${asidePath(path)} is there from an earlier move`,
      content,
    )
  if (users.length > 0)
    return blocked('volumes.folder-in-use', `${path} is in use by ${listed(users)}`, { path, users })
  return below.length > 0
    ? blocked('volumes.folder-in-use', `something is mounted below ${path}: ${listed(below)}`, { path })
    : null
}

/** Makes the filesystem; where the folder to mount over has content, copies that onto it too. */
export function formatStep(subject: Subject, place: MountPlace, comesAfter: readonly string[]): Step {
  const { volume, want, desired, group, geometry } = subject
  const { name, device, logical, signature, ownUuid } = volume
  // Before the group is there, a forecast for a volume that is not tiny.
  const forecastBytes =
    group === undefined ? Number.POSITIVE_INFINITY : wantedExtents(subject, group) * group.extentBytes
  const size = logical?.sizeBytes ?? forecastBytes
  const fill = want.onContent === 'move' && place.folder !== null && place.folder.length > 0
  const stage = stagePath(name)
  const mkfs = want.filesystem === 'xfs' ? mkfsXfs : mkfsExt4
  const retag = ['/usr/sbin/lvchange', '--deltag', unformattedTag] as const
  const actions = [
    run(mkfs(device, { name, uuid: ownUuid, geometry, sizeBytes: size }), 10 * minuteMs),
    ...(fill
      ? [
          { kind: 'folder', path: stage, mode: 0o700 } as const,
          // In a unit of its own: the mount shall be the host's, and the sandbox of the agent may not mount.
          run(['/usr/bin/mount', '--types', want.filesystem, '--', device, stage], 5 * minuteMs, {
            unit: true,
          }),
          run(
            [
              '/usr/bin/cp',
              '--archive',
              '--one-file-system',
              '--no-target-directory',
              '--',
              place.path,
              stage,
            ],
            24 * 60 * minuteMs,
          ),
          // syncfs reports what could not be written since the mount.
          run(['/usr/bin/sync', '--file-system', '--', stage], 60 * minuteMs),
          run(['/usr/bin/umount', '--', stage], 5 * minuteMs, { unit: true }),
          run([...retag, '--addtag', copiedTag, '--', lvmName(subject)]),
        ]
      : [run([...retag, '--', lvmName(subject)])]),
  ]
  const marked =
    signature !== null && signature.uuid !== ownUuid
      ? blocked('volumes.content-unknown', `${name} is marked unformatted and yet holds ${signature.type}`, {
          volume: lvmName(subject),
        })
      : null
  const busy =
    volume.exclusive === 'busy'
      ? blocked('volumes.in-use', `${device} is marked unformatted and yet something holds it open`)
      : null
  const objection =
    (logical === null ? null : tooSmall(subject, size)) ??
    marked ??
    busy ??
    placeObjection(subject, place, fill)
  return step(subject, 'format', {
    summary: `${name}, ${want.filesystem}${fill ? `, with the content of ${place.path}` : ''}`,
    because: [change(desired, pathOf(subject, 'filesystem'), want.filesystem, signature?.type ?? null)],
    actions,
    ...(objection !== null && { blocked: objection }),
    ...after(comesAfter),
    ...(logical !== null && { claims: [device] }),
  })
}

/** Puts the copied folder aside and an empty one in its place. */
export function putAsideStep(subject: Subject, place: MountPlace): Step {
  const { path, folder } = place
  const full = folder !== null && folder.length > 0
  const objection = placeObjection(subject, place, true)
  return step(subject, 'put-aside', {
    summary: `the content of ${path}, now on ${subject.volume.name}, to ${asidePath(path)}`,
    because: [{ path: pathOf(subject, 'onContent'), desired: 'move', observed: 'copied' }],
    actions: [
      ...(full ? [{ kind: 'move', from: path, to: asidePath(path) } as const] : []),
      { kind: 'folder', path },
      run(['/usr/sbin/lvchange', '--deltag', copiedTag, '--', lvmName(subject)]),
    ],
    ...(objection !== null && { blocked: objection }),
  })
}

/** Writes, enables and starts the mount unit: whatever of it is missing. */
export function mountSteps(
  subject: Subject,
  place: MountPlace,
  comesAfter: readonly string[],
): readonly Step[] {
  const { volume, desired } = subject
  const { path, unit, unitText, deviceText, enabled, occupant } = place
  const mounted = occupant?.ours === true
  const missing = [
    ...(unitText === unit.text && deviceText === unit.deviceText ? [] : ['unit']),
    ...(enabled ? [] : ['enabled']),
    ...(mounted ? [] : ['mounted']),
  ]
  if (missing.length === 0) return []
  const objection = comesAfter.length > 0 ? null : placeObjection(subject, place, false)
  return [
    step(subject, 'mount', {
      summary: mounted
        ? `keep ${volume.name} mounted at ${path} after a reboot`
        : `${volume.name} at ${path}`,
      because: [
        change(
          desired,
          pathOf(subject, 'mount'),
          path,
          mounted ? `mounted, without ${listed(missing)}` : null,
        ),
      ],
      actions: [
        ...(mounted ? [] : [{ kind: 'folder', path } as const]),
        ...(unitText === unit.text
          ? []
          : [{ kind: 'write', path: unit.path, content: unit.text, mode: 0o644 } as const]),
        ...(deviceText === unit.deviceText
          ? []
          : [{ kind: 'write', path: unit.devicePath, content: unit.deviceText, mode: 0o644 } as const]),
        // To enable is to reload too, and a reload takes seconds.
        run(['/usr/bin/systemctl', ...(enabled ? ['daemon-reload'] : ['enable', '--', unit.name])]),
        ...(mounted ? [] : [run(['/usr/bin/systemctl', 'start', '--', unit.name], 7 * minuteMs)]),
      ],
      ...(objection !== null && { blocked: objection }),
      ...after([...comesAfter, ...subject.mountsAbove]),
    }),
  ]
}
