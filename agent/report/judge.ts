// Judges what was seen: says what is so now and is not as healthy as it could be. Pure but for what it must remember.

import { formatBytes } from '../../provisioning/block/bytes.ts'
import { type Datapoint, goneMs, partOf } from '../../provisioning/metrics.ts'
import type { ProblemReport } from '../../provisioning/problem.ts'
import { SEVERITIES, type Severity } from '../../provisioning/resource.ts'
import { amount } from './amounts.ts'
import type { Round } from './datapoints.ts'
import { FINDINGS, type FindingCode, findingEntry, kindOf, type Level } from './findings.ts'
import type { Filesystem } from './host/filesystems.ts'
import { noticed } from './notices.ts'
import type { RootView } from './root-view.ts'
import { type Seen, seenValue } from './seen.ts'
import type { Condition, Judgement } from './standing-findings.ts'

/** What is judged beside a round. */
export interface Beside {
  readonly values: readonly Datapoint[]
  readonly root: RootView
  /** How the space and the inodes of filesystems shrink: milliseconds until nothing is left, by mountpoint; null where they do not. */
  readonly left: ReadonlyMap<string, { readonly spaceMs: number | null; readonly inodesMs: number | null }>
  /** The kernel's name of an array as people know it: `md/garrison`. */
  readonly arrayTitle: (kernelName: string) => string
  /** Why the history could not be written the last time; null when it could. */
  readonly historyProblem: ProblemReport | null
  /** Whether a finding is so already: what a level has begun ends only lower down. */
  readonly isSo: (code: string, subject: string | undefined) => boolean
}

/** Codes of the root side that the daemon judges by itself, and sooner. */
const judgedHere: ReadonlySet<string> = new Set([
  'volumes.space',
  'volumes.inodes',
  'root.small',
  'root.inodes',
  'nic.no-carrier',
])

const steppedMs = 2000
const silentMs = 30_000
const day = 86_400_000

const levels = Object.entries(FINDINGS).flatMap(([code, entry]) =>
  'level' in entry ? [[code as FindingCode, entry.level as Level] as const] : [],
)
const levelled: ReadonlySet<string> = new Set(levels.map(([, { metric }]) => metric))

/** The parts of the host, and which metrics and findings each is the source of. */
function partsOf({ host, slow, notices }: Round): readonly {
  readonly name: string
  readonly part: Seen<unknown> | null
  readonly metrics: RegExp
  readonly findings: RegExp
}[] {
  const nothing = /^$/
  return [
    { name: 'processors', part: host.processors, metrics: /^cpu\./, findings: nothing },
    { name: 'load', part: host.load, metrics: /^load\./, findings: nothing },
    { name: 'memory', part: host.memory, metrics: /^memory\.(available|used|swap)/, findings: nothing },
    { name: 'vmstat', part: host.oomKills, metrics: /^memory\.oom/, findings: nothing },
    {
      name: 'pressure of processors',
      part: host.pressure.cpu,
      metrics: /^pressure\.cpu/,
      findings: nothing,
    },
    {
      name: 'pressure of memory',
      part: host.pressure.memory,
      metrics: /^pressure\.memory/,
      findings: nothing,
    },
    { name: 'pressure of drives', part: host.pressure.io, metrics: /^pressure\.io/, findings: nothing },
    { name: 'drives', part: host.drives, metrics: /^drive\./, findings: nothing },
    { name: 'NICs', part: host.nics, metrics: /^nic\./, findings: /^nic\./ },
    { name: 'links', part: host.links, metrics: nothing, findings: /^nic\.no-carrier$/ },
    {
      name: 'arrays',
      part: host.arrays,
      metrics: /^array\./,
      findings: /^array\.(degraded|inactive|resyncing)$/,
    },
    { name: 'taint', part: host.taint, metrics: nothing, findings: /^kernel\.tainted$/ },
    { name: 'filesystems', part: slow.filesystems, metrics: /^filesystem\./, findings: /^filesystem\./ },
    { name: 'units', part: slow.failedUnits, metrics: /^units\./, findings: /^units\./ },
    {
      name: 'clock',
      part: slow.clock,
      metrics: /^clock\./,
      findings: /^clock\.(offset|unsynchronised)$/,
    },
    { name: 'reboot', part: slow.reboot, metrics: nothing, findings: /^kernel\.reboot-needed$/ },
    { name: 'instance metadata', part: notices, metrics: nothing, findings: /^ec2\./ },
  ]
}

/** Whether a device is a drive or a partition of it: `sda2` of `sda`, `nvme1n1p2` of `nvme1n1`, but `nvme1n10` is not. */
const isPartOf = (device: string, drive: string): boolean =>
  device === drive ||
  (device.startsWith(drive) && (/\d$/.test(drive) ? /^p\d+$/ : /^\d+$/).test(device.slice(drive.length)))

/** What filesystems lie on and what drives are part of, by the kind and subject of their findings: where a cause is looked for. */
function foundationsOf(
  { host, slow }: Round,
  { arrayTitle }: Beside,
): ReadonlyMap<string, readonly string[]> {
  const arrays = seenValue(host.arrays) ?? []
  const titles = new Map(arrays.map(({ kernelName }) => [kernelName, arrayTitle(kernelName)]))
  const filesystems = slow.filesystems === null ? null : seenValue(slow.filesystems)
  return new Map([
    ...(filesystems ?? []).flatMap(({ mountpoint, on }) =>
      on === null ? [] : [[`filesystem ${mountpoint}`, on.map((name) => titles.get(name) ?? name)] as const],
    ),
    ...[...(seenValue(host.drives)?.keys() ?? [])].map(
      (drive) =>
        [
          `drive ${drive}`,
          arrays.flatMap(({ kernelName, members }) =>
            kernelName === drive || members.some((member) => isPartOf(member.kernelName, drive))
              ? [arrayTitle(kernelName)]
              : [],
          ),
        ] as const,
    ),
  ])
}

const cannotTell = (part: Seen<unknown> | null): boolean => part === null || 'problem' in part

/** Judges one round after the other. */
export class Judge {
  /** The last value of each metric that has a level, by metric and subject. */
  readonly #last = new Map<string, Datapoint>()
  readonly #writable = new Set<string>()
  #clockOffsetMs: number | null = null

  /** What is so in this round. */
  judge(round: Round, beside: Beside): Judgement {
    const parts = partsOf(round)
    const blindMetrics = parts.filter(({ part }) => cannotTell(part)).map(({ metrics }) => metrics)
    const blindFindings = parts.filter(({ part }) => cannotTell(part)).map(({ findings }) => findings)
    const isBlindTo = (metric: string): boolean => blindMetrics.some((one) => one.test(metric))
    const vmsAreSeen = round.vms.listed !== null && round.vms.silence === null && !round.vms.listed.stale
    const root = beside.root
    const foundations = foundationsOf(round, beside)
    return {
      conditions: [
        ...this.#levels(round, beside, isBlindTo),
        ...parts.flatMap(({ name, part }): readonly Condition[] =>
          part !== null && 'problem' in part
            ? [{ code: 'host.unreadable', severity: 'warning', subject: name, text: part.problem.message }]
            : [],
        ),
        ...arrays(round, beside),
        ...kernel(round),
        ...this.#clock(round),
        ...this.#filesystems(round, beside),
        ...links(round, beside),
        ...(round.slow.failedUnits === null ? [] : (seenValue(round.slow.failedUnits) ?? [])).map(
          ({ unit, description }): Condition => ({
            code: 'units.failed',
            severity: 'warning',
            subject: unit,
            on: [unit],
            text: description === '' ? `${unit} has failed` : `${unit} has failed (${description})`,
          }),
        ),
        ...announced(round),
        ...vms(round),
        ...rootSide(beside),
        ...(beside.historyProblem === null
          ? []
          : [
              {
                code: 'agent.history-unwritable',
                severity: 'warning',
                text: beside.historyProblem.message,
              } as const,
            ]),
      ].map((condition) => {
        const on = foundations.get(`${kindOf(condition.code)} ${condition.subject}`)
        return on === undefined ? condition : { ...condition, on }
      }),
      blind: (code, subject) => {
        if (code === 'host.unreadable' || code === 'libvirt.silent' || code === 'root.silent') return false
        const level = findingEntry(code)?.level
        if (level !== undefined) return isBlindTo(level.metric)
        if (code.startsWith('vm.')) return !vmsAreSeen
        if (blindFindings.some((one) => one.test(code))) return true
        const isLink = seenValue(round.host.links)?.some(({ name }) => name === subject) ?? false
        // Which resource a finding is of is not told, so none ends while one of them could not be read.
        const isOfRoot =
          findingEntry(code) === null || code === 'root.unknown' || (code === 'nic.no-carrier' && !isLink)
        return isOfRoot && (root.seen === null || root.problem !== null || isUnread(root, code, subject))
      },
    }
  }

  #levels(
    { host }: Round,
    { values, isSo }: Beside,
    isBlindTo: (metric: string) => boolean,
  ): readonly Condition[] {
    for (const value of values)
      if (levelled.has(value.metric)) this.#last.set(`${value.metric}\0${partOf(value) ?? ''}`, value)
    for (const [key, { metric, atMs }] of this.#last) {
      // By the time that is told, for a value has no other: one set back keeps a value for longer, which does no harm.
      if (!isBlindTo(metric) && host.atMs - atMs > goneMs(metric)) this.#last.delete(key)
    }
    return levels.flatMap(([code, level]) =>
      [...this.#last.values()]
        .filter(({ metric }) => metric === level.metric)
        .flatMap((point): readonly Condition[] => {
          const subject = partOf(point)
          const { unit, value } = point
          const severity =
            SEVERITIES.find((one) => value > (level.above[one] ?? Number.POSITIVE_INFINITY)) ??
            // Between the two it goes on being what it was at least.
            (value > level.until && isSo(code, subject)
              ? SEVERITIES.findLast((one) => level.above[one] !== undefined)
              : undefined)
          if (severity === undefined) return []
          const text = level.says(amount(unit, value))
          return [
            {
              code,
              severity,
              ...(subject !== undefined && { subject }),
              text: subject === undefined ? text : `${subject}: ${text}`,
            },
          ]
        }),
    )
  }

  #clock({ host, slow }: Round): readonly Condition[] {
    const offsetMs = host.atMs - host.tickMs
    const byMs = this.#clockOffsetMs === null ? 0 : offsetMs - this.#clockOffsetMs
    this.#clockOffsetMs = offsetMs
    const source = slow.clock === null ? null : seenValue(slow.clock)
    return [
      ...(Math.abs(byMs) > steppedMs
        ? [
            {
              code: 'clock.stepped',
              severity: 'notice',
              text: `the clock was set ${amount('milliseconds', Math.abs(byMs))} ${byMs > 0 ? 'forward' : 'back'}`,
            } as const,
          ]
        : []),
      ...(source !== null && !source.synchronised
        ? [
            {
              code: 'clock.unsynchronised',
              severity: 'warning',
              text: 'nothing keeps the clock right',
            } as const,
          ]
        : []),
    ]
  }

  #filesystems({ slow }: Round, { left }: Beside): readonly Condition[] {
    const filesystems = slow.filesystems === null ? null : seenValue(slow.filesystems)
    return (filesystems ?? []).flatMap((one) => [
      ...this.#readOnly(one),
      ...silent(one),
      ...filling(one, left.get(one.mountpoint)),
    ])
  }

  #readOnly({ mountpoint, readOnly }: Filesystem): readonly Condition[] {
    if (!readOnly) this.#writable.add(mountpoint)
    if (!readOnly || !this.#writable.has(mountpoint)) return []
    const text = `${mountpoint} can only be read now`
    return [{ code: 'filesystem.read-only', severity: 'high', subject: mountpoint, text }]
  }
}

const silent = ({ mountpoint, silentMs: passedMs }: Filesystem): readonly Condition[] =>
  passedMs === null || passedMs < silentMs
    ? []
    : [
        {
          code: 'filesystem.silent',
          severity: 'high',
          subject: mountpoint,
          text: `${mountpoint} has not answered for ${amount('milliseconds', passedMs)}`,
        },
      ]

/** What is used up within a week, as soon as half of it is used. */
function runningOut(
  leftMs: number | null | undefined,
  isHalfUsed: boolean,
  finding: (left: string) => Pick<Condition, 'code' | 'subject' | 'text'>,
): readonly Condition[] {
  if (leftMs === null || leftMs === undefined || leftMs >= 7 * day || !isHalfUsed) return []
  const left = leftMs < 2 * day ? `${Math.round(leftMs / 3_600_000)} h` : `${Math.round(leftMs / day)} days`
  return [{ ...finding(left), severity: leftMs < day ? 'high' : 'warning' }]
}

function filling(
  { mountpoint: subject, capacity }: Filesystem,
  left: { readonly spaceMs: number | null; readonly inodesMs: number | null } | undefined,
): readonly Condition[] {
  if (capacity === null) return []
  const { sizeBytes, freeBytes, inodes, freeInodes } = capacity
  const rate = 'at the rate of the last day'
  return [
    ...runningOut(left?.spaceMs, freeBytes <= sizeBytes / 2, (time) => ({
      ...{ code: 'filesystem.fills', subject },
      text: `${subject} has ${formatBytes(freeBytes)} left, and is full in ${time} ${rate}`,
    })),
    ...runningOut(left?.inodesMs, freeInodes <= inodes / 2, (time) => ({
      ...{ code: 'filesystem.inodes-run-out', subject },
      text: `${subject} has ${freeInodes} inodes left, and none in ${time} ${rate}`,
    })),
  ]
}

/** NICs without a link. Of one that is an uplink the root side knows more; when it has its link again is seen here first. */
function links({ host }: Round, { root }: Beside): readonly Condition[] {
  const told = (root.seen?.resources ?? [])
    .flatMap(({ findings }) => findings)
    .filter(({ code }) => code === 'nic.no-carrier')
  const there = seenValue(host.links) ?? []
  return [
    ...there.flatMap(({ name, carrier }): readonly Condition[] =>
      carrier === false
        ? [
            told.find(({ subject }) => subject === name) ?? {
              ...{ code: 'nic.no-carrier', severity: 'warning', subject: name, text: `${name} has no link` },
            },
          ]
        : [],
    ),
    ...told.filter(({ subject }) => there.every(({ name }) => name !== subject)),
  ]
}

function announced({ host, notices }: Round): readonly Condition[] {
  const events = notices === null ? null : seenValue(notices)
  return events === null ? [] : noticed(events, host.atMs)
}

function arrays({ host }: Round, { arrayTitle }: Beside): readonly Condition[] {
  return (seenValue(host.arrays) ?? []).flatMap((array): readonly Condition[] => {
    const { kernelName, active, metadata, wantedDevices, workingDevices, progress, members } = array
    const subject = arrayTitle(kernelName)
    // A container of the firmware is never active: the volumes in it are.
    if (!active && /^external:(imsm|ddf)/.test(metadata)) return []
    if (!active) {
      const text = `${subject} is known to the kernel but does not run; ${members.length} members are there`
      return [{ code: 'array.inactive', severity: 'high', subject, text }]
    }
    const lacking = wantedDevices === null || workingDevices === null ? 0 : wantedDevices - workingDevices
    const isMoving = progress !== null && ['resync', 'recovery'].includes(progress.action)
    const percent = progress?.percent ?? null
    const left = progress?.minutesLeft ?? null
    const done = percent === null ? 'it waits' : `${Math.floor(percent)} % are done`
    const leftText = left === null ? '' : `, ${amount('seconds', left * 60)} left`
    return [
      ...(lacking > 0
        ? [
            {
              code: 'array.degraded',
              severity: 'high',
              subject,
              text: `${subject} works with ${workingDevices} of ${wantedDevices} members`,
            } as const,
          ]
        : []),
      ...(isMoving
        ? [
            {
              code: 'array.resyncing',
              severity: 'warning',
              subject,
              text: `${subject} is not redundant until its ${progress.action} ends: ${done}${leftText}`,
            } as const,
          ]
        : []),
    ]
  })
}

function kernel({ host, slow }: Round): readonly Condition[] {
  const marks = seenValue(host.taint) ?? []
  const [gravest] = marks
  const packages = slow.reboot === null ? null : seenValue(slow.reboot)
  const named = packages === null || packages.length === 0 ? 'software' : packages.join(', ')
  return [
    ...(gravest === undefined
      ? []
      : [
          {
            code: 'kernel.tainted',
            severity: gravest.severity,
            text: marks.map(({ text }) => text).join('; '),
          },
        ]),
    ...(packages === null
      ? []
      : [
          {
            code: 'kernel.reboot-needed',
            severity: 'notice' as const,
            text: `${named} runs as it was before it was brought up to date`,
          },
        ]),
  ]
}

function vms({ vms: sample }: Round): readonly Condition[] {
  const { silence, listed } = sample
  const silentText = silence ?? (listed === null ? 'libvirt has not answered yet' : null)
  return [
    ...(silentText === null ? [] : [{ code: 'libvirt.silent', severity: 'high', text: silentText } as const]),
    ...sample.vms.flatMap(({ name: subject, power: reading, stuckSinceMs }): readonly Condition[] => {
      const { power, reason } = reading?.value ?? { power: null, reason: '' }
      const found = (code: FindingCode, severity: Severity, text: string): readonly Condition[] => [
        { code, severity, subject, text: `${subject} ${text}` },
      ]
      const stuck =
        stuckSinceMs === null ? [] : found('vm.stuck', 'warning', 'runs, but its QEMU does not answer')
      if (power === 'crashed' || reason === 'crashed') return found('vm.crashed', 'high', 'has crashed')
      if (power === 'off' && reason === 'failed') return found('vm.crashed', 'high', 'could not be started')
      if (power === 'paused' && reason === 'I/O error')
        return found('vm.io-error', 'high', 'was paused: a disk of it cannot be read or written')
      if (power === 'unknown' && reason === 'its process has ended')
        return found('vm.lost', 'high', 'has no process any more, and libvirt has not said why')
      return stuck
    }),
  ]
}

const unreadOf = ({ seen }: RootView): readonly string[] =>
  seen?.resources.flatMap(({ resource, problem }) => (problem === undefined ? [] : [resource])) ?? []

/** Whether a finding is of a resource that could not be read the last time: codes begin with it, or with what it is made of. */
const isUnread = (root: RootView, code: string, subject: string | undefined): boolean =>
  unreadOf(root).some(
    (resource) =>
      resource === subject ||
      code.startsWith(`${resource}.`) ||
      (resource === 'array' && code.startsWith('drive.')),
  )

function rootSide({ root }: Beside): readonly Condition[] {
  const { seen, problem } = root
  return [
    ...(problem === null
      ? []
      : [{ code: 'root.silent', severity: 'warning', text: problem.message } as const]),
    ...(seen?.resources ?? []).flatMap(({ resource, findings, problem: unread }) => [
      ...findings.filter(({ code }) => !judgedHere.has(code)),
      ...(unread === undefined
        ? []
        : [
            {
              code: 'root.unknown',
              severity: 'warning',
              subject: resource,
              text: `${resource} could not be read: ${unread.message}`,
            } as const,
          ]),
    ]),
  ]
}
