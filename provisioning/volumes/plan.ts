// Decides what is to be done so that the declared volumes are there, formatted, mounted and as large as wanted.
//
// INVARIANTS
// - mkfs is planned only for a volume that bears the tag garrison.unformatted, that blkid finds blank or marked with our own UUID, and
//   that nobody holds open. The tag is removed after mkfs has ended and before the first mount.
// - Nothing is mounted over a folder with content. Moving it keeps the original: it is copied, then renamed, never removed.

import { formatBytes } from '../block/bytes.ts'
import type { VolumeGroup } from '../block/lvm.ts'
import { type Desired, type DesiredLogical, sizeBytes } from '../desired.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import { type Action, type Blocked, type Change, type Json, type Step, stepKey } from '../resource.ts'
import { mkfsExt4, resize2fs } from './ext4.ts'
import { unitMark } from './mount-unit.ts'
import {
  type ArrayDevice,
  asidePath,
  copiedTag,
  type Geometry,
  type MountPlace,
  type ObservedVolume,
  type ObservedVolumes,
  stagePath,
  unformattedTag,
} from './observe.ts'
import { labelActions } from './selinux.ts'
import { mkfsXfs, smallestXfsBytes, xfsGrowfs } from './xfs.ts'

const minuteMs = 60_000

const run = (
  argv: readonly [string, ...string[]],
  deadlineMs = 2 * minuteMs,
  more: { readonly stdin?: string; readonly unit?: true } = {},
): Action => ({ kind: 'run', argv, deadlineMs, ...more })

const blocked = (
  code: ProblemCode,
  message: string,
  details: { readonly [key: string]: Json } = {},
): Blocked => ({ code, message, remedy: remedyOf(code, details), details })

/** A change with where its wanted value was written. */
const change = (desired: Desired, path: string, wanted: Json, observed: Json): Change => {
  const why = desired.sources[path]
  return { path, desired: wanted, observed, ...(why !== undefined && { why }) }
}

const listed = (names: readonly string[], most = 20): string =>
  names.length <= most
    ? names.join(', ')
    : `${names.slice(0, most).join(', ')} and ${names.length - most} more`

/** What LVM keeps for itself in names of volumes (lvm(8), VALID NAMES). */
const reservedName =
  /^(snapshot|pvmove)|_(cdata|cmeta|corig|cpool|cvol|imeta|iorig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)/

/** Folders without which the host does not run: never mounted over, never moved. */
const systemFolder =
  /^\/(bin|boot|etc|lib|lib32|lib64|libx32|root|sbin|tmp|usr|var|var\/(lib|run|tmp))$|^\/(dev|proc|run|sys)(\/|$)|^\/(etc|var\/lib)\/garrison(\/|$)/

/** mkfs.xfs leaves out a last allocation group of less than 16 MiB, so a filesystem may end so much before its volume. */
const unusedTailBytes = 16 * 2 ** 20

/**
 * Extent size of a new group: the whole stripes next above LVM's 4 MiB, so that every volume begins and ends on a stripe. LVM takes
 * powers of two and multiples of 128 KiB.
 */
export function extentKiB(geometry: Geometry | null): number {
  if (geometry === null) return 4096
  const stripeKiB = (geometry.chunkBytes / 1024) * geometry.dataMembers
  const unitKiB = stripeKiB % 128 === 0 ? stripeKiB : 2 * stripeKiB
  return unitKiB * Math.ceil(4096 / unitKiB)
}

/** Why no group may be made on the array as it is, or null. */
function arrayObjection({ path, loose, content }: ArrayDevice, interrupted: boolean): Blocked | null {
  if (loose !== null)
    return loose.attributes.startsWith('u') && !interrupted
      ? blocked(
          'volumes.array-not-blank',
          `${path} belongs to a volume group of which LVM knows nothing more`,
          {
            path,
          },
        )
      : null
  if (content === null)
    return blocked('volumes.array-not-blank', `${path} holds another volume group`, { path })
  const { signature, nonZeroAt } = content
  if (signature !== null)
    return blocked('volumes.array-not-blank', `${path} holds something: ${signature.type}`, { path })
  return nonZeroAt !== null && !interrupted
    ? blocked('volumes.array-not-blank', `${path} is not blank at byte ${nonZeroAt}`, { path, nonZeroAt })
    : null
}

/** Steps on the group as a whole: make it, refuse it, or grow it with its array. */
function planGroup(observed: ObservedVolumes, desired: Desired, groupName: string): readonly Step[] {
  const { array, groups, nameTaken, interrupted } = observed
  const path = `/dev/md/${desired.array?.name}`
  const [group] = groups
  const step = {
    id: 'volumes.group',
    summary: `${groupName} on ${path.slice('/dev/'.length)}`,
    risk: 'safe',
    because: [
      change(desired, 'volumes.group', groupName, group === undefined ? null : `${group.name} ${group.uuid}`),
    ],
    actions: [],
  } as const
  if (group === undefined) {
    const taken = nameTaken
      ? blocked('volumes.name-refused', `/dev/${groupName} is something else, so no group can have this name`)
      : null
    const objection = taken ?? (array === null ? null : arrayObjection(array, interrupted))
    if (objection !== null) return [{ ...step, blocked: objection }]
    if (array === null)
      return [
        {
          ...step,
          // A forecast: the array comes first. Should it be settled and yet not there, this says so.
          actions: [
            {
              kind: 'wait',
              until: { kind: 'exists', path },
              summary: `${path} appears`,
              deadlineMs: minuteMs / 2,
            },
          ],
        },
      ]
    // A label that a crash in the middle of vgcreate left behind without its group; LVM itself refuses to write over it.
    const torn = array.loose?.attributes.startsWith('u')
    return [
      {
        ...step,
        actions: [
          ...(torn ? [run(['/usr/sbin/wipefs', '--all', '--quiet', '--', path])] : []),
          // Should LVM find a signature after all, it asks, and the answer is no.
          run(
            [
              '/usr/sbin/vgcreate',
              '--physicalextentsize',
              `${extentKiB(array.geometry)}k`,
              '--',
              groupName,
              path,
            ],
            2 * minuteMs,
            { stdin: 'n\n' },
          ),
        ],
        claims: [path],
      },
    ]
  }
  if (groups.length > 1)
    return [
      {
        ...step,
        blocked: blocked(
          'volumes.group-elsewhere',
          `there are ${groups.length} volume groups named ${groupName}`,
        ),
      },
    ]
  const own = group.physical.find(({ kernelName }) => kernelName === array?.kernelName)
  if (array !== null && own === undefined) {
    const on = listed(group.physical.map(({ device }) => device ?? 'a missing device'))
    return [
      {
        ...step,
        blocked: blocked('volumes.group-elsewhere', `volume group ${groupName} is on ${on}, not on ${path}`),
      },
    ]
  }
  if (group.attributes[3] === 'p') {
    const missing = group.physical.filter(({ device }) => device === null).map(({ uuid }) => uuid)
    return [
      {
        ...step,
        blocked: blocked('volumes.group-partial', `volume group ${groupName} misses ${listed(missing)}`),
      },
    ]
  }
  if (own === undefined) return []
  const usableBytes =
    Math.floor((own.deviceBytes - own.dataOffsetBytes) / group.extentBytes) * group.extentBytes
  // One extent may be lost to a second metadata area at the end.
  if (usableBytes <= own.sizeBytes + group.extentBytes) return []
  return [
    {
      id: 'volumes.group-grow',
      summary: `${groupName} from ${formatBytes(own.sizeBytes)} to ${formatBytes(usableBytes)} of ${path.slice('/dev/'.length)}`,
      risk: 'safe',
      because: [{ path: 'volumes.group.sizeBytes', desired: usableBytes, observed: own.sizeBytes }],
      actions: [run(['/usr/sbin/pvresize', '--', path])],
    },
  ]
}

/** What the steps of one volume are made from. */
interface Subject {
  readonly volume: ObservedVolume
  readonly want: DesiredLogical
  readonly desired: Desired
  readonly groupName: string
  readonly group: VolumeGroup | undefined
  readonly geometry: Geometry | null
  /** Keys of the steps that must be gone before LVM may change this volume. */
  readonly after: readonly string[]
  /** Extents that nobody has yet and no earlier volume of the document asks for. */
  readonly freeExtents: number
  /** The other volume that is to be mounted at the same path. */
  readonly rival: string | null
  /** Mount steps of volumes above this one's mount point. */
  readonly mountsAbove: readonly string[]
}

const pathOf = ({ volume }: Subject, field: string): string => `volumes.logical.${volume.name}.${field}`

const sizeField = ({ want }: Subject): 'share' | 'size' => (want.share === undefined ? 'size' : 'share')

/** Size in words: `40 % = 1.4 TiB`. */
function sizeWords({ want, group }: Subject): string {
  if (want.size !== undefined) return want.size
  const share = `${want.share} %`
  return group === undefined
    ? share
    : `${share} = ${formatBytes(Math.floor((group.sizeBytes * (want.share ?? 0)) / 100))}`
}

/** The extents that a volume shall have: a share rounded down, so that shares of 100 per cent fit; a size rounded up, as lvcreate does. */
function wantedExtents({ want }: Subject, group: VolumeGroup): number {
  const extents =
    want.size === undefined
      ? Math.floor(((group.sizeBytes / group.extentBytes) * (want.share ?? 0)) / 100)
      : Math.ceil(sizeBytes(want.size) / group.extentBytes)
  return Math.max(1, extents)
}

const noRoom = (subject: Subject, neededExtents: number, group: VolumeGroup): Blocked | null => {
  const { volume, freeExtents } = subject
  if (neededExtents <= freeExtents) return null
  const needed = formatBytes(neededExtents * group.extentBytes)
  const free = formatBytes(Math.max(0, freeExtents) * group.extentBytes)
  return blocked('volumes.no-room', `${volume.name} needs ${needed} more, ${group.name} has ${free} left`)
}

const tooSmall = ({ volume, want }: Subject, bytes: number): Blocked | null =>
  want.mount !== undefined && want.filesystem === 'xfs' && bytes < smallestXfsBytes
    ? blocked(
        'volumes.no-room',
        `${volume.name} has ${formatBytes(bytes)}, xfs needs ${formatBytes(smallestXfsBytes)}`,
      )
    : null

const step = (
  { volume }: Subject,
  id: string,
  more: Pick<Step, 'summary' | 'because' | 'actions'> & Partial<Step>,
): Step => ({
  id: `volumes.${id}`,
  subject: volume.name,
  risk: 'safe',
  ...more,
})

const after = (keys: readonly string[]): { readonly after?: readonly string[] } =>
  keys.length === 0 ? {} : { after: keys }

const keyOf = ({ volume }: Subject, id: string): string =>
  stepKey({ id: `volumes.${id}`, subject: volume.name })

/** The name of the volume as LVM's tools take it. */
const lvmName = ({ groupName, volume }: Subject): string => `${groupName}/${volume.name}`

function createStep(subject: Subject): Step {
  const { volume, want, desired, group, groupName } = subject
  const extents = group === undefined ? null : wantedExtents(subject, group)
  const objection = reservedName.test(volume.name)
    ? blocked('volumes.name-refused', `LVM keeps names such as ${volume.name} for itself`)
    : group === undefined || extents === null
      ? null
      : (noRoom(subject, extents, group) ?? tooSmall(subject, extents * group.extentBytes))
  return step(subject, 'create', {
    summary: `${volume.name}, ${sizeWords(subject)}, ${want.mount === undefined ? 'raw' : want.filesystem}`,
    because: [change(desired, pathOf(subject, sizeField(subject)), want.size ?? want.share ?? null, null)],
    actions: [
      run([
        '/usr/sbin/lvcreate',
        // Signatures of what these extents held before are wiped: they are free extents of our own group.
        '--yes',
        ...['--wipesignatures', 'y', '--zero', 'y'],
        // A raw volume belongs to its VM from the start and is never formatted.
        ...(want.mount === undefined ? [] : ['--addtag', unformattedTag]),
        ...['--name', volume.name],
        // Before the group is there, a forecast in LVM's own words.
        ...(extents !== null
          ? ['--extents', String(extents)]
          : want.size === undefined
            ? ['--extents', `${want.share}%VG`]
            : ['--size', `${sizeBytes(want.size)}b`]),
        '--',
        groupName,
      ]),
    ],
    ...(objection !== null && { blocked: objection }),
    ...after(subject.after),
  })
}

/** Grows the volume, refuses to shrink it, or leaves it alone when it differs by no more than an extent. */
function sizeSteps(subject: Subject): readonly Step[] {
  const { volume, want, desired, group } = subject
  const { logical } = volume
  if (group === undefined || logical === null) return []
  const extents = logical.sizeBytes / group.extentBytes
  const wanted = wantedExtents(subject, group)
  if (Math.abs(wanted - extents) <= 1) return []
  const because = [
    change(
      desired,
      pathOf(subject, sizeField(subject)),
      want.size ?? want.share ?? null,
      formatBytes(logical.sizeBytes),
    ),
  ]
  const summary = `${volume.name} from ${formatBytes(logical.sizeBytes)} to ${formatBytes(wanted * group.extentBytes)}`
  if (wanted < extents)
    return [
      step(subject, 'shrink', {
        summary,
        because,
        actions: [],
        blocked: blocked(
          'volumes.shrink',
          `${volume.name} is ${formatBytes(logical.sizeBytes)}, the document asks for ${formatBytes(wanted * group.extentBytes)}`,
        ),
      }),
    ]
  const objection = noRoom(subject, wanted - extents, group)
  return [
    step(subject, 'grow', {
      summary,
      because,
      // In a unit, which outlives a killed agent: killed itself, it could leave a mounted volume suspended.
      actions: [
        run(['/usr/sbin/lvextend', '--extents', String(wanted), '--', lvmName(subject)], 2 * minuteMs, {
          unit: true,
        }),
      ],
      ...(objection !== null && { blocked: objection }),
      ...after(subject.after),
    }),
  ]
}

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
function formatStep(subject: Subject, place: MountPlace, comesAfter: readonly string[]): Step {
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
function putAsideStep(subject: Subject, place: MountPlace): Step {
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
function mountSteps(subject: Subject, place: MountPlace, comesAfter: readonly string[]): readonly Step[] {
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

/** Owner, group and mode of the mounted root folder. `fresh`: what mkfs makes, while nothing is mounted yet. */
function ownSteps(subject: Subject, place: MountPlace, comesAfter: readonly string[]): readonly Step[] {
  const { volume, want, desired } = subject
  const mode = Number.parseInt(want.mode, 8)
  const octal = (value: number): string => value.toString(8).padStart(4, '0')
  const fresh = { mode: 0o755, uid: 0, gid: 0 }
  const root = place.root ?? fresh
  const because = [
    ...(root.mode === mode ? [] : [change(desired, pathOf(subject, 'mode'), octal(mode), octal(root.mode))]),
    ...(place.owner?.id === root.uid
      ? []
      : [change(desired, pathOf(subject, 'owner'), want.owner, root.uid)]),
    ...(place.group?.id === root.gid
      ? []
      : [change(desired, pathOf(subject, 'group'), want.group, root.gid)]),
  ]
  if (because.length === 0) return []
  const unknown = [
    ...(place.owner === null ? [`user ${want.owner}`] : []),
    ...(place.group === null ? [`group ${want.group}`] : []),
  ]
  return [
    step(subject, 'own', {
      summary: `${place.path} to ${want.owner}:${want.group}, mode ${octal(mode)}`,
      because,
      actions: [
        {
          kind: 'folder',
          path: place.path,
          mode,
          owner: place.owner?.name ?? want.owner,
          group: place.group?.name ?? want.group,
        },
      ],
      // Before the volume is mounted, the account may still come with a package.
      ...(place.root !== null &&
        unknown.length > 0 && {
          blocked: blocked(
            'volumes.owner-unknown',
            `there is no ${unknown.join(' and no ')} for ${volume.name}`,
          ),
        }),
      ...after(comesAfter),
    }),
  ]
}

/** What a mounted volume still needs: its filesystem as large as itself, its owner, its label. */
function mountedSteps(subject: Subject, place: MountPlace, growing: readonly Step[]): readonly Step[] {
  const { volume } = subject
  const { logical, filesystemBytes, device, signature } = volume
  const grow = growing.find(({ id }) => id === 'volumes.grow')
  const short =
    logical !== null && filesystemBytes !== null && logical.sizeBytes - filesystemBytes > unusedTailBytes
  const fill =
    grow || short
      ? [
          step(subject, 'fill', {
            summary: `grow the ${signature?.type} of ${volume.name} to its volume`,
            because: [
              {
                path: pathOf(subject, 'filesystemBytes'),
                desired: short ? logical.sizeBytes : null,
                observed: filesystemBytes,
              },
            ],
            actions: [
              run(signature?.type === 'ext4' ? resize2fs(device) : xfsGrowfs(place.path), 30 * minuteMs),
            ],
            ...after(grow ? [stepKey(grow)] : []),
          }),
        ]
      : []
  const label =
    place.label === null
      ? []
      : [
          step(subject, 'label', {
            summary: `SELinux label of ${place.path}`,
            because: [
              {
                path: pathOf(subject, 'label'),
                desired: place.label.wanted,
                observed: place.label.observed,
              },
            ],
            actions: labelActions(place.path, place.label),
          }),
        ]
  return [...fill, ...ownSteps(subject, place, []), ...label]
}

/** Steps of one volume, in their order. */
function planVolume(subject: Subject): readonly Step[] {
  const { volume, want, desired } = subject
  const { logical, signature, place } = volume
  const mountKeys = [keyOf(subject, 'mount')]
  if (logical === null) {
    const create = createStep(subject)
    if (place === null) return [create]
    return [
      create,
      formatStep(subject, place, [stepKey(create)]),
      ...mountSteps(subject, place, [keyOf(subject, 'format')]),
      ...ownSteps(subject, place, mountKeys),
    ]
  }
  const refuse = (code: ProblemCode, message: string): readonly Step[] => [
    step(subject, 'format', {
      summary: `${volume.name}, ${want.filesystem}`,
      because: [change(desired, pathOf(subject, 'filesystem'), want.filesystem, signature?.type ?? null)],
      actions: [],
      blocked: blocked(code, message, { volume: lvmName(subject) }),
    }),
  ]
  if (logical.path === null)
    return refuse(
      'volumes.name-refused',
      `${lvmName(subject)} is there already, and is a ${logical.layout.join(' ')}`,
    )
  const growing = sizeSteps(subject)
  if (!logical.active)
    return [
      ...growing,
      step(subject, 'activate', {
        summary: volume.name,
        because: [{ path: pathOf(subject, 'active'), desired: true, observed: false }],
        actions: [run(['/usr/sbin/lvchange', '--activate', 'y', '--', lvmName(subject)])],
        ...after(subject.after),
      }),
    ]
  const unformatted = logical.tags.includes(unformattedTag)
  if (place === null)
    return [
      ...growing,
      ...(unformatted
        ? [
            step(subject, 'untag', {
              summary: `${volume.name} is raw, so nothing may format it later`,
              because: [{ path: pathOf(subject, 'mount'), desired: null, observed: unformattedTag }],
              actions: [run(['/usr/sbin/lvchange', '--deltag', unformattedTag, '--', lvmName(subject)])],
              ...after(subject.after),
            }),
          ]
        : []),
    ]
  if (volume.mountpoints.includes(stagePath(volume.name)))
    return [
      step(subject, 'unstage', {
        summary: `${volume.name} from ${stagePath(volume.name)}, left by an interrupted move`,
        because: [{ path: pathOf(subject, 'mount'), desired: place.path, observed: stagePath(volume.name) }],
        actions: [run(['/usr/bin/umount', '--', stagePath(volume.name)], 5 * minuteMs, { unit: true })],
      }),
    ]
  if (unformatted) {
    const before = [...subject.after, ...growing.map(stepKey)]
    return [
      ...growing,
      formatStep(subject, place, before),
      ...mountSteps(subject, place, [keyOf(subject, 'format')]),
      ...ownSteps(subject, place, mountKeys),
    ]
  }
  if (signature === null)
    return refuse('volumes.content-unknown', `${volume.name} has no filesystem, and Garrison did not make it`)
  if (signature.type !== want.filesystem)
    return refuse(
      'volumes.filesystem-differs',
      `${volume.name} holds ${signature.type}, the document asks for ${want.filesystem}`,
    )
  if (logical.tags.includes(copiedTag))
    return [
      ...growing,
      putAsideStep(subject, place),
      ...mountSteps(subject, place, [keyOf(subject, 'put-aside')]),
      ...ownSteps(subject, place, mountKeys),
    ]
  const mounting = mountSteps(subject, place, [])
  return place.occupant?.ours
    ? [...mounting, ...growing, ...mountedSteps(subject, place, growing)]
    : [...growing, ...mounting, ...ownSteps(subject, place, mountKeys)]
}

/** Plans volumes. Pure. Blocked steps carry `volumes.…` codes. */
export function plan(observed: ObservedVolumes, desired: Desired): readonly Step[] {
  const { volumes: wanted } = desired
  if (wanted === undefined || observed.groupName === null) return []
  const groupSteps = planGroup(observed, desired, wanted.group)
  const [group] = observed.groups.length === 1 ? observed.groups : []
  const steps: Step[] = [...groupSteps]
  let freeExtents = group === undefined ? 0 : group.freeBytes / group.extentBytes
  for (const volume of observed.volumes) {
    const want = wanted.logical[volume.name]
    if (want === undefined) continue
    const others = Object.entries(wanted.logical).filter(([name]) => name !== volume.name)
    const subject: Subject = {
      volume,
      want,
      desired,
      groupName: wanted.group,
      group,
      geometry: observed.array?.geometry ?? null,
      after: groupSteps.map(stepKey),
      freeExtents,
      rival: others.find(([, other]) => want.mount !== undefined && other.mount === want.mount)?.[0] ?? null,
      mountsAbove: others.flatMap(([name, { mount }]) =>
        mount !== undefined && want.mount?.startsWith(`${mount}/`)
          ? [stepKey({ id: 'volumes.mount', subject: name })]
          : [],
      ),
    }
    steps.push(...planVolume(subject))
    if (group !== undefined) {
      const has = (volume.logical?.sizeBytes ?? 0) / group.extentBytes
      freeExtents -= Math.max(0, wantedExtents(subject, group) - has)
    }
  }
  return steps
}
