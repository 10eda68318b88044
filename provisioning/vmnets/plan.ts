// Decides what is to be done so that the declared networks are as declared. What is not declared is left alone.
//
// INVARIANTS
// - Rules come before forwarding and before a network starts: there is no moment in which VMs may do more than is declared.
// - A network that a running VM is attached to is never stopped. What it cannot take while it runs waits in its definition.

import type { Desired } from '../desired.ts'
import { parseXml, printXml, type XmlElement, xmlDigest } from '../libvirt/xml.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import { type Action, type Blocked, type Change, type Json, type Step, stepKey } from '../resource.ts'
import { kernelSteps } from './kernel.ts'
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
import type { ObservedVmnets } from './observe.ts'
import { type Resolved, resolveNetworks } from './resolve.ts'
import { standingNetworks, usersOf } from './stand.ts'
import { step } from './step.ts'
import { wantedModel } from './want.ts'

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

/** Where the document says what a part of a definition comes from. */
const fieldOf: Readonly<Record<keyof NetworkModel, string>> = {
  ...{ forward: 'mode', devices: 'uplink', bridge: 'bridge', zone: 'mode', isolate: 'isolate', mtu: 'mtu' },
  ...{ limits: 'limits' },
  ...{ domain: 'domain', nameservers: 'nameservers', ips: 'ipv4' },
}

const limitsText = ({ limits: { receive, send } }: NetworkModel): string =>
  [
    ...(receive === null ? [] : [`receive ${receive} Mbit/s`]),
    ...(send === null ? [] : [`send ${send} Mbit/s`]),
  ].join(', ') || 'none'

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
  if (part === 'limits') return limitsText(model)
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

/** Plans the networks. Pure. */
export function plan(observed: ObservedVmnets, desired: Desired): readonly Step[] {
  const { asked } = observed
  if (asked === null) return []
  const all = resolveNetworks(observed, asked)
  // Without its uplink nobody can tell what a network is to be; what there is stays as it is until the uplink is back.
  const isAnyLost = all.some(({ objections }) =>
    objections.some(({ code }) => code === 'vmnet.uplink-missing'),
  )
  const { before, after } = isAnyLost
    ? { before: [], after: [] }
    : kernelSteps(observed, standingNetworks(observed, all))
  return [
    ...before,
    ...all.flatMap((one) => networkSteps(observed, desired, one, before.map(stepKey))),
    ...after,
  ]
}
