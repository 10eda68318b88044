// Judges the health of the declared VMs, and says in one line what there is.

import type { Finding } from '../resource.ts'
import type { Difference } from './differences.ts'
import { startObjection } from './files.ts'
import type { ObservedVms } from './observe.ts'
import { poolObjection } from './pools.ts'
import type { DesiredVms } from './schema.ts'
import { type Accepted, type Survey, survey } from './survey.ts'

const listed = (words: readonly string[], most = 10): string =>
  words.length <= most
    ? words.join(', ')
    : `${words.slice(0, most).join(', ')} and ${words.length - most} more`

const pathsOf = (differences: readonly Difference[]): string => listed(differences.map(({ path }) => path))

type Found = (code: string, severity: Finding['severity'], text: string, remedy: string) => Finding

const isUp = ({ seen }: Survey): boolean => (seen.domain?.liveXml ?? null) !== null

function* powerFindings(
  vm: Survey,
  observed: ObservedVms,
  vms: DesiredVms,
  found: Found,
): Generator<Finding> {
  const { name, seen, machine, differences, ownership } = vm
  const { domain } = seen
  if (domain === null) return
  const { power, reason } = domain
  if (ownership.kind === 'elsewhere')
    yield found(
      'vms.owned-elsewhere',
      isUp(vm) ? 'high' : 'warning',
      `${name} ${isUp(vm) ? 'runs here' : 'is defined here'}, and belongs to ${ownership.owner.host}`,
      isUp(vm)
        ? `Look at once whether it runs there too; if so, stop the one here (garrison vm kill ${name}) and check its disks.`
        : 'See garrison plan; undefine it here, or take it back when the other host can never start it again.',
    )
  if (power === 'paused' && /i\/?o.?error/i.test(reason))
    yield found(
      'vms.io-error',
      'high',
      `${name} was halted by an I/O error`,
      'See garrison check for its volume and journalctl -k for its drives; then garrison vm resume lets it go on.',
    )
  else if ((power === 'paused' && reason !== 'starting up') || power === 'suspended')
    yield found(
      'vms.paused',
      machine.power === 'running' ? 'warning' : 'notice',
      `${name} is ${power} (${reason})`,
      `garrison vm resume ${name} lets it go on.`,
    )
  const isHere = ownership.kind !== 'elsewhere'
  if (isHere && (power === 'off' || power === 'crashed') && differences.some(({ path }) => path === 'power'))
    yield found(
      'vms.not-running',
      'high',
      `${name} is ${power} (${reason}) and should run`,
      'See garrison plan for what would start it, or for why it may not be started.',
    )
  const objection = startObjection(vm, observed, vms)
  if (objection !== null && (isUp(vm) || machine.power !== 'running'))
    yield found(
      'vms.not-startable',
      isUp(vm) ? 'high' : 'warning',
      `${name} could not be started ${isUp(vm) ? 'again' : 'now'}: ${objection.message}`,
      'Mend it before it is stopped or the host is rebooted: garrison plan says what stands in its way.',
    )
}

const acceptedText = (accepted: readonly Accepted[]): string =>
  listed(
    accepted.map(
      ({ difference, acceptance }) => `${difference.path} until ${acceptance.until} (${acceptance.why})`,
    ),
  )

function* driftFindings(
  { name, machine, accepted, overdue, held, pending, defined }: Survey,
  found: Found,
): Generator<Finding> {
  if (accepted.length > 0)
    yield found(
      'vms.accepted',
      'notice',
      `${name} differs, and is left so: ${acceptedText(accepted)}`,
      `Nothing to do until then; garrison vm revert ${name} has it mended.`,
    )
  if (overdue.length > 0)
    yield found(
      'vms.acceptance-over',
      'notice',
      `${name} differs in what was accepted: ${acceptedText(overdue)}`,
      `garrison plan shows it as drift again; garrison vm accept ${name} --until DATE gives it another day, garrison vm revert ${name} mends it.`,
    )
  const made = defined?.model.origin?.template
  const { template } = machine
  const isOther =
    made !== null &&
    made !== undefined &&
    template !== undefined &&
    made.name === template.name &&
    made.version !== template.version
  if (held.length > 0 || (isOther && !template.update))
    yield found(
      'vms.template-newer',
      'notice',
      `${name} was made from ${made?.name} ${made?.version}, and there is ${template?.version}${held.length === 0 ? '' : `, which differs in ${pathsOf(held)}`}`,
      `Set vms.machines.${name}.template.update to true to have it changed, or version to ${made?.version} to keep it.`,
    )
  if (pending.length > 0 && machine.changes === 'next-start')
    yield found(
      'vms.restart-pending',
      'notice',
      `${name} runs without what its definition says of ${pathsOf(pending)}`,
      'It gets that when it is next started; a reboot inside the guest is not enough.',
    )
}

function* machineFindings(vm: Survey, observed: ObservedVms, vms: DesiredVms): Generator<Finding> {
  const { name, seen } = vm
  const found: Found = (code, severity, text, remedy) => ({ code, severity, subject: name, text, remedy })
  yield* powerFindings(vm, observed, vms, found)
  yield* driftFindings(vm, found)
  const overlays = Object.entries(seen.chains).filter(([, chain]) =>
    seen.files.some(({ path }) => chain.includes(path)),
  )
  if (overlays.length > 0)
    yield found(
      'vms.on-snapshot',
      'notice',
      `${name} writes to ${listed(overlays.map(([path]) => path))}, which stands on its declared disk`,
      'A snapshot that is kept grows, and slows its disk down: remove it when it is not needed.',
    )
}

function* poolFindings(observed: ObservedVms, vms: DesiredVms): Generator<Finding> {
  for (const pool of observed.pools) {
    const objection = poolObjection(pool, vms.pools[pool.name]?.path ?? '')
    if (objection !== null)
      yield {
        code: 'vms.pool-unusable',
        severity: 'high',
        subject: pool.name,
        text: objection.message,
        remedy: 'No VM on it is started. See garrison check for the volume and the array that it is on.',
      }
  }
}

const surveysOf = (observed: ObservedVms, vms: DesiredVms): readonly Survey[] =>
  observed.machines.flatMap((seen) => survey(observed, vms, seen) ?? [])

/** Judges the VMs. Pure. */
export function check(observed: ObservedVms): readonly Finding[] {
  const { asked, undeclared } = observed
  if (asked === null) return []
  return [
    ...poolFindings(observed, asked),
    ...surveysOf(observed, asked).flatMap((vm) => [...machineFindings(vm, observed, asked)]),
    ...(undeclared.length === 0
      ? []
      : [
          {
            code: 'vms.undeclared',
            severity: 'notice',
            text: `not in the document: ${listed(undeclared.map(({ name }) => name))}`,
            remedy:
              'Declare them under vms.machines, or leave them: Garrison touches no VM that is not declared.',
          } as const,
        ]),
  ]
}

const widest = 60

/** What there is, in at most 60 columns. */
export function describe({ asked, machines, undeclared }: ObservedVms): string {
  if (asked === null) return 'not declared'
  const powers = machines.map(({ domain }) => domain?.power ?? 'not defined')
  const running = powers.filter((power) => power === 'running' || power === 'blocked').length
  const others = new Map<string, number>()
  for (const power of powers)
    if (power !== 'running' && power !== 'blocked') others.set(power, (others.get(power) ?? 0) + 1)
  const line = [
    machines.length === 0 ? 'none declared' : `${running} of ${machines.length} running`,
    ...[...others].map(([power, count]) => `${count} ${power}`),
    ...(undeclared.length === 0 ? [] : [`${undeclared.length} not declared`]),
  ].join(', ')
  return line.length <= widest ? line : `${line.slice(0, widest - 1)}…`
}
