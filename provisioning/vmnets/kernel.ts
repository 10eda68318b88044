// Decides what the kernel is to have for the VMs: the rules, switches, answers in their name and routes, now and after a boot.

import { parseIp } from '../link/address.ts'
import { type Family, familyOption, mainTable } from '../link/ip.ts'
import type { Action, Step } from '../resource.ts'
import {
  deviceOfBatch,
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
import { frameChains } from './frames.ts'
import { type Chain, nftScript, sameTable, tableName } from './nft.ts'
import type { ObservedVmnets } from './observe.ts'
import type { Resolved } from './resolve.ts'
import { chainsFor } from './rules.ts'
import { otherBridges } from './stand.ts'
import { briefMs, run, step } from './step.ts'
import { answersSwitch } from './uplink.ts'
import {
  batchLines,
  bootRoute,
  firstTable,
  type OnWire,
  type Policy,
  policyLines,
  priorities,
  proxyLine,
  wantedOnWire,
  wantedSysctls,
} from './want.ts'

const folder: Action = { kind: 'folder', path: ownFolder, mode: 0o755 }

const rulesIn = (chains: readonly { readonly rules: readonly unknown[] }[]): number =>
  chains.reduce((sum, { rules }) => sum + rules.length, 0)

function rulesStep(
  observed: ObservedVmnets,
  chains: readonly Chain[],
  frames: readonly Chain[],
): readonly Step[] {
  const { table, files } = observed
  const script = [nftScript(chains), ...(frames.length === 0 ? [] : [nftScript(frames, 'bridge')])].join('')
  const isLoaded = sameTable(table, chains) && sameTable(observed.frames, frames)
  const isWritten = files[rulesPath] === script
  const isNothing = chains.length + frames.length === 0
  if (
    isNothing ? table === null && observed.frames === null && files[rulesPath] == null : isLoaded && isWritten
  )
    return []
  const there = [table, observed.frames].flatMap((one) => one ?? [])
  return [
    step('rules', undefined, {
      summary: isNothing
        ? 'no VM network that rules are about any more'
        : `what the VMs’ traffic may do: table ${tableName}`,
      because: [
        ...(isLoaded
          ? []
          : [
              {
                path: 'vmnets.rules',
                desired: `${rulesIn([...chains, ...frames])} rules`,
                observed: table === null ? null : `${rulesIn(there)} rules, not the same`,
              },
            ]),
        ...(isWritten || (isNothing && !isLoaded)
          ? []
          : [
              {
                path: 'vmnets.rules',
                desired: isNothing ? null : 'kept for the next boot',
                observed: isNothing ? 'kept for the next boot' : null,
              },
            ]),
      ],
      actions: [
        folder,
        { kind: 'write', path: rulesPath, content: script, mode: 0o644 },
        run('/usr/sbin/nft', '--file', rulesPath),
        ...(frames.length === 0 && observed.frames !== null
          ? [run('/usr/sbin/nft', 'delete', 'table', 'bridge', tableName)]
          : []),
        ...(isNothing ? [{ kind: 'remove', path: rulesPath } as const] : []),
      ],
    }),
  ]
}

function sysctlStep(observed: ObservedVmnets, all: readonly Resolved[]): readonly Step[] {
  const wanted = wantedSysctls(observed, all)
  const content = sysctlText(wanted)
  const wrong = wanted.filter(([key, value]) => observed.sysctls[key] !== value)
  const file = observed.files[sysctlFile] ?? null
  if (wanted.length === 0)
    return file === null
      ? []
      : [
          step('forwarding', undefined, {
            summary: 'no switch of the kernel is set for VMs any more; what is set stays until the next boot',
            because: [{ path: 'vmnets.sysctl', desired: null, observed: 'set at boot' }],
            actions: [{ kind: 'remove', path: sysctlFile }],
          }),
        ]
  if (wrong.length === 0 && file === content) return []
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

function wireStep(observed: ObservedVmnets, wire: OnWire): readonly Step[] {
  const { device, proxies, policies } = wire
  const texts: Readonly<Record<Family, string>> = {
    inet: text(batchLines(wire, 'inet')),
    inet6: text(batchLines(wire, 'inet6')),
  }
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
  const isWritten = families.every((family) => observed.files[uplinkBatch(device, family)] === texts[family])
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
      summary: [
        ...(proxies.length > 0 ? [`answer on ${device} for ${proxies.length} addresses of VMs`] : []),
        ...(policies.length > 0 ? [`lead VMs to the router of ${device}`] : []),
      ].join(', and '),
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
          return [
            { kind: 'write', path: uplinkBatch(device, family), content: texts[family], mode: 0o644 },
            ...batch(family, linesFor(family)),
          ]
        }),
      ],
    }),
  ]
}

const families: readonly Family[] = ['inet', 'inet6']

/** Tells `ip` the lines, if there are any. */
const batch = (family: Family, lines: readonly string[]): readonly Action[] =>
  lines.length === 0
    ? []
    : [{ ...run('/usr/sbin/ip', familyOption(family), '-batch', '-'), stdin: text(lines) }]

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
          familyOption(family),
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

/** Interfaces that VMs were led to once and are no more: what was done there ends. */
function leftoverSteps(observed: ObservedVmnets, wires: readonly OnWire[]): readonly Step[] {
  const devices = Object.keys(observed.files).flatMap((path) =>
    path.startsWith(`${ownFolder}/`) && observed.files[path] !== null
      ? (deviceOfBatch(path.slice(ownFolder.length + 1)) ?? [])
      : [],
  )
  const gone = [...new Set(devices)].filter((device) => !wires.some((wire) => wire.device === device)).sort()
  return gone.map((device) => {
    const there = observed.proxies.filter((one) => one.device === device).map(({ address }) => address)
    const lines = (family: Family): readonly string[] =>
      remembered(observed.files[uplinkBatch(device, family)] ?? null)
        .filter((address) => there.includes(address))
        .map((address) => proxyLine('delete', address, device))
    return step('leave', device, {
      summary: `answer for no VM on ${device} any more`,
      because: [{ path: `vmnets.wire.${device}`, desired: null, observed: 'led there once' }],
      actions: [
        ...families.flatMap((family) => batch(family, lines(family))),
        ...withoutUnit(observed, uplinkUnit(device)),
        // Last: by these it is known that something is left.
        ...families
          .map((family) => uplinkBatch(device, family))
          .filter((path) => observed.files[path] != null)
          .map((path) => ({ kind: 'remove', path }) as const),
      ],
    })
  })
}

const enabling = (verb: 'enable' | 'disable', unit: string): Action => ({
  ...{ kind: 'run', argv: ['/usr/bin/systemctl', verb, '--', unit], deadlineMs: briefMs },
})

/** What ends a unit of ours. */
const withoutUnit = ({ enabled, files }: ObservedVmnets, unit: string): readonly Action[] => [
  ...(enabled.includes(unit) ? [enabling('disable', unit)] : []),
  ...(files[`${unitFolder}/${unit}`] == null
    ? []
    : [{ kind: 'remove', path: `${unitFolder}/${unit}` } as const]),
]

function bootStep(observed: ObservedVmnets, wires: readonly OnWire[], hasRules: boolean): readonly Step[] {
  const useless = hasRules ? [] : withoutUnit(observed, rulesUnit)
  if (useless.length > 0)
    return [
      step('boot', rulesUnit, {
        summary: 'no VM network that rules are about any more',
        because: [{ path: `vmnets.boot.${rulesUnit}`, desired: null, observed: 'enabled' }],
        actions: useless,
      }),
    ]
  const wanted: readonly (readonly [unit: string, text: string])[] = [
    ...(hasRules ? [[rulesUnit, rulesUnitText()] as const] : []),
    ...wires.map((wire) => {
      const { device, policies } = wire
      const lines = policies.flatMap((policy) =>
        policyLines(policy, device).map((line) => `${familyOption(policy.family)} ${line}`),
      )
      const routes = policies.map((policy) => bootRoute(policy, device))
      const content = uplinkUnitText(device, {
        policies: [...new Set(lines)],
        routes: [...new Set(routes)],
        switches: batchLines(wire, 'inet6').length > 0 ? [answersSwitch(device)] : [],
      })
      return [uplinkUnit(device), content] as const
    }),
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
        enabling('enable', unit),
      ],
    }),
  )
}

/** Steps that come before any network starts, and those that come after. `standing` is what VMs are on, or will be at once. */
export function kernelSteps(observed: ObservedVmnets, standing: readonly Resolved[]) {
  const wires = wantedOnWire(standing)
  const chains = chainsFor(standing, otherBridges(observed))
  return {
    before: [
      ...rulesStep(observed, chains, frameChains(observed, standing)),
      ...sysctlStep(observed, standing),
    ],
    after: [
      ...strayStep(observed, wires),
      ...wires.flatMap((wire) => wireStep(observed, wire)),
      ...leftoverSteps(observed, wires),
      ...bootStep(observed, wires, chains.length > 0),
    ],
  }
}
