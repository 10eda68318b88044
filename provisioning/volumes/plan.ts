// Decides what is to be done so that the declared volumes are there, formatted, mounted and as large as wanted.

import type { Desired } from '../desired.ts'
import type { ProblemCode } from '../problem.ts'
import { type Step, stepKey } from '../resource.ts'
import { resize2fs } from './ext4.ts'
import { createStep, planGroup, sizeSteps, wantedExtents } from './lvm.ts'
import { copiedTag, type MountPlace, type ObservedVolumes, stagePath, unformattedTag } from './observe.ts'
import { formatStep, mountSteps, putAsideStep } from './place.ts'
import { labelActions } from './selinux.ts'
import {
  after,
  blocked,
  change,
  keyOf,
  lvmName,
  minuteMs,
  pathOf,
  run,
  type Subject,
  step,
} from './subject.ts'
import { xfsGrowfs } from './xfs.ts'

/** mkfs.xfs leaves out a last allocation group of less than 16 MiB, so a filesystem may end so much before its volume. */
const unusedTailBytes = 16 * 2 ** 20

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
