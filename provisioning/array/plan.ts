// The steps that make the wanted array out of what is there: create, assemble, complete, remember, name. Speaks mdadm(8).

import { formatBytes } from '../block/bytes.ts'
import type { Desired, DesiredArray } from '../desired.ts'
import { HostError } from '../problem.ts'
import { type Action, type Change, type Json, type Step, stepKey } from '../resource.ts'
import {
  arrayUuid,
  countProblem,
  identityOf,
  isAbsentMember,
  leftovers,
  nameOf,
  type Ours,
  ownUnfinishedUuids,
  type Selection,
  selectDrives,
  titleOf,
} from './drives.ts'
import { withArray } from './mdadm-conf.ts'
import type { ArrayObserved, Drive, MdArray } from './observe.ts'
import { blocked, demandRead, healthGuard, isWorking, mdadm, memberFacts, run } from './steps.ts'

const udevadm = '/usr/bin/udevadm'

const named = (name: string): Action => ({
  kind: 'wait',
  until: { kind: 'exists', path: `/dev/md/${name}` },
  summary: `/dev/md/${name} to appear`,
  deadlineMs: 30_000,
})

const because = (path: string, desired: Json, observed: Json, sources: Desired['sources']): Change => ({
  path,
  desired,
  observed,
  ...(sources[path] !== undefined && { why: sources[path] }),
})

/** Whether the level can have these options, or why not. */
function shapeProblem({ level, consistency, spares }: DesiredArray): string | null {
  if (consistency === 'ppl' && level !== 5)
    return `consistency ppl works with level 5 only, not with ${level}`
  if (consistency !== undefined && level === 0) return `level 0 has no redundancy to keep consistent`
  if (spares > 0 && level === 0) return 'level 0 has no use for spares'
  return null
}

/** How the array is kept consistent: PPL closes RAID5's write hole, a bitmap makes the others' resync after a crash short. */
const consistencyOf = ({ level, consistency }: DesiredArray): 'ppl' | 'bitmap' | null =>
  level === 0 ? null : (consistency ?? (level === 5 ? 'ppl' : 'bitmap'))

/**
 * The argv of a creation. Homehost `any` makes the array's name hold whatever the host is called, even without mdadm.conf.
 * mdadm asks before it writes over anything that it recognises; standard input says no, and only over our own unfinished
 * creation is it told beforehand (`--run`). Newer versions ask for a bitmap when none is named, so it is, or said to be none.
 */
function createAction(wanted: DesiredArray, { chosen, uuid, unfinished }: Selection): Action {
  const { name, level, chunkKiB, spares } = wanted
  const consistency = consistencyOf(wanted)
  return run(
    [
      mdadm,
      '--create',
      `/dev/md/${name}`,
      ...(unfinished.length > 0 ? ['--run'] : []),
      `--name=${name}`,
      '--homehost=any',
      '--metadata=1.2',
      `--uuid=${uuid}`,
      `--level=${level}`,
      `--raid-devices=${chosen.length - spares}`,
      ...(spares > 0 ? [`--spare-devices=${spares}`] : []),
      ...(level === 1 ? [] : [`--chunk=${chunkKiB}`]),
      // mdadm 4.2 refuses even `none` for a level without redundancy.
      ...(level === 0 ? [] : [`--bitmap=${consistency === 'bitmap' ? 'internal' : 'none'}`]),
      ...(consistency === 'ppl' ? ['--consistency-policy=ppl'] : []),
      ...chosen.map(({ path }) => path),
    ],
    { stdin: 'n\n' },
  )
}

/** What mdadm.conf should say, as a step, and the initramfs that takes it along. */
function remember(
  observed: ArrayObserved,
  desired: Desired,
  wanted: DesiredArray,
  array: { readonly uuid: string; readonly members: readonly string[] },
  after: readonly string[],
): readonly Step[] {
  const { conf, initramfs } = observed
  const device = `/dev/md/${wanted.name}`
  const content = withArray(conf.text, { device, ...array })
  const configure: readonly Step[] =
    content === conf.text
      ? []
      : [
          {
            id: 'array.configure',
            summary: `name ${device} by its UUID in ${conf.path}`,
            risk: 'safe',
            because: [
              because(
                'array.name',
                { device, uuid: array.uuid },
                conf.remembered ? { device: conf.remembered.device, uuid: conf.remembered.uuid } : null,
                desired.sources,
              ),
            ],
            actions: [{ kind: 'write', path: conf.path, content, mode: 0o644 }],
            ...(after.length > 0 && { after }),
          },
        ]
  if (initramfs.tool === null || (configure.length === 0 && initramfs.stale.length === 0)) return configure
  const argv: readonly [string, ...string[]] =
    initramfs.tool === 'dracut'
      ? ['/usr/bin/dracut', '--force', '--regenerate-all']
      : ['/usr/sbin/update-initramfs', '-u', '-k', 'all']
  return [
    ...configure,
    {
      id: 'array.initramfs',
      summary: `take ${conf.path} along into the initramfs`,
      risk: 'safe',
      because: [
        because('array.name', `initramfs as new as ${conf.path}`, [...initramfs.stale], desired.sources),
      ],
      actions: [
        { kind: 'run', argv, deadlineMs: 900_000, unit: true },
        // Not every tool flushes what it wrote, and a host that is cut off now must boot.
        run(['/usr/bin/sync', '--file-system', '/boot']),
      ],
      ...((configure.length > 0 || after.length > 0) && { after: [...after, ...configure.map(stepKey)] }),
    },
  ]
}

function stopLeftovers(observed: ArrayObserved, wanted: DesiredArray): readonly Step[] {
  return leftovers(observed, ownUnfinishedUuids(observed, wanted)).map((array) => ({
    id: 'array.stop-unfinished',
    subject: array.kernelName,
    summary: `stop ${array.kernelName}, an array that was begun and never ran`,
    risk: 'safe',
    because: [{ path: 'array', desired: null, observed: { array: array.kernelName, uuid: array.uuid } }],
    actions: [run([mdadm, '--stop', array.path]), ...forgetCreating(observed, array.kernelName)],
  }))
}

/** A killed mdadm leaves a file that makes udev ignore the array for as long as the host is up. */
const forgetCreating = ({ creating }: ArrayObserved, kernelName: string): readonly Action[] =>
  creating.includes(`creating-${kernelName}`)
    ? [{ kind: 'remove', path: `/run/mdadm/creating-${kernelName}` }]
    : []

/** Each drive that is no member, and why: what a person needs to know when there are too few. */
const whyNot = ({ verdicts }: Selection): readonly string[] =>
  verdicts
    .filter(({ refusals }) => refusals.some(({ code }) => code !== 'drive.count-unlike'))
    .map(({ drive, serial, text }) => `${nameOf({ name: drive, serial })} ${text}`)

function planNew(observed: ArrayObserved, desired: Desired, wanted: DesiredArray, selection: Selection) {
  const { chosen, uuid, missing } = selection
  const { remembered } = observed.conf
  const device = `/dev/md/${wanted.name}`
  const lost = remembered?.device === device ? remembered : null
  const members = chosen.length - wanted.spares
  const stops = stopLeftovers(observed, wanted)
  const step = {
    id: lost ? 'array.recreate' : 'array.create',
    summary: `raid${wanted.level} ${device} from ${chosen.map(identityOf).join(', ') || 'no drive'}`,
    because: [
      because(
        'array',
        { name: wanted.name, level: wanted.level, uuid, members: chosen.map(memberFacts) },
        lost ? { lost: lost.uuid } : null,
        desired.sources,
      ),
    ],
  }
  const impossible = shapeProblem(wanted)
  if (impossible !== null) return [blocked(step, 'array.impossible', impossible)]
  if (lost && wanted.onLoss === 'report')
    return [
      blocked(step, 'array.lost', `${device} (${lost.uuid}) is on no drive any more`, {
        volumes: observed.lostVolumes.map(({ name }) => name),
      }),
    ]
  const reasons = whyNot(selection)
  if (missing.length > 0)
    return [
      blocked(step, 'array.member-absent', `no drive is ${missing.join(', nor ')}`, {
        missing: [...missing],
        refused: [...reasons],
      }),
    ]
  const [problem] = [
    countProblem(chosen.length, wanted),
    wanted.members !== 'unused' && chosen.length < wanted.members.length
      ? `${chosen.length} of the ${wanted.members.length} drives in array.members are fit`
      : null,
    lost && chosen.length < lost.members.length
      ? `${chosen.length} drives are fit, the lost array had ${lost.members.length}`
      : null,
  ].filter((one) => one !== null)
  if (problem !== undefined)
    return [
      blocked(step, 'array.too-few-drives', [problem, ...reasons].join('; '), { refused: [...reasons] }),
    ]
  const create: Step = {
    ...step,
    risk: 'safe',
    actions: [...healthGuard(chosen), createAction(wanted, selection), named(wanted.name)],
    claims: chosen.map(({ path }) => path),
    ...(stops.length > 0 && { after: stops.map(stepKey) }),
    summary: `raid${wanted.level} ${device}, ${members} x ${formatBytes(chosen[0]?.sizeBytes ?? 0)}: ${chosen.map(identityOf).join(', ')}`,
  }
  return [
    ...stops,
    create,
    ...remember(observed, desired, wanted, { uuid, members: chosen.map(identityOf) }, [stepKey(create)]),
  ]
}

const wrongLevel = (
  wanted: DesiredArray,
  level: string | null,
  title: string,
  sources: Desired['sources'],
): Step =>
  blocked(
    {
      id: 'array.level',
      summary: `${title} is ${level}, wanted raid${wanted.level}`,
      because: [because('array.level', wanted.level, level, sources)],
    },
    'array.wrong-level',
    `${title} is ${level}, the document wants raid${wanted.level}`,
  )

function planStored(
  observed: ArrayObserved,
  desired: Desired,
  wanted: DesiredArray,
  { uuid, drives, inactive }: Extract<Ours, { found: 'stored' }>,
): readonly Step[] {
  const superblocks = drives.flatMap(({ superblock }) => superblock ?? [])
  const newest = Math.max(...superblocks.map(({ events }) => events ?? 0))
  const [first] = superblocks
  const level = first?.level ?? null
  const device = `/dev/md/${wanted.name}`
  if (level !== `raid${wanted.level}`) return [wrongLevel(wanted, level, device, desired.sources)]
  const raidDevices = first?.raidDevices ?? 0
  // A member that missed events is stale; mdadm leaves it out, so it does not count.
  const slots = new Set(
    superblocks
      .filter(({ role, events }) => role === 'active' && (events ?? 0) >= newest - 1)
      .map(({ slot }) => slot),
  )
  const lacking = raidDevices - slots.size
  const spare = wanted.level === 6 ? 2 : wanted.level === 0 ? 0 : 1
  const step = {
    id: 'array.assemble',
    summary: `assemble ${device} from ${drives.map(nameOf).join(', ')}`,
    because: [
      because('array', { name: wanted.name, uuid }, { running: false, missing: lacking }, desired.sources),
    ],
  }
  // RAID10 may survive more, but which pairs are whole is the kernel's to say: one missing member is what always works.
  // The array's newest member may be rebuilding: a spare in a slot counts as lacking, and one is allowed for.
  if (lacking > spare)
    return [
      blocked(
        step,
        'array.members-missing',
        `${slots.size} of ${raidDevices} members of ${device} are there: ${drives.map(nameOf).join(', ')}`,
      ),
    ]
  const absent = raidDevices - drives.length
  const assemble: Step = {
    ...step,
    risk: absent > 0 ? 'disruptive' : 'safe',
    actions: [
      ...(inactive
        ? [run([mdadm, '--stop', inactive.path]), ...forgetCreating(observed, inactive.kernelName)]
        : []),
      run([
        mdadm,
        '--assemble',
        device,
        `--uuid=${uuid}`,
        ...(absent > 0 ? ['--run'] : []),
        ...drives.map(({ path }) => path),
      ]),
      named(wanted.name),
    ],
  }
  const { remembered } = observed.conf
  const members = remembered?.uuid === uuid ? remembered.members : drives.map(identityOf).sort()
  return [assemble, ...remember(observed, desired, wanted, { uuid, members }, [stepKey(assemble)])]
}

const addStep = (array: MdArray, drive: Drive, reason: Change): Step => ({
  id: 'array.add',
  subject: identityOf(drive),
  summary: `add ${nameOf(drive)} to ${titleOf(array)}`,
  risk: 'safe',
  because: [
    reason,
    { path: 'array.members', desired: { uuid: array.uuid, members: [memberFacts(drive)] }, observed: null },
  ],
  actions: [
    ...healthGuard([drive]),
    run([mdadm, '--manage', array.path, '--add', drive.path], { stdin: 'n\n' }),
  ],
  claims: [drive.path],
})

/** Every choice of `size` out of `all`. */
function* choices<T>(all: readonly T[], size: number): Generator<readonly T[]> {
  if (size === 0) yield []
  else
    for (const [index, one] of all.entries())
      for (const rest of choices(all.slice(index + 1), size - 1)) yield [one, ...rest]
}

/** Drives that the array lacks because its creation was cut short, or spares that it should have. */
function planAdditions(
  observed: ArrayObserved,
  desired: Desired,
  wanted: DesiredArray,
  array: MdArray,
  fit: readonly Drive[],
): readonly Step[] {
  const own = array.members.flatMap(({ drive }) => observed.drives.filter(({ name }) => name === drive))
  const working = array.members.filter(isWorking)
  const lacking = (array.raidDevices ?? 0) - working.length
  if (lacking > 0) {
    // Its UUID was worked out from the drives it was meant to have: those that make it come out right belong to it.
    for (const rest of choices(fit, lacking))
      if (arrayUuid(observed.machineId, wanted.name, [...own, ...rest].map(identityOf)) === array.uuid)
        return rest.map((drive) =>
          addStep(array, drive, { path: 'array', desired: 'whole', observed: 'its creation was cut short' }),
        )
    return observed.drives
      .filter((drive) => isAbsentMember(drive, array, observed))
      .slice(0, lacking)
      .map((drive) => ({
        id: 'array.rejoin',
        subject: identityOf(drive),
        summary: `take ${nameOf(drive)} back into ${titleOf(array)}, to which it belongs`,
        risk: 'disruptive',
        because: [{ path: 'array', desired: 'whole', observed: `${lacking} members are missing` }],
        actions: [run([mdadm, '--manage', array.path, '--add', drive.path], { stdin: 'n\n' })],
        claims: [drive.path],
      }))
  }
  const spares = working.length - (array.raidDevices ?? working.length)
  return fit
    .slice(0, Math.max(0, wanted.spares - spares))
    .map((drive) => addStep(array, drive, because('array.spares', wanted.spares, spares, desired.sources)))
}

/** The array's name in /dev/md, when it has come up under another or under none. */
function planName(
  observed: ArrayObserved,
  wanted: DesiredArray,
  array: MdArray,
  after: readonly string[],
): readonly Step[] {
  const { links, path, kernelName, uuid, used } = array
  const forget = forgetCreating(observed, kernelName)
  if (links.includes(wanted.name) && forget.length === 0) return []
  const device = `/dev/md/${wanted.name}`
  const step = {
    id: 'array.name',
    summary: `call ${titleOf(array)} ${device}`,
    risk: 'safe',
    because: [{ path: 'array.name', desired: wanted.name, observed: [...links] }],
    ...(after.length > 0 && { after }),
  } as const
  if (links.length === 0 || links.includes(wanted.name))
    return [
      {
        ...step,
        actions: [
          ...forget,
          ...(links.length === 0 ? [run([mdadm, '--incremental', '--rebuild-map'])] : []),
          run([udevadm, 'trigger', '--action=change', `--name-match=${path}`]),
          named(wanted.name),
        ],
      },
    ]
  // Under a name of its own it is renamed only when it is started, and stopped only when nothing stands on it.
  if (used) return []
  return [
    {
      ...step,
      actions: [
        run([mdadm, '--stop', path]),
        run([
          mdadm,
          '--assemble',
          device,
          `--uuid=${uuid}`,
          ...array.members.filter(isWorking).map(({ name }) => `/dev/${name}`),
        ]),
        named(wanted.name),
      ],
    },
  ]
}

/** A rebuild or resync that waits for a first write which may never come. */
function planResume(array: MdArray): readonly Step[] {
  const { readOnly, members, progress, raidDevices, path } = array
  const active = members.filter(({ condition }) => condition === 'active').length
  const lacking = (raidDevices ?? active) - active
  const waits =
    progress?.waits === 'pending' || (lacking > 0 && active + lacking <= members.filter(isWorking).length)
  if (readOnly !== 'auto' || !waits) return []
  return [
    {
      id: 'array.resume',
      summary: `let ${titleOf(array)} go on with what it waits for`,
      risk: 'safe',
      because: [{ path: 'array', desired: 'redundant', observed: 'read-only until its first write' }],
      actions: [run([mdadm, '--readwrite', path])],
    },
  ]
}

function planRunning(
  observed: ArrayObserved,
  desired: Desired,
  wanted: DesiredArray,
  selection: Selection,
  array: MdArray,
): readonly Step[] {
  const { uuid } = array
  if (array.level !== `raid${wanted.level}`)
    return [wrongLevel(wanted, array.level, titleOf(array), desired.sources)]
  if (uuid === null)
    throw new HostError('host.unexpected-answer', `mdadm --detail ${array.path} gives no UUID`)
  const working = array.members.filter(isWorking)
  const own = working.flatMap(({ drive }) => observed.drives.filter(({ name }) => name === drive))
  const whole =
    array.members.every(({ condition }) => condition === 'active' || condition === 'spare') &&
    working.length >= (array.raidDevices ?? 0)
  const { remembered } = observed.conf
  // While members are missing or copied the list of them stays as it was: it tells which.
  const members = remembered?.uuid === uuid && !whole ? remembered.members : own.map(identityOf).sort()
  const configure = remember(observed, desired, wanted, { uuid, members }, [])
  return [
    ...planAdditions(observed, desired, wanted, array, selection.chosen),
    ...planResume(array),
    ...configure,
    ...planName(observed, wanted, array, configure.filter(({ id }) => id === 'array.configure').map(stepKey)),
  ]
}

/** The steps from the observed drives and arrays to the desired array. Throws when what it must know could not be read. */
export function plan(observed: ArrayObserved, desired: Desired): readonly Step[] {
  const wanted = desired.array
  if (wanted === undefined) return []
  demandRead(observed)
  const selection = selectDrives(observed, desired)
  const { ours } = selection
  switch (ours.found) {
    case 'none':
      return planNew(observed, desired, wanted, selection)
    case 'ambiguous':
      return [
        blocked(
          {
            id: 'array.adopt',
            summary: `adopt one of ${ours.names.join(', ')}`,
            because: [because('array', wanted.name, [...ours.names], desired.sources)],
          },
          'array.ambiguous',
          `${ours.names.length} arrays could be meant: ${ours.names.join(', ')}`,
        ),
      ]
    case 'stored':
      return planStored(observed, desired, wanted, ours)
    case 'running':
      return planRunning(observed, desired, wanted, selection, ours.array)
  }
}
