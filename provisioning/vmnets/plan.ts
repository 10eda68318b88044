// Decides what is to be done so that the declared networks are as declared. What is not declared is left alone.
//
// INVARIANTS
// - Rules come before forwarding and before a network starts: there is no moment in which VMs may do more than is declared.
// - A network that a running VM is attached to is never stopped. What it cannot take while it runs waits in its definition.

import type { Desired } from '../desired.ts'
import { parseXml, printXml, type XmlElement, XmlError, xmlDigest } from '../libvirt/xml.ts'
import { parseIp } from '../link/address.ts'
import type { Family } from '../link/ip.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import { type Action, type Blocked, type Change, type Json, type Step, stepKey } from '../resource.ts'
import {
  ownFolder,
  rulesPath,
  rulesUnit,
  rulesUnitText,
  sysctlFile,
  sysctlText,
  unitFolder,
  uplinkBatch,
  uplinkUnit,
  uplinkUnitText,
} from './files.ts'
import {
  changedNetwork,
  differingParts,
  type HostModel,
  hostElement,
  type NetworkModel,
  newNetwork,
  readNetwork,
  verifiedText,
  withoutHosts,
} from './network.ts'
import { nftScript, sameTable } from './nft.ts'
import type { ObservedVmnets } from './observe.ts'
import { type Resolved, resolveNetworks } from './resolve.ts'
import { chainsFor } from './rules.ts'
import { mainTable } from './uplink.ts'
import {
  batchLines,
  firstTable,
  type OnWire,
  type Policy,
  policyLines,
  priorities,
  proxyLine,
  wantedModel,
  wantedOnWire,
  wantedSysctls,
} from './want.ts'

const briefMs = 30_000

const pathOf = (name: string, field?: string): string =>
  `vmnets.networks.${name}${field === undefined ? '' : `.${field}`}`

function change(desired: Desired, path: string, wanted: Json, observed: Json): Change {
  const why = desired.sources[path]
  return { path, desired: wanted, observed, ...(why !== undefined && { why }) }
}

const blockedBy = (
  code: ProblemCode,
  message: string,
): Pick<Step, 'blocked' | 'actions'> & { readonly blocked: Blocked } => ({
  actions: [],
  blocked: { code, message, remedy: remedyOf(code) },
})

const step = (
  id: string,
  subject: string | undefined,
  more: Pick<Step, 'summary' | 'because' | 'actions'> & Partial<Step>,
): Step => ({ id: `vmnets.${id}`, ...(subject !== undefined && { subject }), risk: 'safe', ...more })

const run = (...argv: [string, ...string[]]): Action => ({ kind: 'run', argv, deadlineMs: briefMs })

/** Where the document says what a part of a definition comes from. */
const fieldOf: Readonly<Record<keyof NetworkModel, string>> = {
  ...{ forward: 'mode', devices: 'uplink', bridge: 'bridge', zone: 'mode', isolate: 'isolate', mtu: 'mtu' },
  ...{ domain: 'domain', nameservers: 'nameservers', ips: 'ipv4' },
}

const partText = (model: NetworkModel, part: keyof NetworkModel): Json => {
  const value = model[part]
  if (part === 'ips')
    return model.ips
      .map(({ address, prefix, ranges, hosts }) =>
        [
          `${address}/${prefix}`,
          ...ranges.map(({ from, to }) => `${from} to ${to}`),
          ...hosts.map((host) => `${host.name ?? host.mac} ${host.address}`),
        ].join(', '),
      )
      .join('; ')
  return Array.isArray(value) ? value.join(', ') : (value as Json)
}

/** What libvirt has of a network, read. */
interface Known {
  readonly root: XmlElement
  readonly model: NetworkModel
}

const readKnown = (xml: string): Known => {
  const { root } = parseXml(xml)
  return { root, model: readNetwork(root) }
}

/** VMs that run and are attached to a network, by name. */
export const usersOf = ({ attachments }: ObservedVmnets, name: string): readonly string[] => [
  ...new Set(
    attachments.flatMap((one) => (one.isLive && one.kind === 'network' && one.to === name ? one.vm : [])),
  ),
]

/** Reservations that must go and come so that a network has those that are wanted, without stopping it. */
function* reservations(
  name: string,
  observed: NetworkModel,
  wanted: NetworkModel,
): Generator<{ readonly change: readonly [string, Json, Json]; readonly action: Action }> {
  const isLike = (one: HostModel, other: HostModel): boolean =>
    one.mac === other.mac && one.name === other.name && one.address === other.address
  for (const [place, ip] of wanted.ips.entries()) {
    const there = observed.ips.find(({ family, address }) => family === ip.family && address === ip.address)
    const told = (host: HostModel, operation: 'reserve' | 'release') =>
      ({
        change: [
          pathOf(name, `reservations.${host.name ?? host.mac}`),
          operation === 'reserve' ? host.address : null,
          operation === 'reserve' ? null : host.address,
        ],
        action: { kind: 'network', operation, name, place, xml: printXml(hostElement(host)) },
      }) as const
    for (const host of there?.hosts ?? [])
      if (!ip.hosts.some((one) => isLike(one, host))) yield told(host, 'release')
    for (const host of ip.hosts)
      if (!there?.hosts.some((one) => isLike(one, host))) yield told(host, 'reserve')
  }
}

/** Steps for one network. `before` are keys of steps that must be gone before it starts. */
function networkSteps(
  observed: ObservedVmnets,
  desired: Desired,
  one: Resolved,
  before: readonly string[],
): readonly Step[] {
  const { name, mode, why, device, objections } = one
  const [objection] = objections
  if (objection !== undefined)
    return [
      step('network', name, {
        summary: `${mode}${device === null ? '' : ` on ${device}`}`,
        because: objections.map(({ path }) => change(desired, pathOf(name, path), 'as declared', null)),
        ...blockedBy(objection.code, objections.map(({ message }) => message).join('; ')),
      }),
    ]
  const facts = observed.networks.find((network) => network.name === name)
  const known = facts === undefined ? null : readKnown(facts.xml)
  const live = typeof facts?.liveXml === 'string' ? readKnown(facts.liveXml).model : null
  const wanted = wantedModel(observed, one, known?.model ?? null)
  const steps: Step[] = []
  const isOnlyHosts =
    known !== null &&
    live !== null &&
    facts?.persistent === true &&
    differingParts(withoutHosts(known.model), withoutHosts(wanted)).length === 0 &&
    differingParts(withoutHosts(live), withoutHosts(wanted)).length === 0 &&
    differingParts(known.model, live).length === 0
  const parts = known === null ? [] : differingParts(known.model, wanted)
  if (known === null || !facts?.persistent || (parts.length > 0 && !isOnlyHosts)) {
    const root = known === null ? newNetwork(name, wanted) : changedNetwork(known.root, known.model, wanted)
    const xml = verifiedText(root, wanted)
    steps.push(
      step('define', name, {
        summary: `${mode}${device === null ? '' : ` on ${device}`}: ${why}`,
        because:
          parts.length === 0 || known === null
            ? [change(desired, pathOf(name), 'defined', known === null ? null : 'transient')]
            : parts.map((part) =>
                change(
                  desired,
                  pathOf(name, fieldOf[part]),
                  partText(wanted, part),
                  partText(known.model, part),
                ),
              ),
        ...(xml === null
          ? blockedBy('vmnet.xml-mismatch', `the definition of ${name} is another one after it was written`)
          : {
              actions: [
                {
                  ...({ kind: 'network', operation: 'define', name, xml } as const),
                  replaces: facts === undefined ? null : xmlDigest(facts.xml),
                },
              ],
            }),
      }),
    )
  } else if (parts.length > 0 && known !== null) {
    const all = [...reservations(name, known.model, wanted)]
    steps.push(
      step('reserve', name, {
        summary: `${all.length} ${all.length === 1 ? 'address' : 'addresses'}, while it runs`,
        because: all.map(({ change: [path, want, have] }) => change(desired, path, want, have)),
        actions: all.map(({ action }) => action),
      }),
    )
  }
  const after = [...before, ...steps.map(stepKey)]
  const isChanged =
    live !== null && differingParts(live, wanted).length > 0 && !(isOnlyHosts && parts.length > 0)
  if (facts === undefined || !facts.active)
    steps.push(
      step('start', name, {
        summary: 'VMs can be attached to it',
        because: [change(desired, pathOf(name), 'active', facts === undefined ? null : 'inactive')],
        actions: [{ kind: 'network', operation: 'start', name }],
        ...(after.length > 0 && { after }),
      }),
    )
  else if (isChanged && usersOf(observed, name).length === 0)
    steps.push(
      step('restart', name, {
        summary: 'no VM that runs is attached to it',
        because: differingParts(live, wanted).map((part) =>
          change(desired, pathOf(name, fieldOf[part]), partText(wanted, part), partText(live, part)),
        ),
        actions: [
          { kind: 'network', operation: 'stop', name },
          { kind: 'network', operation: 'start', name },
        ],
        ...(after.length > 0 && { after }),
      }),
    )
  if (facts === undefined || !facts.autostart)
    steps.push(
      step('autostart', name, {
        summary: 'it is there when the host boots',
        because: [change(desired, pathOf(name), 'autostart', facts === undefined ? null : 'no autostart')],
        actions: [{ kind: 'network', operation: 'autostart', name, enabled: true }],
        ...(steps.length > 0 && { after: steps.map(stepKey) }),
      }),
    )
  return steps
}

const folder: Action = { kind: 'folder', path: ownFolder, mode: 0o755 }

function rulesStep(observed: ObservedVmnets, all: readonly Resolved[]): readonly Step[] {
  const chains = chainsFor(all)
  const script = nftScript(chains)
  const isLoaded = sameTable(observed.table, chains)
  const isWritten = observed.files[rulesPath] === script
  if (isLoaded && isWritten) return []
  const because: readonly Change[] = [
    ...(isLoaded
      ? []
      : [
          {
            path: 'vmnets.rules',
            desired: `${chains.reduce((sum, { rules }) => sum + rules.length, 0)} rules`,
            observed:
              observed.table === null
                ? null
                : `${observed.table.reduce((sum, { rules }) => sum + rules.length, 0)} rules, not the same`,
          },
        ]),
    ...(isWritten ? [] : [{ path: 'vmnets.rules', desired: 'kept for the next boot', observed: null }]),
  ]
  return [
    step('rules', undefined, {
      summary: 'what the VMs’ traffic may do: table inet garrison_vms',
      because,
      actions: [
        folder,
        { kind: 'write', path: rulesPath, content: script, mode: 0o644 },
        run('/usr/sbin/nft', '--file', rulesPath),
      ],
    }),
  ]
}

function sysctlStep(observed: ObservedVmnets, all: readonly Resolved[]): readonly Step[] {
  const wanted = wantedSysctls(all)
  const content = sysctlText(wanted)
  const wrong = wanted.filter(([key, value]) => observed.sysctls[key] !== value)
  const file = observed.files[sysctlFile] ?? null
  if (wrong.length === 0 && (file === content || (wanted.length === 0 && file === null))) return []
  return [
    step('forwarding', undefined, {
      summary: 'switches of the kernel for forwarding and for answering for VMs',
      because:
        wrong.length > 0
          ? wrong.map(([key, value]) => ({
              path: `vmnets.sysctl.${key.replaceAll('/', '.')}`,
              desired: value,
              observed: observed.sysctls[key] ?? null,
            }))
          : [
              {
                path: 'vmnets.sysctl',
                desired: 'kept for the next boot',
                observed: file === null ? null : 'another text',
              },
            ],
      actions: [
        { kind: 'write', path: sysctlFile, content, mode: 0o644 },
        run('/usr/sbin/sysctl', '--quiet', `--load=${sysctlFile}`),
      ],
    }),
  ]
}

/** Addresses that an earlier batch of ours began to answer for on an interface. */
const remembered = (text: string | null): readonly string[] =>
  (text ?? '').split('\n').flatMap((line) => /^neighbour replace proxy (\S+) dev /.exec(line)?.[1] ?? [])

const isOurs = (priority: number): boolean => priority === priorities.known || priority === priorities.led

function wireStep(observed: ObservedVmnets, { device, proxies, policies }: OnWire): readonly Step[] {
  const texts: Readonly<Record<Family, string>> = {
    inet: text(batchLines({ device, proxies, policies }, 'inet')),
    inet6: text(batchLines({ device, proxies, policies }, 'inet6')),
  }
  const families: readonly Family[] = ['inet', 'inet6']
  const there = observed.proxies.filter((one) => one.device === device).map(({ address }) => address)
  const old = families.flatMap((family) => remembered(observed.files[uplinkBatch(device, family)] ?? null))
  const missing = proxies.filter((address) => !there.includes(address))
  const stale = old.filter((address) => there.includes(address) && !proxies.includes(address))
  const isLed = (policy: Policy): boolean =>
    observed.routes.some(
      (route) =>
        route.family === policy.family &&
        route.table === policy.table &&
        route.device === device &&
        route.via === policy.via &&
        (route.to === '0.0.0.0/0' || route.to === '::/0'),
    )
  const hasRule = ({ family, from }: Policy, priority: number, to: number): boolean =>
    observed.rules.some(
      (rule) =>
        rule.family === family && rule.from === from && rule.priority === priority && rule.table === to,
    )
  const lackingLines = (policy: Policy): readonly string[] => {
    const [route = '', known = '', led = ''] = policyLines(policy, device)
    return [
      ...(isLed(policy) ? [] : [route]),
      // A rule that is there would be there twice.
      ...(hasRule(policy, priorities.known, mainTable) ? [] : [known]),
      ...(hasRule(policy, priorities.led, policy.table) ? [] : [led]),
    ]
  }
  const unled = policies.filter((policy) => lackingLines(policy).length > 0)
  const isWritten = families.every(
    (family) => (observed.files[uplinkBatch(device, family)] ?? '') === texts[family],
  )
  if (missing.length === 0 && stale.length === 0 && unled.length === 0 && isWritten) return []
  const linesFor = (family: Family): readonly string[] => [
    ...stale
      .filter((address) => parseIp(address)?.family === family)
      .map((address) => proxyLine('delete', address, device)),
    ...missing
      .filter((address) => parseIp(address)?.family === family)
      .map((address) => proxyLine('replace', address, device)),
    ...unled.filter((policy) => policy.family === family).flatMap(lackingLines),
  ]
  const listed = (addresses: readonly string[]): string =>
    addresses.length <= 3
      ? addresses.join(', ')
      : `${addresses[0]} to ${addresses.at(-1)}, ${addresses.length} addresses`
  return [
    step('wire', device, {
      summary: `answer on ${device} for ${proxies.length} ${proxies.length === 1 ? 'address' : 'addresses'} of VMs`,
      because: [
        ...(missing.length > 0
          ? [{ path: `vmnets.wire.${device}.proxies`, desired: listed(missing), observed: null }]
          : []),
        ...(stale.length > 0
          ? [{ path: `vmnets.wire.${device}.proxies`, desired: null, observed: listed(stale) }]
          : []),
        ...unled.map(({ from, via }) => ({
          path: `vmnets.wire.${device}.router`,
          desired: `${from} by ${via}`,
          observed: null,
        })),
        ...(isWritten
          ? []
          : [{ path: `vmnets.wire.${device}`, desired: 'kept for the next boot', observed: null }]),
      ],
      actions: [
        folder,
        ...families.flatMap((family): readonly Action[] => {
          const lines = linesFor(family)
          return [
            { kind: 'write', path: uplinkBatch(device, family), content: texts[family], mode: 0o644 },
            ...(lines.length === 0
              ? []
              : [
                  {
                    ...({ kind: 'run', deadlineMs: briefMs } as const),
                    argv: ['/usr/sbin/ip', family === 'inet' ? '-4' : '-6', '-batch', '-'] as const,
                    stdin: text(lines),
                  },
                ]),
          ]
        }),
      ],
    }),
  ]
}

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('')

/** Rules of ours that lead VMs which are led no more, or elsewhere. */
function strayStep(observed: ObservedVmnets, wires: readonly OnWire[]): readonly Step[] {
  const wanted = wires.flatMap(({ policies }) => policies)
  const strays = observed.rules.filter(
    (rule) =>
      isOurs(rule.priority) &&
      rule.from !== null &&
      !wanted.some(
        (policy) =>
          policy.family === rule.family &&
          policy.from === rule.from &&
          (rule.priority === priorities.known ? rule.table === mainTable : rule.table === policy.table),
      ),
  )
  if (strays.length === 0) return []
  return [
    step('unroute', undefined, {
      summary: 'rules that lead VMs which are led elsewhere now',
      because: strays.map(({ from, table }) => ({
        path: 'vmnets.wire.rules',
        desired: null,
        observed: `${from} by table ${table}`,
      })),
      actions: strays.map(({ family, priority, from, table }) =>
        run(
          '/usr/sbin/ip',
          family === 'inet' ? '-4' : '-6',
          'rule',
          'delete',
          'priority',
          String(priority),
          'from',
          from ?? '',
          'lookup',
          String(table ?? firstTable),
        ),
      ),
    }),
  ]
}

function bootStep(observed: ObservedVmnets, wires: readonly OnWire[]): readonly Step[] {
  const wanted: readonly (readonly [unit: string, text: string])[] = [
    [rulesUnit, rulesUnitText()],
    ...wires.map(({ device }) => [uplinkUnit(device), uplinkUnitText(device)] as const),
  ]
  const wrong = wanted.filter(
    ([unit, content]) =>
      observed.files[`${unitFolder}/${unit}`] !== content || !observed.enabled.includes(unit),
  )
  return wrong.map(([unit, content]) =>
    step('boot', unit, {
      summary: 'rules and addresses of VM networks are back after a boot',
      because: [{ path: `vmnets.boot.${unit}`, desired: 'enabled', observed: null }],
      actions: [
        { kind: 'write', path: `${unitFolder}/${unit}`, content, mode: 0o644 },
        run('/usr/bin/systemctl', 'enable', unit),
      ],
    }),
  )
}

/** Plans the networks. Pure. */
export function plan(observed: ObservedVmnets, desired: Desired): readonly Step[] {
  const { asked } = observed
  if (asked === null) return []
  const all = resolveNetworks(observed, asked)
  // Without its uplink nobody can tell what a network is to be; what there is stays as it is until the uplink is back.
  const isAnyLost = all.some(({ objections }) =>
    objections.some(({ code }) => code === 'vmnet.uplink-missing'),
  )
  // One that stands and is objected to now is left as it is, and never without its rules.
  const wires = wantedOnWire(
    all.filter(
      ({ name, objections }) =>
        objections.length === 0 || observed.networks.some((one) => one.name === name && one.active),
    ),
  )
  const host = isAnyLost
    ? []
    : [
        ...rulesStep(observed, all),
        ...sysctlStep(observed, all),
        ...strayStep(observed, wires),
        ...wires.flatMap((wire) => wireStep(observed, wire)),
        ...bootStep(observed, wires),
      ]
  const first = host.filter(({ id }) => id === 'vmnets.rules' || id === 'vmnets.forwarding').map(stepKey)
  return [
    ...host.slice(0, first.length),
    ...all.flatMap((one) => readableSteps(observed, desired, one, first)),
    ...host.slice(first.length),
  ]
}

function readableSteps(
  observed: ObservedVmnets,
  desired: Desired,
  one: Resolved,
  before: readonly string[],
): readonly Step[] {
  try {
    return networkSteps(observed, desired, one, before)
  } catch (error) {
    if (!(error instanceof XmlError)) throw error
    return [
      step('network', one.name, {
        summary: one.mode,
        because: [change(desired, pathOf(one.name), 'as declared', 'cannot be read')],
        ...blockedBy(
          'vmnet.xml-unreadable',
          `the definition of network ${one.name} cannot be read: ${error.message}`,
        ),
      }),
    ]
  }
}
