// NetworkManager (>= 1.20): its profiles as keyfiles, the profiles that nmcli tells, and the argv that load and activate them.

import { createHash } from 'node:crypto'
import { HostError } from '../problem.ts'
import type { Action } from '../resource.ts'
import type { OwnFile } from './observe.ts'
import { fromHere, isKeptWithoutCarrier, mark, rulePriority, type Wanted, writeLearned } from './want.ts'

/** The unit of NetworkManager. */
export const networkManagerUnit = 'NetworkManager.service'

/** Where profiles are kept; it reads none that others than root can read. */
export const profileFolder = '/etc/NetworkManager/system-connections'

/** Where the administrator's parts of its configuration are. */
export const confFolder = '/etc/NetworkManager/conf.d'

/** The file that keeps NetworkManager off our interfaces when another backend configures them. */
export const unmanagedFile = `${confFolder}/90-garrison.conf`

/** The file of an interface's profile. */
export const profilePath = (key: string): string => `${profileFolder}/garrison-${key}.nmconnection`

/** The UUID of an interface's profile. */
export function profileUuid(key: string): string {
  const digest = createHash('sha256').update(`garrison profile\0${key}`).digest('hex')
  // Version 8 of RFC 9562: the bits are our own.
  const [, a, b, c, d, e] = /^(.{8})(.{4}).(.{3}).(.{3})(.{12})/.exec(digest) ?? []
  return `${a}-${b}-8${c}-8${d}-${e}`
}

/** The section of one address family. */
function section(wanted: Wanted, family: 'ipv4' | 'ipv6', method: string): readonly string[] {
  const isOurs = (text: string): boolean => text.includes(':') === (family === 'ipv6')
  const routes = wanted.routes.filter(({ to }) => isOurs(to))
  const rules = wanted.rules.filter(({ from }) => isOurs(from))
  const [gateway] = wanted.gateways.filter(isOurs)
  const dns = wanted.dns.filter(isOurs)
  const auto = method === 'auto'
  return [
    '',
    `[${family}]`,
    `method=${method}`,
    ...wanted.addresses.filter(isOurs).map((address, at) => `address${at + 1}=${address}`),
    ...(gateway === undefined ? [] : [`gateway=${gateway}`]),
    ...(dns.length === 0 ? [] : [`dns=${dns.join(';')};`]),
    ...(method === 'disabled' ? [] : [`route-metric=${wanted.metric}`]),
    // Asked for as long as it takes. It cannot be told to leave the routes of the server alone and yet take its router.
    ...(auto && family === 'ipv4' ? ['dhcp-client-id=mac', 'dhcp-timeout=2147483647'] : []),
    ...routes.flatMap(({ to, via, table }, at) => [
      // What is on the link itself comes before what a server says of it.
      `route${at + 1}=${to},${via ?? (family === 'ipv4' ? '0.0.0.0' : '::')}${via === null ? ',1' : ''}`,
      ...(table === null ? [] : [`route${at + 1}_options=table=${table}`]),
    ]),
    ...rules.map(
      ({ from, table }, at) =>
        `routing-rule${at + 1}=priority ${rulePriority} from ${from} iif ${fromHere} table ${table}`,
    ),
  ]
}

/** The profile of one interface. */
export function profileFile(wanted: Wanted): OwnFile {
  const { key, mac, vlan, mtu, dhcp, advertised, addresses } = wanted
  const has = (colon: boolean): boolean => addresses.some((address) => address.includes(':') === colon)
  return {
    path: profilePath(key),
    content: [
      mark,
      ...writeLearned(wanted.learned),
      '[connection]',
      `id=garrison-${key}`,
      `uuid=${profileUuid(key)}`,
      `type=${vlan === null ? 'ethernet' : 'vlan'}`,
      ...(vlan === null ? [] : [`interface-name=${key}`]),
      // Above the profiles of cloud images and of NetworkManager itself, and tried for ever.
      'autoconnect-priority=100',
      'autoconnect-retries=0',
      '',
      '[ethernet]',
      ...(mac === null ? [] : [`mac-address=${mac}`]),
      ...(mtu === null ? [] : [`mtu=${mtu}`]),
      ...(vlan === null ? [] : ['', '[vlan]', `id=${vlan.id}`, `parent=${profileUuid(vlan.parent)}`]),
      ...section(wanted, 'ipv4', dhcp ? 'auto' : has(false) ? 'manual' : 'disabled'),
      ...section(wanted, 'ipv6', advertised ? 'auto' : has(true) ? 'manual' : 'disabled'),
      '',
      '[hostname]',
      'from-dhcp=0',
      'from-dns-lookup=0',
      '',
      // nm-cloud-setup gives interfaces the addresses that EC2 shows, which on a local network interface are of no use.
      '[user]',
      'org.freedesktop.nm-cloud-setup.skip=true',
      '',
    ].join('\n'),
  }
}

/** What devices are matched by in its configuration: a MAC is the device's own there, not one that has been set. */
const matched = ({ key, mac }: Pick<Wanted, 'key' | 'mac'>): string =>
  mac === null ? `interface-name:=${key}` : `mac:${mac}`

/** Says that an interface keeps its addresses while its cable is out; of a profile it cannot be said. */
const carrierConf = (wanted: Wanted): OwnFile => ({
  path: `${confFolder}/90-garrison-${wanted.key}-carrier.conf`,
  content: [
    mark,
    `[device-garrison-${wanted.key}]`,
    `match-device=${matched(wanted)}`,
    'ignore-carrier=true',
    '',
  ].join('\n'),
})

/** The files of one interface, its profile last. */
export const networkManagerFiles = (wanted: Wanted): readonly OwnFile[] => [
  ...(isKeptWithoutCarrier(wanted) ? [carrierConf(wanted)] : []),
  profileFile(wanted),
]

/** Says that NetworkManager leaves interfaces alone, which another backend configures. */
export const unmanagedConf = (all: readonly Wanted[]): OwnFile => ({
  path: unmanagedFile,
  content: [
    mark,
    // Added to what others list, and heeded at a reload; `managed` in a section of the device is only read when it appears.
    '[keyfile]',
    `unmanaged-devices+=${all.map(matched).join(';')}`,
    '',
  ].join('\n'),
})

/** Makes NetworkManager read its configuration, but not its profiles, again. */
export const nmcliReloadConf = (): [string, ...string[]] => ['/usr/bin/nmcli', 'general', 'reload', 'conf']

/** Makes NetworkManager read profiles again, and forget those that are gone. */
export const nmcliReload = (): [string, ...string[]] => ['/usr/bin/nmcli', 'connection', 'reload']

const upSeconds = 20

/** Activates a profile and waits until it is. */
export const nmcliUp = (uuid: string): [string, ...string[]] => [
  '/usr/bin/nmcli',
  '--wait',
  String(upSeconds),
  'connection',
  'up',
  'uuid',
  uuid,
]

/** What makes NetworkManager use changed files. Some profiles are activated; the others it activates when their interface can be used. */
export const nmApply = (paths: readonly string[], activate: readonly string[]): readonly Action[] => [
  // First, for what it says of a device is heeded at once while that is not being activated.
  { kind: 'run', argv: nmcliReloadConf(), deadlineMs: 30_000 },
  { kind: 'run', argv: ['/usr/bin/nmcli', 'connection', 'load', ...paths], deadlineMs: 30_000 },
  ...activate.map(
    (key): Action => ({
      kind: 'run',
      argv: nmcliUp(profileUuid(key)),
      deadlineMs: (upSeconds + 10) * 1000,
      // 3: it is not by then, and goes on. Whether that is a fault the next look tells.
      exits: [0, 3],
    }),
  ),
]

/** A profile that NetworkManager has loaded; `device` and `phase` are null while it is not in use. */
export interface Connection {
  readonly uuid: string
  readonly device: string | null
  /** activating, activated, deactivating. */
  readonly phase: string | null
  readonly file: string
}

/** Asks for every profile, and on which device it is in use. */
export const nmcliConnections = (): [string, ...string[]] => [
  '/usr/bin/nmcli',
  '--terse',
  '--escape',
  'yes',
  '--fields',
  'UUID,DEVICE,STATE,FILENAME',
  'connection',
  'show',
]

/** Parses `nmcliConnections()`. Colons and backslashes within a value are escaped. Errors: `host.unexpected-answer`. */
export const parseNmcliConnections = (stdout: string): readonly Connection[] =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [uuid, device, phase, file, more] = (line.match(/(?<=^|:)(?:\\.|[^\\:])*(?=:|$)/g) ?? []).map(
        (value) => value.replace(/\\(.)/g, '$1'),
      )
      if (!uuid || device === undefined || phase === undefined || file === undefined || more !== undefined)
        throw new HostError('host.unexpected-answer', 'nmcli told profiles in a form that is not known')
      return { uuid, device: device || null, phase: phase || null, file }
    })
