// Decides what is to be written and reloaded so that each interface is as the document says: one step for an uplink and its VLANs.

import { type Desired, fleetPort } from '../desired.ts'
import { mainTable } from '../link/ip.ts'
import { type ProblemCode, remedyOf } from '../problem.ts'
import type { Action, Blocked, Change, Json, Reload, Risk, Step, Witness } from '../resource.ts'
import { guarded } from '../undo.ts'
import { autoDefaultFile, noAutoDefault } from './auto-default.ts'
import { cloudInitFile, cloudInitPath } from './cloud-init.ts'
import { macOfLni, planLni } from './lni.ts'
import {
  failedPhase,
  networkctlReconfigure,
  networkctlReload,
  networkdApply,
  networkdClaim,
  networkdFiles,
  networkdOnline,
  networkdUnit,
} from './networkd.ts'
import {
  networkManagerFiles,
  networkManagerUnit,
  nmApply,
  nmcliReload,
  nmcliReloadConf,
  nmcliUp,
  profilePath,
  profileUuid,
  unmanagedConf,
  unmanagedFile,
} from './networkmanager.ts'
import type { Backend, ObservedInterface, ObservedLink, ObservedUplinks, OwnFile } from './observe.ts'
import { keepsAddress } from './schema.ts'
import { keyOfFile, vlanKey, type Wanted, wantedOf } from './want.ts'

const blocked = (
  code: ProblemCode,
  message: string,
  details: { readonly [key: string]: Json } = {},
): Blocked => ({
  code,
  message,
  remedy: remedyOf(code, details),
  details,
})

const filesOf = (backend: Backend, wanted: Wanted): readonly OwnFile[] =>
  backend === 'networkd' ? networkdFiles(wanted) : networkManagerFiles(wanted)

const contentOf = (files: readonly OwnFile[], path: string): string | null =>
  files.find((file) => file.path === path)?.content ?? null

const rightMode = (path: string): number => (path.endsWith('.nmconnection') ? 0o600 : 0o644)

const write = ({ path, content }: OwnFile): Action => ({
  kind: 'write',
  path,
  content,
  mode: rightMode(path),
})

/** The lines of one text that are not in the other, comments aside. */
const linesOnlyIn = (text: string, other: string): readonly string[] => {
  const known = new Set(other.split('\n'))
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('# W') && !known.has(line))
}

/** What differs between a file and what it should be, as a change: whole when it is not there, else its lines. */
function fileChange(path: string, file: OwnFile, observed: string | null): Change {
  if (observed === null) return { path: `${path}.file`, desired: file.path, observed: null }
  return {
    path: `${path}.file`,
    desired: linesOnlyIn(file.content, observed).join('; '),
    observed: linesOnlyIn(observed, file.content).join('; '),
  }
}

/** How an interface that is there and has a carrier differs from what is wanted. */
function differences(
  { sources }: Desired,
  wanted: Wanted,
  { link, holder }: ObservedInterface,
  { rules }: ObservedUplinks,
  backend: Backend,
): readonly Change[] {
  const { path } = wanted
  const change = (field: string, desired: Json, observed: Json): Change => {
    const why = sources[`${path}.${field}`] ?? sources[path]
    return { path: `${path}.${field}`, desired, observed, ...(why !== undefined && { why }) }
  }
  if (link === null) return wanted.vlan === null ? [] : [change('id', wanted.vlan.id, null)]
  const changes: Change[] = []
  const [own] = filesOf(backend, wanted).slice(-1)
  if (own !== undefined && holder?.file !== own.path)
    changes.push(change('file', own.path, holder?.file ?? null))
  if (!link.up) changes.push(change('up', true, false))
  if (wanted.mtu !== null && link.mtu !== wanted.mtu) changes.push(change('mtu', wanted.mtu, link.mtu))
  // Without a carrier neither backend gives it what follows.
  if (!link.carrier) return changes
  for (const address of wanted.addresses)
    if (!link.addresses.includes(address) && !link.duplicates.includes(address))
      changes.push(
        change(address.includes(':') ? 'address6.cidr' : 'address.cidr', address, [...link.addresses]),
      )
  const has = (to: string, via: string | null, table: number): boolean =>
    link.routes.some((route) => route.to === to && route.via === via && route.table === table)
  for (const gateway of wanted.gateways) {
    const family = gateway.includes(':') ? 'address6' : 'address'
    const to = family === 'address6' ? '::/0' : '0.0.0.0/0'
    const there = link.routes.filter((route) => route.to === to && route.table === mainTable)
    const text = (via: string | null, metric: number): string => `${via ?? 'on the link'}, metric ${metric}`
    if (!there.some(({ via, metric }) => via === gateway && metric === wanted.metric))
      changes.push(
        change(
          `${family}.gateway`,
          text(gateway, wanted.metric),
          there.map(({ via, metric }) => text(via, metric)),
        ),
      )
  }
  for (const { to, via, table } of wanted.routes)
    if (!has(to, via, table ?? mainTable))
      changes.push(
        change(
          'routes',
          `${to}${via === null ? '' : ` by ${via}`}${table === null ? '' : `, table ${table}`}`,
          null,
        ),
      )
  for (const { from, table } of wanted.rules)
    if (!rules.includes(`${from} ${table}`))
      changes.push(change('rules', `from ${from}, table ${table}`, null))
  return changes
}

/** Why an uplink cannot be configured as things are. */
function obstacle(
  one: ObservedInterface,
  wanted: Wanted | undefined,
  observed: ObservedUplinks,
  backend: Backend,
): Blocked | null {
  const { key, mac, found, link, holder } = one
  if (mac === null && wanted?.vlan == null) {
    const why = observed.instanceProblem === null ? '' : `: ${observed.instanceProblem.message}`
    return blocked(
      'uplinks.index-unknown',
      `nobody tells which interface has the device index of ${key}${why}`,
    )
  }
  if (found.length > 1)
    return blocked('uplinks.ambiguous', `${mac ?? key} is the MAC of ${found.join(' and ')}`, { uplink: key })
  if (wanted === undefined) return null
  if (wanted.vlan !== null)
    return link !== null && link.vlan?.id !== wanted.vlan.id
      ? blocked(
          'uplinks.name-taken',
          `${key} is the name of an interface that is not VLAN ${wanted.vlan.id}`,
          { name: key },
        )
      : null
  if (link?.master != null)
    return blocked('uplinks.enslaved', `${link.name} is a port of ${link.master}`, { name: link.name })
  const [own] = filesOf(backend, wanted).slice(-1)
  const current = own !== undefined && contentOf(observed.files, own.path) === own.content
  const base = (path: string): string => path.slice(path.lastIndexOf('/') + 1)
  if (current && holder?.by === 'networkd' && holder.file !== own.path && base(holder.file) < base(own.path))
    return blocked('uplinks.file-in-front', `${holder.file} comes before ${own.path} and has ${link?.name}`, {
      file: holder.file,
    })
  return null
}

interface Part {
  readonly wanted: Wanted
  readonly one: ObservedInterface
}

const hasNoCable = (link: ObservedLink | null | undefined): boolean => link?.up === true && !link.carrier

/** Whether NetworkManager has let go of an uplink without a carrier, or of a VLAN there; it takes it again with the carrier. */
const waitsForCarrier = (
  { loaded }: ObservedUplinks,
  backend: Backend,
  uplink: ObservedLink | null,
  { wanted, one }: Part,
): boolean =>
  backend === 'networkmanager' &&
  hasNoCable(uplink) &&
  one.holder === null &&
  loaded.includes(profileUuid(wanted.key))

/** What makes the backend use the files of an uplink and its VLANs. */
function apply(backend: Backend, parts: readonly Part[], changed: boolean): readonly Action[] {
  const link = parts[0]?.one.link ?? null
  if (backend === 'networkd')
    return networkdApply(link?.name ?? null, changed && parts[0]?.one.holder?.phase !== failedPhase)
  const keys = parts.map(({ wanted }) => wanted.key)
  return nmApply(keys.map(profilePath), link === null || hasNoCable(link) ? [] : keys)
}

/**
 * Cut off is who speaks to the host over it: so an interface that has nothing yet may be configured without being asked, and a
 * route or rule added to one that the host is not managed over.
 */
function riskOf(parts: readonly Part[], because: readonly Change[], observed: ObservedUplinks): Risk {
  if (!observed.reachable) return 'safe'
  const carries = parts.some(({ one }) => (one.link?.addresses.length ?? 0) > 0)
  const adds = because.every(({ path, observed }) => /\.(routes|rules)$/.test(path) && observed === null)
  const takes = parts.some(
    ({ one }) =>
      one.carriesDefault &&
      observed.defaults.inet !== null &&
      observed.defaults.inet.device !== one.link?.name,
  )
  const manages = parts.some(({ wanted }) => wanted.management)
  return manages || (carries && !adds) || takes ? 'disruptive' : 'safe'
}

const reload = (argv: readonly [string, ...string[]], exits: readonly number[] = [0]): Reload => ({
  argv,
  deadlineMs: 30_000,
  exits,
})

/** What makes the backend read its files again. */
const rereads = (backend: Backend): readonly [string, ...string[]][] =>
  backend === 'networkd' ? [networkctlReload()] : [nmcliReloadConf(), nmcliReload()]

/**
 * What makes the backend read its files again, also when it has gone down with the change. Nothing that it depends on is waited for:
 * that may wait for the undoing itself, which comes before the network at boot.
 */
const readAgain = (backend: Backend): readonly Reload[] => [
  reload([
    ...(['/usr/bin/systemctl', 'start', '--job-mode=ignore-dependencies', '--'] as const),
    backend === 'networkd' ? networkdUnit : networkManagerUnit,
  ]),
  ...rereads(backend).map((argv) => reload(argv)),
]

/** What takes the interface of a VLAN away, which networkd made and leaves when its file goes. */
const deleteVlan = (key: string): [string, ...string[]] => [
  '/usr/sbin/ip',
  'link',
  'delete',
  'dev',
  key,
  'type',
  'vlan',
]

const settlingSeconds = 5

/**
 * Waits until networkd has done with an interface what it was told. It answers in order, so that what it is asked second shows that
 * it has begun with the first: before that its note of the phase is an old one.
 */
const settled = (name: string): readonly Reload[] => [
  reload(networkctlReload()),
  reload(networkdOnline(name, settlingSeconds), [0, 1]),
]

/**
 * What makes the backend go back to files as they were. That networkd has read them is not enough: it leaves an interface that it has
 * failed to configure as it is, and one that it finds when it starts keeps what others have given it. Told to configure one anew while
 * it is about it, 252 loses addresses.
 */
function goBack(backend: Backend, parts: readonly Part[]): readonly Reload[] {
  if (backend === 'networkd') {
    const link = parts[0]?.one.link
    const made = parts.filter(({ wanted, one }) => wanted.vlan !== null && one.link === null)
    return [
      ...readAgain(backend),
      // 1: it is not there any more, which is no fault of the change.
      ...(link == null
        ? []
        : [...settled(link.name), reload(networkctlReconfigure(link.name), [0, 1]), ...settled(link.name)]),
      ...made.map(({ wanted }) => reload(deleteVlan(wanted.key), [0, 1])),
    ]
  }
  const before = parts.flatMap(({ one }) => one.holder?.uuid ?? [])
  // 3: it still tries; 4: it failed to; 10: it is not there any more.
  return [...readAgain(backend), ...before.map((uuid) => reload(nmcliUp(uuid), [0, 3, 4, 10]))]
}

type Router = Extract<Witness, { kind: 'neighbour' }>

/** Routers that can tell that the host is still reached: that of the default route, that of the managing interface, and new ones. */
function routersOf({ defaults, interfaces }: ObservedUplinks, parts: readonly Part[]): readonly Router[] {
  const neighbour = (device: string | null | undefined, address: string | null): readonly Router[] =>
    device == null || address === null ? [] : [{ kind: 'neighbour', device, address }]
  const known = (['inet', 'inet6'] as const).flatMap((family) =>
    neighbour(defaults[family]?.device, defaults[family]?.via ?? null),
  )
  const managing = interfaces
    .filter(({ management }) => management)
    .flatMap(({ link }) =>
      (link?.routes ?? [])
        .filter(({ to, table }) => to.endsWith('/0') && table === mainTable)
        .flatMap(({ via }) => neighbour(link?.name, via)),
    )
  const added = parts.flatMap(({ wanted, one }) =>
    wanted.gateways.flatMap((gateway) =>
      neighbour(wanted.vlan === null ? one.link?.name : parts[0]?.one.link && wanted.key, gateway),
    ),
  )
  const [first] = known
  // Of a cable that is out nobody can answer, whatever the change is.
  const cut = new Set(interfaces.flatMap(({ link }) => (hasNoCable(link) ? (link?.name ?? []) : [])))
  const all = [...(first === undefined ? [] : [first]), ...managing, ...added].filter(
    ({ device }) => !cut.has(device),
  )
  return [...new Map(all.map((router) => [JSON.stringify(router), router])).values()]
}

const changeMs = 60_000
const activationMs = 20_000

/**
 * Those that are asked after a removal: a router over an interface that the document does not name may well be out of reach then, and
 * is asked only where there is no other.
 */
function routersAfterRemoval(observed: ObservedUplinks): readonly Router[] {
  const all = routersOf(observed, [])
  const named = new Set(observed.interfaces.map(({ link }) => link?.name))
  const staying = all.filter(({ device }) => named.has(device))
  return staying.length > 0 ? staying : all
}

/** The step with an undo around what it changes, which is kept only when the host has been seen after it. */
const withUndo = (
  step: Step,
  { fleet }: Desired,
  observed: ObservedUplinks,
  reloads: readonly Reload[],
  parts: readonly Part[] = [],
  routers = routersOf(observed, parts),
): Step =>
  // Where nothing has an address nobody is cut off, and nobody could testify.
  step.blocked || !observed.reachable
    ? step
    : guarded(step, {
        reload: reloads,
        witnesses: [
          { kind: 'session' },
          ...routers,
          { kind: 'peer', ports: [...new Set([fleetPort, fleet?.port ?? fleetPort])] },
        ],
        deadlineMs: changeMs + activationMs * parts.length,
      })

const called = ({ link, mac, key }: ObservedInterface): string =>
  [key, link === null ? null : `is ${link.name}`, mac].filter((word) => word !== null).join(', ')

function planUplink(
  desired: Desired,
  observed: ObservedUplinks,
  backend: Backend,
  parts: readonly Part[],
): readonly Step[] {
  const [first] = parts
  if (first === undefined) return []
  const { wanted: uplink, one } = first
  const files = parts.flatMap(({ wanted }) => filesOf(backend, wanted))
  const changed = files.filter(({ path, content }) => contentOf(observed.files, path) !== content)
  const keys = parts.map(({ wanted }) => wanted.key)
  // Of VLANs that are none any more there are files too, and of another backend that was here.
  const stray = observed.files.filter(
    ({ path }) =>
      keys.includes(keyOfFile(path) ?? '') &&
      !files.some((file) => file.path === path) &&
      !isClaim(observed, backend, path),
  )
  const inForce =
    one.link === null
      ? []
      : parts
          .filter((part) => !waitsForCarrier(observed, backend, one.link, part))
          .flatMap((part) => differences(desired, part.wanted, part.one, observed, backend))
  const fileChanges = changed.map((file) =>
    fileChange(uplink.path, file, contentOf(observed.files, file.path)),
  )
  const because = [
    ...(inForce.length > 0 ? inForce : fileChanges),
    ...stray.map(({ path }) => ({ path: `${uplink.path}.file`, desired: null, observed: path })),
  ]
  if (because.length === 0) {
    if (one.link !== null) return []
    return [
      {
        id: 'uplinks.configure',
        subject: uplink.key,
        summary: called(one),
        risk: 'safe',
        because: [{ path: `${uplink.path}.match.mac`, desired: one.mac, observed: null }],
        actions: [],
        blocked: blocked(
          'uplinks.absent',
          `no interface of this host has the MAC ${one.mac} of ${uplink.key}`,
        ),
      },
    ]
  }
  const obstacles = parts.flatMap((part) => obstacle(part.one, part.wanted, observed, backend) ?? [])
  const [inTheWay] = obstacles
  const step: Step = {
    id: 'uplinks.configure',
    subject: uplink.key,
    summary: called(one),
    risk: riskOf(parts, because, observed),
    because,
    actions: inTheWay
      ? []
      : [
          ...changed.map(write),
          ...stray.map(({ path }): Action => ({ kind: 'remove', path })),
          ...apply(backend, parts, changed.length + stray.length > 0),
        ],
    ...(inTheWay && { blocked: inTheWay }),
  }
  return [withUndo(step, desired, observed, goBack(backend, parts), parts)]
}

/** Whether a file tells the other backend to leave an interface alone. */
const isClaim = ({ both }: ObservedUplinks, backend: Backend, path: string): boolean =>
  both && backend === 'networkmanager' && path.endsWith('.network')

/** Tells others that the interfaces are not theirs: cloud-init at its next run, the other backend at once. */
function planClaims(
  desired: Desired,
  observed: ObservedUplinks,
  backend: Backend,
  wanted: readonly Wanted[],
): readonly Step[] {
  const first = Object.values(desired.uplinks ?? {}).find(({ management }) => management)
  const primary = first === undefined || keepsAddress(first)
  const cloudInit = observed.cloudInit && wanted.length > 0 ? [cloudInitFile(!primary)] : []
  const others =
    !observed.both || wanted.length === 0
      ? []
      : backend === 'networkd'
        ? [unmanagedConf(wanted)]
        : wanted.map(networkdClaim)
  const lniMac = observed.lni === null ? null : macOfLni(observed.lni)
  const made = backend === 'networkmanager' && lniMac !== null ? [noAutoDefault(lniMac)] : []
  const changed = [...cloudInit, ...others, ...made].filter(
    ({ path, content }) => contentOf(observed.files, path) !== content,
  )
  const stray = observed.files.filter(
    ({ path }) =>
      (path === cloudInitPath && cloudInit.length === 0) ||
      (path === unmanagedFile && !others.some((file) => file.path === path)) ||
      (path === autoDefaultFile && (backend === 'networkd' || observed.lni === null)),
  )
  const touches = (path: string): boolean => [...changed, ...stray].some((file) => file.path === path)
  const reloads: readonly [string, ...string[]][] = [
    ...((touches(unmanagedFile) || touches(autoDefaultFile)) &&
    (observed.both || backend === 'networkmanager')
      ? [nmcliReloadConf()]
      : []),
    ...(changed.some(({ path }) => path.endsWith('.network')) ? [networkctlReload()] : []),
  ]
  if (changed.length + stray.length === 0) return []
  const step: Step = {
    id: 'uplinks.claim',
    summary: 'tell others that these interfaces are not theirs',
    risk: 'safe',
    because: [
      ...changed.map((file) => fileChange('uplinks', file, contentOf(observed.files, file.path))),
      ...stray.map(({ path }) => ({ path: 'uplinks.file', desired: null, observed: path })),
    ],
    actions: [
      ...changed.map(write),
      ...stray.map(({ path }): Action => ({ kind: 'remove', path })),
      ...reloads.map((argv): Action => ({ kind: 'run', argv, deadlineMs: 30_000 })),
    ],
  }
  const goesBack = reloads.map((argv) => reload(argv))
  // What cloud-init is told changes nothing before its next run.
  return [reloads.length === 0 ? step : withUndo(step, desired, observed, goesBack)]
}

/** Takes back the files of interfaces that the document does not name any more; what they had set goes with them. */
function planRemovals(desired: Desired, observed: ObservedUplinks, backend: Backend): readonly Step[] {
  const named = new Set(
    Object.entries(desired.uplinks ?? {}).flatMap(([name, one]) =>
      keepsAddress(one) ? [] : [name, ...Object.values(one.vlans).map(({ id }) => vlanKey(name, id))],
    ),
  )
  const stray = Map.groupBy(
    observed.files.filter(({ path }) => !named.has(keyOfFile(path) ?? '') && keyOfFile(path) !== null),
    ({ path }) => keyOfFile(path) ?? '',
  )
  return [...stray].map(([key, files]): Step => {
    const isVlan = key.includes('.')
    const step: Step = {
      id: 'uplinks.remove',
      subject: key,
      summary: `${key}, which the document does not name`,
      risk: 'disruptive',
      because: files.map(({ path }) => ({ path: `uplinks.${key}`, desired: null, observed: path })),
      actions: [
        ...files.map(({ path }): Action => ({ kind: 'remove', path })),
        ...rereads(backend).map((argv): Action => ({ kind: 'run', argv, deadlineMs: 30_000 })),
        // 1: it is not there.
        ...(isVlan && backend === 'networkd'
          ? [{ kind: 'run', argv: deleteVlan(key), deadlineMs: 30_000, exits: [0, 1], unit: true } as const]
          : []),
      ],
    }
    return withUndo(step, desired, observed, readAgain(backend), [], routersAfterRemoval(observed))
  })
}

/** The steps that make the interfaces as the document says. Pure. */
export function plan(observed: ObservedUplinks, desired: Desired): readonly Step[] {
  if (desired.uplinks === undefined) return []
  const { backend, interfaces } = observed
  const wanted = wantedOf(desired, observed)
  if (backend === null)
    return wanted.length === 0
      ? []
      : [
          {
            id: 'uplinks.configure',
            summary: wanted.map(({ key }) => key).join(', '),
            risk: 'safe',
            because: [{ path: 'uplinks', desired: wanted.map(({ key }) => key), observed: null }],
            actions: [],
            blocked: blocked(
              'uplinks.no-backend',
              'neither systemd-networkd nor NetworkManager runs on this host',
            ),
          },
        ]
  const [lniName, lniUplink] = Object.entries(desired.uplinks).find(([, { lni }]) => lni !== undefined) ?? []
  const attaching =
    observed.lni === null || lniUplink?.lni === undefined
      ? []
      : planLni(observed.lni, lniUplink.lni, { settings: `uplinks.${lniName}.lni`, sources: desired.sources })
  const observedOf = (key: string) => interfaces.find((one) => one.key === key)
  const unresolved = interfaces.flatMap((one) => {
    const isLni = desired.uplinks?.[one.key]?.lni !== undefined
    const why =
      one.key.includes('.') || one.kept || isLni ? null : obstacle(one, undefined, observed, backend)
    return why === null || one.mac !== null
      ? []
      : [
          {
            id: 'uplinks.configure',
            subject: one.key,
            summary: one.key,
            risk: 'safe' as const,
            because: [{ path: `uplinks.${one.key}.match`, desired: 'an interface', observed: null }],
            actions: [],
            blocked: why,
          },
        ]
  })
  const configured = wanted
    .filter(({ vlan }) => vlan === null)
    .flatMap((uplink) => {
      const parts = wanted
        .filter(({ key, vlan }) => key === uplink.key || vlan?.parent === uplink.key)
        .flatMap((one) => {
          const seen = observedOf(one.key)
          return seen === undefined ? [] : [{ wanted: one, one: seen }]
        })
      return planUplink(desired, observed, backend, parts)
    })
  return [
    // Others are told of an interface before it is there.
    ...planClaims(desired, observed, backend, wanted),
    ...attaching,
    ...planRemovals(desired, observed, backend),
    ...unresolved,
    ...configured,
  ]
}
