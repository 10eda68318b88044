// The NoCloud seed of a VM: what a declaration may say for cloud-init, and the files that its guest reads at boot.

import { createHash } from 'node:crypto'
import { parse, stringify, YAMLParseError } from 'yaml'
import { z } from 'zod'
import type { Action } from '../resource.ts'

/** Key types of OpenSSH (sshd(8), AUTHORIZED_KEYS FILE FORMAT); DSA is gone from it. */
const keyTypes = [
  'ssh-ed25519',
  'ssh-rsa',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com',
]

/** Whether a text is one public key: its type, its bytes (which repeat the type, RFC 4253 6.6), and perhaps a comment. */
function isPublicKey(text: string): boolean {
  const [type = '', encoded = ''] = text.split(' ')
  if (!keyTypes.includes(type) || /[\0-\x1f\x7f]/.test(text)) return false
  const bytes = Buffer.from(encoded, 'base64')
  if (bytes.toString('base64') !== encoded || bytes.length < 4) return false
  const length = bytes.readUInt32BE(0)
  return bytes.subarray(4, 4 + length).toString('latin1') === type && bytes.length > 4 + length
}

const sshKey = z
  .string()
  .max(16_384)
  .refine(isPublicKey, 'must be one public key as ssh-keygen writes it, such as "ssh-ed25519 AAAA… name"')

const hostname = z
  .string()
  .max(253)
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i,
    'must be a host name: letters, digits and - in labels parted by dots',
  )

/** What cloud-init takes as user data that is text: it goes by the first line (cloud-init, User-data formats). */
const userDataText = z
  .string()
  .regex(
    /^(#cloud-config\n|#!|#include\b|#cloud-boothook\b|#cloud-config-archive\n|## template: ?jinja\n|Content-Type: multipart)/i,
    'must begin as cloud-init wants it: #cloud-config, #!, #include, …; or be written as a map of keys',
  )

/** Whether every text in a value can be written as UTF-8. */
const isWellFormed = (value: unknown): boolean =>
  typeof value === 'string'
    ? value.isWellFormed()
    : value === null || typeof value !== 'object' || Object.entries(value).flat().every(isWellFormed)

/** What cloud-init is told in the guest. */
export const cloudInitSchema = z
  .strictObject({
    hostname: hostname.optional().describe('The host name of the guest. Default: the name of the VM.'),
    sshKeys: z
      .array(sshKey)
      .max(100)
      .default([])
      .describe('Public keys for the default user of the image, one line each.'),
    userData: z
      .union([z.record(z.string(), z.json()), userDataText])
      .refine(isWellFormed, 'must hold no half of a character (a lone surrogate)')
      .optional()
      .describe(
        'cloud-config as a map of keys, or the text of any user data. It is in no plan, journal or log; who reads the document or the seed has it.',
      ),
    network: z
      .union([z.literal('dhcp'), z.literal('none'), z.looseObject({ version: z.literal(2) })])
      .default('dhcp')
      .describe(
        'dhcp: every NIC asks, but those with an address of their own; none: left to the guest; or a map as netplan reads it (version: 2).',
      ),
  })
  .describe('What cloud-init is told in the guest, by a small drive (NoCloud) that is made for it.')

/** What cloud-init is told, after defaults. */
export type CloudInit = z.output<typeof cloudInitSchema>

/** One NIC as the guest's network configuration knows it. Addresses have their prefix length; none: it asks DHCP. */
export interface SeedNic {
  readonly mac: string
  readonly addresses: readonly string[]
  readonly gateways: readonly string[]
  readonly nameservers: readonly string[]
}

/** The files of a seed. */
export const seedFiles = ['meta-data', 'user-data', 'network-config'] as const

/** One file of a seed. */
interface SeedFile {
  readonly name: (typeof seedFiles)[number]
  readonly text: string
}

/** The seed of one VM. `instanceId` is another one whenever a byte of it is: cloud-init then runs anew (and makes new host keys). */
export interface Seed {
  readonly instanceId: string
  readonly files: readonly SeedFile[]
}

/** What PyYAML refuses to read, or takes for the end of a line, when it is not escaped. */
const unreadable = /[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/g

/**
 * YAML that cloud-init reads as the same values: it reads YAML 1.1, in which a MAC of digits is a number in base sixty, and no is
 * false. So every text is quoted, where an escape means the character.
 */
const yamlText = (value: unknown): string =>
  stringify(value, {
    defaultStringType: 'QUOTE_DOUBLE',
    defaultKeyType: null,
    lineWidth: 0,
    aliasDuplicateObjects: false,
  }).replace(unreadable, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)

const isIpv6 = (address: string): boolean => address.includes(':')

/** One NIC as netplan's version 2 has it; where nothing is said of its address it asks DHCP. */
const ethernet = ({ mac, addresses, gateways, nameservers }: SeedNic) => ({
  match: { macaddress: mac },
  ...(addresses.length === 0
    ? { dhcp4: true }
    : {
        dhcp4: false,
        addresses,
        // Some renderers of cloud-init know no `default` here.
        ...(gateways.length > 0 && {
          routes: gateways.map((via) => ({ to: isIpv6(via) ? '::/0' : '0.0.0.0/0', via })),
        }),
      }),
  ...(nameservers.length > 0 && { nameservers: { addresses: nameservers } }),
})

function networkOf({ network }: CloudInit, nics: Readonly<Record<string, SeedNic>>): unknown {
  if (network === 'none') return { config: 'disabled' }
  if (network !== 'dhcp') return network
  const entries = Object.entries(nics).map(([name, nic]) => [name, ethernet(nic)])
  return { version: 2, ethernets: Object.fromEntries(entries) }
}

const userDataOf = ({ userData }: CloudInit): string =>
  typeof userData === 'string' ? userData : `#cloud-config\n${yamlText(userData ?? {})}`

/** What an instance-id ends in: a digest of all else that the seed says. */
const digestOf = (facts: unknown, user: string, network: string): string =>
  createHash('sha256')
    .update(JSON.stringify([facts, user, network]))
    .digest('hex')
    .slice(0, 16)

/** The files that cloud-init (NoCloud) reads in the guest of that name. The same declaration always gives the same bytes. */
export function seedOf(name: string, cloudInit: CloudInit, nics: Readonly<Record<string, SeedNic>>): Seed {
  const { hostname = name.replaceAll('_', '-'), sshKeys } = cloudInit
  const facts = { 'local-hostname': hostname, ...(sshKeys.length > 0 && { 'public-keys': sshKeys }) }
  const user = userDataOf(cloudInit)
  const network = yamlText(networkOf(cloudInit, nics))
  const instanceId = `${name}-${digestOf(facts, user, network)}`
  return {
    instanceId,
    files: [
      { name: 'meta-data', text: yamlText({ 'instance-id': instanceId, ...facts }) },
      { name: 'user-data', text: user },
      { name: 'network-config', text: network },
    ],
  }
}

/** The text of each file of a seed. */
export type SeedTexts = Readonly<Record<SeedFile['name'], string>>

type Said = Readonly<Record<string, unknown>>

const mapOf = (value: unknown): Said =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Said) : {}

function parsedMap(text: string): Said {
  try {
    return mapOf(parse(text))
  } catch (error) {
    if (error instanceof YAMLParseError) return {}
    throw error
  }
}

/** A seed for another VM, and whether what was said of its network beyond DHCP is left out of it. */
export interface AnotherSeed {
  readonly seed: Seed
  readonly isNetworkLost: boolean
}

/**
 * The seed of a VM that was copied, from that of the old one and the new MAC of each old one: with a name, a host name and an
 * instance-id of its own. Its NICs ask DHCP, since addresses are those of the old one, and `network: none` stays so. Null when the
 * seed is not as `seedOf` makes them: its instance-id is a digest of all else that it says.
 */
export function seedOfAnother(
  name: string,
  texts: SeedTexts,
  macs: ReadonlyMap<string, string>,
): AnotherSeed | null {
  const { 'instance-id': instanceId, ...facts } = parsedMap(texts['meta-data'])
  const digest = digestOf(facts, texts['user-data'], texts['network-config'])
  if (typeof instanceId !== 'string' || !instanceId.endsWith(`-${digest}`)) return null
  const { config, ethernets } = parsedMap(texts['network-config'])
  const nicsBy = (macOf: (old: string) => string): Readonly<Record<string, SeedNic>> =>
    Object.fromEntries(
      Object.entries(mapOf(ethernets)).flatMap(([nic, said]): readonly [string, SeedNic][] => {
        const { match, nameservers } = mapOf(said)
        const old = String(mapOf(match).macaddress).toLowerCase()
        const { addresses } = mapOf(nameservers)
        const servers = Array.isArray(addresses) ? addresses.map(String) : []
        return macs.has(old)
          ? [[nic, { mac: macOf(old), addresses: [], gateways: [], nameservers: servers }]]
          : []
      }),
    )
  const cloudInit = {
    sshKeys: (facts['public-keys'] ?? []) as string[],
    userData: texts['user-data'],
    network: config === 'disabled' ? 'none' : 'dhcp',
  } as const
  const asItWas = yamlText(
    networkOf(
      cloudInit,
      nicsBy((old) => old),
    ),
  )
  return {
    seed: seedOf(
      name,
      cloudInit,
      nicsBy((old) => macs.get(old) ?? old),
    ),
    isNetworkLost: asItWas !== texts['network-config'],
  }
}

/** Where the instance-id of the seed at a path is written down once the seed is whole. */
export const seedMark = (path: string): string => `${path}.instance-id`

/** When all of it is said to be from: any moment will do, as long as it is the same one. */
const date = '1980010100000000'

/** Makes the image of a folder (xorriso >= 1.5): label CIDATA, Joliet and Rock Ridge. No `--`, which would end its options. */
export const xorriso = (folder: string, image: string): [string, ...string[]] => [
  '/usr/bin/xorriso',
  '-no_rc',
  ...['-as', 'mkisofs', '-quiet'],
  ...['-volid', 'CIDATA', '-joliet', '-rational-rock', '-no-pad'],
  ...[`--modification-date=${date}`, '--set_all_file_dates', date],
  ...['-o', image],
  folder,
]

const minuteMs = 60_000

const madeOf = (path: string): string => `${path}.new`
const stageOf = (path: string): string => `${path}.stage`

/** The folder that the files of an old seed are laid out in while the one at a path is made from it. */
export const oldSeedFolder = (path: string): string => `${path}.old`

/**
 * All that may be beside the seed at a path: which one it is, and what is left where its making was cut short. Its folders are made for the
 * while, and nothing else is made in them.
 */
export const besideSeed = (
  path: string,
): { readonly files: readonly string[]; readonly folders: readonly string[] } => ({
  files: [seedMark(path), madeOf(path)],
  folders: [stageOf(path), oldSeedFolder(path)],
})

/** Takes the files out of a seed (xorriso) into the folder `stage`; exits with 32 or 5 when it is none. */
export const unpackActions = (image: string, stage: string): readonly Action[] => [
  { kind: 'folder', path: stage, mode: 0o700 },
  ...seedFiles.map((name): Action => ({ kind: 'remove', path: `${stage}/${name}` })),
  {
    kind: 'run',
    argv: [
      '/usr/bin/xorriso',
      ...['-no_rc', '-osirrox', 'on', '-indev', image],
      ...seedFiles.flatMap((name) => ['-extract', `/${name}`, `${stage}/${name}`]),
    ],
    deadlineMs: minuteMs,
    exits: [0, 5, 32],
  },
]

/**
 * What makes the seed at `path` and takes away the one before it: its files are laid out in a folder beside it, which is made and
 * removed again. Whenever it is cut short it can be done again; `seedMark` is only there when the seed is whole.
 */
export function seedActions({ files, instanceId }: Seed, path: string): readonly Action[] {
  const [made, stage] = [madeOf(path), stageOf(path)]
  return [
    { kind: 'remove', path: seedMark(path) },
    { kind: 'folder', path: stage, mode: 0o700 },
    ...files.map(
      ({ name, text }): Action => ({ kind: 'write', path: `${stage}/${name}`, content: text, mode: 0o600 }),
    ),
    { kind: 'run', argv: xorriso(stage, made), deadlineMs: minuteMs },
    { kind: 'run', argv: ['/usr/bin/sync', '--', made], deadlineMs: minuteMs },
    { kind: 'remove', path },
    { kind: 'move', from: made, to: path },
    ...files.map(({ name }): Action => ({ kind: 'remove', path: `${stage}/${name}` })),
    { kind: 'remove', path: stage },
    { kind: 'write', path: seedMark(path), content: `${instanceId}\n`, mode: 0o644 },
  ]
}
