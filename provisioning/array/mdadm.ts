// Arrays and superblocks as mdadm (4.1 and later) tells them: the argv that asks, and the parsers of the answers.

import { HostError } from '../problem.ts'

const program = '/usr/sbin/mdadm'

/** Asks for one running or inactive array; needs root. */
export const mdadmDetail = (path: string): [string, ...string[]] => [program, '--detail', path]

/** Asks for the superblocks on devices; needs root. Exits with 1 when one of them has none. */
export const mdadmExamine = (paths: readonly string[]): [string, ...string[]] => [
  program,
  '--examine',
  ...paths,
]

/** What `--detail` shows in the table at its end. `slot` is null for a device without one. */
export interface DetailMember {
  readonly number: number | null
  /** `major:minor`; `0:0` in the row of an empty slot. */
  readonly device: string
  readonly slot: number | null
  /** active sync, spare, spare rebuilding, faulty, removed, replacement, journal, … without writemostly, failfast, set-A. */
  readonly condition: string
  readonly path: string | null
}

/** An array as `--detail` shows it. What a broken array does not print is null. */
export interface MdadmDetail {
  readonly path: string
  readonly version: string | null
  /** The level it has, or is being reshaped to: what `Raid Level` says of an interrupted reshape is not to be trusted. */
  readonly level: string | null
  readonly container: boolean
  readonly raidDevices: number | null
  readonly totalDevices: number | null
  readonly arrayKib: number | null
  readonly memberKib: number | null
  readonly chunkKib: number | null
  /** clean, active, inactive, degraded, FAILED, Not Started, resyncing, recovering, reshaping, checking, … */
  readonly conditions: readonly string[]
  /** ppl, bitmap, resync, journal, unknown; null when not printed. */
  readonly consistency: string | null
  readonly homehost: string | null
  readonly name: string | null
  readonly uuid: string | null
  readonly events: number | null
  readonly members: readonly DetailMember[]
}

const fieldsOf = (lines: readonly string[]): ReadonlyMap<string, string> =>
  new Map(
    lines.flatMap((line): [string, string][] => {
      const [, key, value] = /^\s*(\S[^:]*?) : (.*?)\s*$/.exec(line) ?? []
      return key === undefined || value === undefined ? [] : [[key, value]]
    }),
  )

/** A count; null for what is absent and for 2^64-1, which mdadm prints where it has none. */
const count = (text: string | undefined): number | null => {
  const digits = /^\d+/.exec(text ?? '')?.[0]
  return digits === undefined || Number(digits) > Number.MAX_SAFE_INTEGER ? null : Number(digits)
}

/** `Events : 0.1081` of metadata 0.90 is high and low word. */
const eventsOf = (text: string | undefined): number | null => {
  const [, high, low] = /^(?:(\d+)\.)?(\d+)/.exec(text ?? '') ?? []
  return low === undefined ? null : Number(high ?? 0) * 2 ** 32 + Number(low)
}

const nameOf = (text: string | undefined): { homehost: string | null; name: string | null } => {
  const whole = text?.replace(/\s+\(local to host.*$/, '') ?? ''
  const colon = whole.indexOf(':')
  if (whole === '') return { homehost: null, name: null }
  return colon === -1
    ? { homehost: null, name: whole }
    : { homehost: whole.slice(0, colon), name: whole.slice(colon + 1) }
}

const uuidOf = (text: string | undefined): string | null =>
  /^[0-9a-f]{8}(:[0-9a-f]{8}){3}/.exec(text ?? '')?.[0] ?? null

const detailRow =
  /^\s*(\d+|-)\s+(\d+)\s+(\d+)\s+(\d+|-)\s+([A-Za-z][A-Za-z -]*?(?: set-[A-Z])?)(?:\s+(\/dev\/\S+))?\s*$/

const slotOf = (text: string | undefined): number | null =>
  text === undefined || text === '-' ? null : Number(text)

/** Parses the answer of `mdadmDetail`. */
export function parseMdadmDetail(stdout: string): MdadmDetail {
  const lines = stdout.split('\n')
  const path = lines.map((line) => /^(\/dev\/\S+):\s*$/.exec(line)?.[1]).find((one) => one !== undefined)
  if (path === undefined)
    throw new HostError('host.unexpected-answer', 'mdadm --detail answered without naming an array', {
      details: { stdout: stdout.slice(0, 2000) },
    })
  const fields = fieldsOf(lines)
  const rows = lines.flatMap((line) => {
    const [, number, major, minor, slot, condition = '', device] = detailRow.exec(line) ?? []
    if (number === undefined) return []
    return {
      number: slotOf(number),
      device: `${major}:${minor}`,
      slot: slotOf(slot),
      condition: condition
        .replace(/\b(writemostly|failfast|set-[A-Z])\b/g, '')
        .replace(/\s+/g, ' ')
        .trim(),
      path: device ?? null,
    }
  })
  return {
    path,
    version: fields.get('Version') ?? null,
    level: fields.get('New Level') ?? fields.get('Raid Level') ?? null,
    container: fields.get('Raid Level') === 'container',
    raidDevices: count(fields.get('Raid Devices')),
    totalDevices: count(fields.get('Total Devices')),
    arrayKib: count(fields.get('Array Size')),
    memberKib: count(fields.get('Used Dev Size')),
    chunkKib: count(fields.get('Chunk Size')),
    conditions: (fields.get('State') ?? '')
      .replace(/\s+\((DELAYED|PENDING|REMOTE)\)/, '')
      .split(',')
      .map((one) => one.trim())
      .filter((one) => one !== ''),
    consistency: fields.get('Consistency Policy') ?? null,
    ...nameOf(fields.get('Name')),
    uuid: uuidOf(fields.get('UUID')),
    events: eventsOf(fields.get('Events')),
    members: rows,
  }
}

/** A superblock of Linux's own formats on a device. */
export interface MdSuperblock {
  /** `1.2`, `0.90.00`, … */
  readonly version: string
  readonly uuid: string | null
  readonly homehost: string | null
  readonly name: string | null
  /** The level it has, or is being reshaped to. */
  readonly level: string | null
  readonly raidDevices: number | null
  /** 0 until the kernel has started the array for the first time. */
  readonly events: number | null
  readonly role: 'active' | 'replacement' | 'spare' | 'journal' | 'unknown'
  readonly slot: number | null
  /** Where on the device the array's own bytes begin. */
  readonly dataOffsetSectors: number | null
  readonly usedSectors: number | null
  readonly checksumRight: boolean
}

/** What `--examine` found on one device: a superblock of Linux, of a firmware's RAID, a partition table, or something else. */
export type Examined =
  | { readonly kind: 'md'; readonly path: string; readonly superblock: MdSuperblock }
  | { readonly kind: 'firmware' | 'partitions' | 'other'; readonly path: string }

function parseExamined(path: string, lines: readonly string[]): Examined {
  const fields = fieldsOf(lines)
  const magic = fields.get('Magic')
  if (fields.has('MBR Magic')) return { kind: 'partitions', path }
  if (magic !== undefined && magic !== 'a92b4efc') return { kind: 'firmware', path }
  if (magic === undefined) return { kind: 'other', path }
  const role = fields.get('Device Role') ?? ''
  // Metadata 0.90 has no such line but a row that begins with `this`: number, major, minor, slot, words.
  const own = /^this\s+\d+\s+\d+\s+\d+\s+(-?\d+)\s+(.*?)(?:\s+\/dev.*)?$/.exec(
    lines.find((line) => line.startsWith('this')) ?? '',
  )
  const [, kind, slot] = /^(Active|Replacement) device (\d+)/.exec(role) ?? []
  return {
    kind: 'md',
    path,
    superblock: {
      version: fields.get('Version') ?? '',
      uuid: uuidOf(fields.get('Array UUID') ?? fields.get('UUID')),
      ...nameOf(fields.get('Name')),
      level: fields.get('New Level') ?? fields.get('Raid Level') ?? null,
      raidDevices: count(fields.get('Raid Devices')),
      events: eventsOf(fields.get('Events')),
      role:
        kind === 'Active' || own?.[2]?.startsWith('active')
          ? 'active'
          : kind === 'Replacement'
            ? 'replacement'
            : role.startsWith('spare') || own?.[2]?.startsWith('spare')
              ? 'spare'
              : role.startsWith('Journal')
                ? 'journal'
                : 'unknown',
      slot: slot !== undefined ? Number(slot) : own?.[2]?.startsWith('active') ? Number(own[1]) : null,
      dataOffsetSectors: count(fields.get('Data Offset')),
      usedSectors: count(fields.get('Used Dev Size') ?? fields.get('Avail Dev Size')),
      checksumRight: /\bcorrect$/.test(fields.get('Checksum') ?? ''),
    },
  }
}

/** Parses the answer of `mdadmExamine`; devices on which nothing was found are not in it. */
export function parseMdadmExamine(stdout: string): readonly Examined[] {
  const found: { path: string; lines: string[] }[] = []
  for (const line of stdout.split('\n')) {
    const path = /^(\/dev\/\S+):\s*$/.exec(line)?.[1]
    if (path !== undefined) found.push({ path, lines: [] })
    else found.at(-1)?.lines.push(line)
  }
  return found.map(({ path, lines }) => parseExamined(path, lines))
}
