// Which drives an array is made of: which array is ours, a verdict with its reasons for every drive, and the choice.

import { createHash } from 'node:crypto'
import { formatBytes } from '../block/bytes.ts'
import type { Desired, DesiredArray } from '../desired.ts'
import type { MdSuperblock } from './mdadm.ts'
import type { ArrayObserved, Drive, MdArray, UnfinishedArray } from './observe.ts'
import { contextOf, type Refusal, type RefusalContext, refusals } from './refusals.ts'

/** What becomes of a drive. `unused`: nothing is against it, and the array does not need it. */
export interface Verdict {
  readonly drive: string
  readonly serial: string | null
  readonly verdict: 'member' | 'chosen' | 'unused' | 'refused'
  /** `chosen: blank, unused, same size` without the first word. */
  readonly text: string
  readonly refusals: readonly Refusal[]
}

/** The array that the document is about, as far as it is on the host. */
export type Ours =
  | { readonly found: 'none' }
  /** The kernel runs it. `foreign`: it is adopted by its shape, its name and UUID being none that we know. */
  | { readonly found: 'running'; readonly array: MdArray; readonly foreign: boolean }
  /** Its superblocks are on drives; the kernel has it not, or has begun it (`inactive`). */
  | {
      readonly found: 'stored'
      readonly uuid: string
      readonly drives: readonly Drive[]
      readonly inactive: MdArray | null
    }
  /** More than one array could be meant. */
  | { readonly found: 'ambiguous'; readonly names: readonly string[] }

/** The choice. `chosen` is sorted by serial, spares last; `missing` are listed members that no drive is. */
export interface Selection {
  readonly ours: Ours
  readonly verdicts: readonly Verdict[]
  readonly chosen: readonly Drive[]
  /** The UUID that an array of the chosen drives gets. */
  readonly uuid: string
  /** Chosen drives that bear the superblock of our own creation that never ran. */
  readonly unfinished: readonly Drive[]
  readonly missing: readonly string[]
}

/** The fewest members with which a level is what its name says. */
export const leastMembers: Readonly<Record<DesiredArray['level'], number>> = { 0: 2, 1: 2, 5: 3, 6: 4, 10: 2 }

const alike = 0.01

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** What a drive is known by over restarts. */
export const identityOf = ({ serial, wwn }: Pick<Drive, 'serial' | 'wwn'>): string => serial ?? wwn ?? ''

/** `nvme1n1 (AWS1A…02)` with the whole serial. */
export const nameOf = ({ name, serial }: Pick<Drive, 'name' | 'serial'>): string =>
  serial === null ? name : `${name} (${serial})`

/** `md/garrison`, or `md127 (data)` when it has no name in /dev/md. */
export const titleOf = ({ links, kernelName, name }: MdArray): string =>
  links[0] ? `md/${links[0]}` : name ? `${kernelName} (${name})` : kernelName

/**
 * The UUID of the array of that name over these drives on this host, as mdadm writes it: the same each time it is worked out,
 * so that what a creation left behind when it was cut short is known for ours.
 */
export function arrayUuid(machineId: string, name: string, identities: readonly string[]): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([machineId, name, [...identities].sort(compare)]))
    .digest('hex')
  return (digest.slice(0, 32).match(/.{8}/g) ?? []).join(':')
}

/** Whether the kernel has started this array at least once: only then can there be data on it. */
const hasRun = ({ events }: MdSuperblock): boolean => (events ?? 1) > 0

/**
 * Whether a drive that is not in the running array belongs to it: it bears its superblock, and mdadm.conf does not remember the
 * array without it. One that was replaced bears the superblock too, and is out for good.
 */
export function isAbsentMember(drive: Drive, array: MdArray, { conf }: ArrayObserved): boolean {
  const remembered = conf.remembered?.uuid === array.uuid ? conf.remembered : null
  return (
    drive.superblock?.uuid != null &&
    drive.superblock.uuid === array.uuid &&
    !drive.arrays.includes(array.kernelName) &&
    (remembered === null || remembered.members.includes(identityOf(drive)))
  )
}

function listing(drive: Drive, observed: ArrayObserved, { members }: DesiredArray): string | null {
  if (members === 'unused') return null
  for (const one of members) {
    if ('serial' in one && one.serial === drive.serial) return one.serial
    if ('byId' in one && observed.links[one.byId] === drive.name) return one.byId
  }
  return null
}

const isListed = (drive: Drive, observed: ArrayObserved, wanted: DesiredArray): boolean =>
  wanted.members === 'unused' || listing(drive, observed, wanted) !== null

/** UUIDs with which the journal shows that we began an array here: worked out again from the serials it names. */
function begunUuids({ unfinished, machineId }: ArrayObserved, { name }: DesiredArray): readonly string[] {
  return unfinished.flatMap(({ uuid, members }) =>
    uuid !== null && uuid === arrayUuid(machineId, name, members) ? [uuid] : [],
  )
}

/** Arrays that were begun and never ran: those of our own unfinished creations, and those without any member. */
export const leftovers = (
  { arrays, drives }: ArrayObserved,
  ownUnfinished: readonly string[],
): readonly MdArray[] =>
  arrays.filter(
    ({ active, members, kernelName }) =>
      !active &&
      (members.length === 0 ||
        drives
          .filter((drive) => drive.arrays.includes(kernelName))
          .every(({ superblock }) => superblock?.uuid != null && ownUnfinished.includes(superblock.uuid))),
  )

/** UUIDs of arrays that never ran and were made by us: worked out from the drives that would be chosen, or from the journal. */
export function ownUnfinishedUuids(observed: ArrayObserved, wanted: DesiredArray): readonly string[] {
  const tentative = observed.drives.flatMap(({ superblock }) =>
    superblock?.uuid && !hasRun(superblock) ? superblock.uuid : [],
  )
  if (tentative.length === 0) return []
  const begun = begunUuids(observed, wanted)
  const { chosen } = choose(observed, wanted, tentative)
  const expected = arrayUuid(observed.machineId, wanted.name, chosen.map(identityOf))
  return [...new Set(tentative)].filter((uuid) => uuid === expected || begun.includes(uuid))
}

/** Which array the document is about. Known by the UUID in mdadm.conf, then by its name, then by its shape. */
export function findOurs(observed: ArrayObserved, wanted: DesiredArray): Ours {
  const { arrays, drives, conf } = observed
  const device = `/dev/md/${wanted.name}`
  const remembered = conf.remembered?.device === device ? conf.remembered.uuid : null
  const running = arrays.filter(({ active }) => active)
  const stored = drives.filter(
    ({ superblock }) => superblock?.uuid && superblock.role !== 'unknown' && hasRun(superblock),
  )
  const storedOf = (uuid: string) => stored.filter(({ superblock }) => superblock?.uuid === uuid)
  const of = (uuid: string): Ours => {
    const array = running.find((one) => one.uuid === uuid)
    if (array) return { found: 'running', array, foreign: false }
    const inactive = arrays.find((one) => !one.active && one.uuid === uuid) ?? null
    return { found: 'stored', uuid, drives: storedOf(uuid), inactive }
  }
  const isSeen = (uuid: string): boolean =>
    running.some((one) => one.uuid === uuid) || storedOf(uuid).length > 0
  if (remembered !== null && isSeen(remembered)) return of(remembered)

  const byName = new Set([
    ...running
      .filter((one) => one.name === wanted.name || one.links.includes(wanted.name))
      .map(({ uuid }) => uuid),
    ...stored
      .filter(({ superblock }) => superblock?.name === wanted.name)
      .map(({ superblock }) => superblock?.uuid),
  ])
  const uuids = [...byName].filter((uuid) => typeof uuid === 'string')
  if (uuids.length > 1) return { found: 'ambiguous', names: uuids }
  if (uuids[0] !== undefined) return of(uuids[0])

  const shaped = running.filter((array) => isOfShape(array, observed, wanted))
  const [only] = shaped
  if (only === undefined) return { found: 'none' }
  if (shaped.length > 1)
    return { found: 'ambiguous', names: shaped.map(({ name, kernelName }) => name ?? kernelName) }
  return { found: 'running', array: only, foreign: true }
}

/** Whether a running array that we do not know is what the document asks for: level, number, whole listed drives. */
function isOfShape(array: MdArray, observed: ArrayObserved, wanted: DesiredArray): boolean {
  const { level, system, members, raidDevices } = array
  const own = members.map(({ drive }) => observed.drives.find(({ name }) => name === drive))
  return (
    level === `raid${wanted.level}` &&
    system.length === 0 &&
    !array.metadata.startsWith('external') &&
    (raidDevices ?? 0) >= Math.max(wanted.minimum, leastMembers[wanted.level]) &&
    (wanted.count === undefined || wanted.count === members.length) &&
    own.every((drive) => drive !== undefined && isListed(drive, observed, wanted)) &&
    members.every(({ name, drive }) => name === drive)
  )
}

interface Choice {
  readonly chosen: readonly Drive[]
  readonly refused: ReadonlyMap<Drive, readonly Refusal[]>
}

/** Bytes that a drive must have to take a member's place. */
const neededBytes = ({ memberKib, dataOffsetSectors }: MdArray): number =>
  (memberKib ?? Number.POSITIVE_INFINITY) * 1024 + (dataOffsetSectors ?? 0) * 512

/** Judges every drive but the members of an array that runs: for that array, or for a new one. */
function choose(
  observed: ArrayObserved,
  wanted: DesiredArray,
  ownUnfinished: readonly string[],
  members: ReadonlySet<Drive> = new Set(),
  running: MdArray | null = null,
): Choice {
  const judgeSizes = (drives: readonly Drive[]) => (running ? byNeed(drives, running) : bySize(drives))
  const base = contextOf(observed, wanted.allow)
  const others: readonly UnfinishedArray[] =
    // A person who lists the drives one by one has decided about them.
    wanted.members === 'unused' ? observed.unfinished : []
  const refused = new Map<Drive, readonly Refusal[]>()
  const judge = (drive: Drive, unfinished: readonly UnfinishedArray[]): void => {
    const context: RefusalContext = {
      ...base,
      unfinished,
      ownUnfinished,
      ownHolders: leftovers(observed, ownUnfinished).map(({ kernelName }) => kernelName),
      listedAs: listing(drive, observed, wanted),
    }
    refused.set(drive, refusals(drive, context))
  }
  const judged = observed.drives.filter((drive) => !members.has(drive))
  for (const drive of judged) judge(drive, [])
  const fit = () =>
    judged.filter((drive) => refused.get(drive)?.length === 0 && isListed(drive, observed, wanted))

  // What we began ourselves, under whichever choice of drives, is ours to finish.
  const own = new Set([
    arrayUuid(observed.machineId, wanted.name, judgeSizes(fit()).alike.map(identityOf)),
    ...begunUuids(observed, wanted),
    observed.conf.remembered?.uuid,
    running?.uuid,
  ])
  const foreign = others.filter(({ uuid }) => uuid === null || !own.has(uuid))
  if (foreign.length > 0) for (const drive of judged) judge(drive, foreign)

  const { alike: chosen, unlike } = judgeSizes(fit())
  for (const [drive, message] of unlike) refused.set(drive, [{ code: 'drive.size-unlike', message }])
  return { chosen, refused }
}

interface Sizes {
  readonly alike: readonly Drive[]
  readonly unlike: ReadonlyMap<Drive, string>
}

const byIdentity = (a: Drive, b: Drive): number => compare(identityOf(a), identityOf(b))

/** The drives that are large enough for a running array. */
function byNeed(drives: readonly Drive[], array: MdArray): Sizes {
  const needed = neededBytes(array)
  const small = drives.filter(({ sizeBytes }) => sizeBytes < needed)
  return {
    alike: drives.filter((drive) => !small.includes(drive)).sort(byIdentity),
    unlike: new Map(
      small.map((drive) => [
        drive,
        `is too small (${formatBytes(drive.sizeBytes)}): a member of ${titleOf(array)} needs ${formatBytes(needed)}`,
      ]),
    ),
  }
}

/** The largest group of drives whose sizes differ by at most a hundredth; when two groups are as large, none is right. */
function bySize(drives: readonly Drive[]): Sizes {
  const groups: Drive[][] = []
  for (const drive of [...drives].sort((a, b) => a.sizeBytes - b.sizeBytes)) {
    const group = groups.at(-1)
    if (group?.[0] && drive.sizeBytes <= group[0].sizeBytes * (1 + alike)) group.push(drive)
    else groups.push([drive])
  }
  const most = Math.max(0, ...groups.map(({ length }) => length))
  const largest = groups.filter(({ length }) => length === most)
  const right = largest.length === 1 ? largest[0] : undefined
  const unlike = groups
    .filter((group) => group !== right)
    .flat()
    .map((drive) => {
      const than = right?.[0]
        ? `its ${right.length} siblings of ${formatBytes(right[0].sizeBytes)}`
        : 'any other'
      return [drive, `is of another size (${formatBytes(drive.sizeBytes)}) than ${than}`] as const
    })
  return { alike: [...(right ?? [])].sort(byIdentity), unlike: new Map(unlike) }
}

/** Why so many drives do not make the array, or null. */
export function countProblem(count: number, wanted: DesiredArray): string | null {
  if (wanted.count !== undefined && count !== wanted.count)
    return `${count} ${count === 1 ? 'drive is' : 'drives are'} fit, the document wants exactly ${wanted.count}`
  const least = Math.max(wanted.minimum, leastMembers[wanted.level] + wanted.spares)
  return count < least
    ? `${count} ${count === 1 ? 'drive is' : 'drives are'} fit, ${least} are the fewest for this array`
    : null
}

/** The verdict on every drive, and the drives that an array would be made of if there is none yet. */
export function selectDrives(observed: ArrayObserved, desired: Desired): Selection {
  // Without an array in the document the drives are judged as for one with every default.
  const wanted = desired.array ?? defaultArray
  const ours: Ours = findOurs(observed, wanted)
  const members = new Set(
    observed.drives.filter((drive) =>
      ours.found === 'running'
        ? drive.arrays.includes(ours.array.kernelName) || isAbsentMember(drive, ours.array, observed)
        : ours.found === 'stored' && ours.drives.includes(drive),
    ),
  )
  const ownUnfinished = ownUnfinishedUuids(observed, wanted)
  const { chosen, refused } = choose(
    observed,
    wanted,
    ownUnfinished,
    members,
    ours.found === 'running' ? ours.array : null,
  )
  const wantsMore = ours.found === 'none' && desired.array !== undefined
  const tooFew = wantsMore ? countProblem(chosen.length, wanted) : null
  const verdicts = observed.drives.map((drive): Verdict => {
    const { name, serial } = drive
    const common = { drive: name, serial, refusals: [] }
    if (members.has(drive)) return { ...common, verdict: 'member', text: memberText(drive, ours) }
    const reasons = refused.get(drive) ?? []
    const [headline, ...more] = reasons
    if (headline)
      return {
        ...common,
        verdict: 'refused',
        text: headline.message + (more.length > 0 ? ` (and ${more.length} more)` : ''),
        refusals: reasons,
      }
    if (!chosen.includes(drive)) return { ...common, verdict: 'unused', text: 'blank; not in array.members' }
    if (!wantsMore) return { ...common, verdict: 'unused', text: 'blank, in no array' }
    if (tooFew !== null)
      return {
        ...common,
        verdict: 'refused',
        text: `is fit, but ${tooFew}`,
        refusals: [{ code: 'drive.count-unlike', message: `is fit, but ${tooFew}` }],
      }
    const text = drive.superblock ? 'bears only our own unfinished creation' : 'blank, unused, same size'
    return { ...common, verdict: 'chosen', text }
  })
  return {
    ours,
    verdicts,
    chosen,
    uuid: arrayUuid(observed.machineId, wanted.name, chosen.map(identityOf)),
    unfinished: chosen.filter(({ superblock }) => superblock !== null),
    missing:
      wanted.members === 'unused'
        ? []
        : wanted.members
            .filter((one) =>
              'serial' in one
                ? !observed.drives.some(({ serial }) => serial === one.serial)
                : !observed.drives.some(({ name }) => name === observed.links[one.byId]),
            )
            .map((one) => ('serial' in one ? one.serial : one.byId)),
  }
}

const defaultArray: DesiredArray = {
  name: 'garrison',
  level: 5,
  members: 'unused',
  minimum: 3,
  spares: 0,
  chunkKiB: 512,
  onLoss: 'report',
  allow: [],
}

function memberText(drive: Drive, ours: Ours): string {
  if (ours.found === 'stored')
    return `of the array ${drive.superblock?.name ?? ''}, which does not run`.replace('array ,', 'array,')
  if (ours.found !== 'running') return ''
  const { array } = ours
  const own = array.members.find((member) => member.drive === drive.name)
  return own === undefined
    ? `belongs to ${titleOf(array)}, but is not in it now`
    : `${own.condition} in ${titleOf(array)}`
}
