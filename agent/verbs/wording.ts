// How verbs put plans, findings and problems into words.

import {
  type Action,
  type Assessment,
  type Blocked,
  type Change,
  type Condition,
  type Finding,
  type Json,
  type Risk,
  SEVERITIES,
  type Severity,
  type Standing,
  type UndoAction,
  type Witness,
} from '../../provisioning/resource.ts'
import { witnessText } from '../../provisioning/undo.ts'
import { count, duration, paint, paragraph, type Style, type Terminal } from '../api/terminal.ts'

/** The colour of a standing. */
export const standingStyle: Readonly<Record<Standing, Style>> = {
  settled: 'good',
  drifted: 'warn',
  unknown: 'bad',
}

/** How healthy a host is: its gravest finding, or that a part of it could not be seen. */
export type Health = Severity | 'unknown' | 'ok'

/** The health of what was assessed; what could not be read may hide a warning, but not one that was found. */
export function healthOf(assessments: readonly Pick<Assessment, 'standing' | 'findings'>[]): Health {
  const found = assessments.flatMap(({ findings }) => findings.map(({ severity }) => severity))
  if (found.includes('high')) return 'high'
  if (found.includes('warning')) return 'warning'
  if (assessments.some(({ standing }) => standing === 'unknown')) return 'unknown'
  return found.includes('notice') ? 'notice' : 'ok'
}

const healthStyle = { ok: 'good', notice: 'dim', unknown: 'warn', warning: 'warn', high: 'bad' } as const

/** A health in words: how many findings there are of each severity, or what it is without any. */
export function healthText(
  terminal: Terminal,
  health: Health,
  findings: readonly Pick<Finding, 'severity'>[],
): string {
  const counts = SEVERITIES.flatMap((severity) => {
    const number = findings.filter((one) => one.severity === severity).length
    if (number === 0) return []
    return severity === 'high' ? `${number} high` : count(number, severity)
  })
  const text = counts.length === 0 ? health : counts.join(', ')
  return `health: ${paint(terminal, healthStyle[health], text)}`
}

/** The worst standing: unknown hides more than drift, and settled is said only of everything. */
export const standingOf = (assessments: readonly Pick<Assessment, 'standing'>[]): Standing =>
  (['unknown', 'drifted'] as const).find((one) => assessments.some(({ standing }) => standing === one)) ??
  'settled'

/** A value in words. What is deeper than one object is left to `--json`, which tells it whole. */
const plain = (value: Json, inside = false): string => {
  if (value === null) return 'nothing'
  if (Array.isArray(value))
    return value.length === 0 ? 'none' : value.map((one) => plain(one, inside)).join(', ')
  if (typeof value !== 'object') return String(value)
  if (inside) return '{…}'
  const parts = Object.entries(value).map(([name, part]) => `${name} ${plain(part, true)}`)
  return parts.length === 0 ? 'nothing' : parts.join(', ')
}

/** A change in words: `array.level: desired 5 (host.yaml:31), observed nothing`. */
export const changeText = ({ path, desired, observed, why }: Change): string =>
  `${path}: desired ${plain(desired)}${why === undefined ? '' : ` (${why})`}, observed ${plain(observed)}`

const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`

/** An argv as a person would type it into a shell. */
export const commandText = (argv: readonly string[]): string => argv.map(quoted).join(' ')

const conditionText = (until: Condition): string => {
  if (until.kind === 'exists') return `${until.path} exists`
  if (until.kind === 'interface') return `a device has the MAC ${until.mac}`
  if (until.kind === 'unlocked') return `nobody holds ${until.path}`
  return `${commandText(until.argv)} answers ${until.pattern}`
}

function ec2Text(action: Extract<Action, { kind: 'ec2' }>): string {
  switch (action.operation) {
    case 'enable-lni':
      return `EC2 ModifySubnetAttribute ${action.subnetId} EnableLniAtDeviceIndex=${action.deviceIndex}`
    case 'create-interface':
      return `EC2 CreateNetworkInterface in ${action.subnetId} ClientToken=${action.clientToken}`
    case 'attach-interface':
      return `EC2 AttachNetworkInterface ${action.interfaceId ?? '(the new one)'} DeviceIndex=${action.deviceIndex}`
    case 'delete-on-termination':
      return `EC2 ModifyNetworkInterfaceAttribute ${action.interfaceId ?? '(the new one)'} DeleteOnTermination=true`
    case 'tag-interface': {
      const tags = Object.entries(action.tags).map(([key, value]) => `${key}=${value}`)
      return `EC2 CreateTags ${action.interfaceId} ${tags.join(', ')}`
    }
  }
}

const octal = (mode: number): string => `0${mode.toString(8)}`

/** How long a written file is; of one that only root may read nothing is told. */
const linesOf = ({ mode, content }: Extract<Action, { kind: 'write' }>): string =>
  (mode & 0o077) === 0 ? '' : `, ${count(content.split('\n').length - 1, 'line')}`

/** Who is waited for: everyone who can testify, or else a peer. */
function waitedFor(witnesses: readonly Witness[]): string {
  const [peers, others] = [true, false].map((isPeer) =>
    witnesses.filter(({ kind }) => (kind === 'peer') === isPeer).map(witnessText),
  ) as [string[], string[]]
  return [others.join(' and '), ...peers].flatMap((who) => (who === '' ? [] : `${who} or `)).join('')
}

function undoText(action: UndoAction): string {
  switch (action.operation) {
    case 'arm':
      return `arm, outside the agent: in ${duration(action.deadlineMs)} put back ${action.files.join(', ')}${action.reload.map(({ argv }) => `; ${commandText(argv)}`).join('')}`
    case 'mark':
      return 'note what SSH sessions and connections with peers have carried so far'
    case 'confirm':
      return `wait for ${waitedFor(action.witnesses)}garrison network confirm, then disarm`
    case 'restore':
      return 'undo now what is armed'
  }
}

/** An action in words, complete enough to know what would run. */
export function actionText(action: Action): string {
  switch (action.kind) {
    case 'run':
      return commandText(action.argv)
    case 'write':
      return `write ${action.path} (${octal(action.mode)}${linesOf(action)})`
    case 'remove':
      return `remove ${action.path}`
    case 'folder': {
      const owner = [action.owner, action.group].filter(Boolean).join(':')
      const facts = [action.mode === undefined ? '' : octal(action.mode), owner].filter(Boolean).join(', ')
      return `make folder ${action.path}${facts === '' ? '' : ` (${facts})`}`
    }
    case 'move':
      return `move ${action.from} to ${action.to}`
    case 'wait':
      return `wait at most ${duration(action.deadlineMs)} until ${conditionText(action.until)}`
    case 'reboot':
      return 'reboot'
    case 'domain':
    case 'pool':
    case 'network': {
      const what = `${action.kind === 'domain' ? 'VM' : action.kind} ${action.name}`
      if (action.operation === 'autostart')
        return `turn autostart of ${what} ${action.enabled ? 'on' : 'off'}`
      if (action.operation === 'define')
        return `define ${what} (XML, ${count(action.xml.split('\n').length, 'line')})`
      if (action.operation === 'grow-disk')
        return `grow disk ${action.target} of ${what} to ${action.sizeBytes} bytes`
      if (action.operation === 'reserve' || action.operation === 'release')
        return `${action.operation} an address in ${what}: ${action.xml}`
      return `${action.operation} ${what}`
    }
    case 'undo':
      return undoText(action)
    case 'ec2':
      return ec2Text(action)
    case 'fetch':
      return `fetch ${action.source} to ${action.path}`
  }
}

/** The command that would perform a step of this risk. */
export const applyCommand = (risk: Risk): string =>
  risk === 'safe' ? 'garrison apply' : `garrison apply --allow ${risk}`

const severityStyle: Readonly<Record<Severity, Style>> = { high: 'bad', warning: 'warn', notice: 'dim' }

/** The column of what is said beside a severity. */
export const findingIndent = 11

/** A finding: its severity and code, what is so, and under it what to do. */
export function findingText(
  terminal: Terminal,
  {
    severity,
    code,
    subject,
    text,
    remedy,
  }: Omit<Finding, 'subject'> & { readonly subject?: string | undefined },
): string {
  const word = paint(terminal, severityStyle[severity], severity.toUpperCase())
  const subjectText = subject === undefined ? '' : `${subject}: `
  return [
    paragraph(`  ${word}`, `${code}: ${subjectText}${text}`, findingIndent),
    paragraph('', remedy, findingIndent),
  ].join('\n')
}

/** Why a step is blocked, and what a person does about it, at an indent. */
export const blockedText = ({ code, message, remedy }: Blocked, label: string, indent: number): string =>
  `${paragraph(label, `${code}: ${message}`, indent)}\n${paragraph('', remedy, indent)}`
