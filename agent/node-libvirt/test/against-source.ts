// Holds the tables of calls, events, errors and constants against libvirt's own source: `node test/against-source.ts <folder>`.
//
// The folder is libvirt's source tree, as `apt-get source libvirt` leaves it. Prints what differs; exits with 1 when anything does.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { domainCalls, domainStreams } from '../calls-domain.ts'
import { authList, authPolkit, hostCalls, open } from '../calls-host.ts'
import { networkCalls } from '../calls-network.ts'
import { storageCalls, storageStreams } from '../calls-storage.ts'
import { VIR } from '../constants.ts'
import { errorCodes, errorDomains } from '../errors.ts'
import {
  domainEvents,
  monitorEvent,
  monitorRegistration,
  networkEvents,
  nodeDeviceEvents,
  registrations,
  secretEvents,
  storagePoolEvents,
} from '../events.ts'
import { type Procedure, program } from '../procedure.ts'

const folder = process.argv[2]
if (folder === undefined) throw new Error('which folder is libvirt’s source in?')
const source = (path: string) =>
  readFileSync(join(folder, path), 'utf8')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^%.*$/gm, '')

/** Sizes that libvirt's protocol takes from its C headers. */
const sizes: Record<string, number> = {
  VIR_UUID_BUFLEN: 16,
  VIR_SECURITY_MODEL_BUFLEN: 257,
  VIR_SECURITY_LABEL_BUFLEN: 4097,
  VIR_SECURITY_DOI_BUFLEN: 257,
}
const remote = source('src/remote/remote_protocol.x')
const qemu = source('src/remote/qemu_protocol.x')
const all = `${remote}\n${qemu}`
for (const [, name = '', value = ''] of all.matchAll(/const (\w+)\s*=\s*(\w+);/g))
  sizes[name] = Number.isNaN(Number(value)) ? (sizes[value] ?? Number.NaN) : Number(value)

const structs = new Map<string, string>()
for (const [, name = '', body = ''] of all.matchAll(/^struct (\w+) \{([^}]*)\}/gm)) structs.set(name, body)
const aliases = new Map<string, string>()
for (const [, definition = ''] of all.matchAll(/^typedef ([^;]+);/gm)) {
  const name = /(\w+)\s*(?:[[<].*)?$/.exec(definition)?.[1] ?? ''
  aliases.set(name, definition.replace(new RegExp(`\\b${name}\\b`), 'it'))
}

const scalars: Readonly<Record<string, string>> = {
  int: 'int',
  char: 'int',
  'unsigned char': 'int',
  'unsigned short': 'int',
  unsigned: 'uint',
  'unsigned int': 'uint',
  hyper: 'hyper',
  'unsigned hyper': 'uhyper',
  double: 'double',
  remote_auth_type: 'int',
  remote_typed_param_value: 'typed',
}

function shapeOfType(type: string): string {
  const scalar = scalars[type]
  if (scalar !== undefined) return scalar
  const alias = aliases.get(type)
  if (alias !== undefined) return shapeOfMember(alias)
  const body = structs.get(type)
  if (body === undefined) throw new Error(`${type} is unknown`)
  return shapeOfBody(body)
}

function shapeOfMember(member: string): string {
  const [, type = '', pointer, , bracket, size = ''] =
    /^([\w ]+?)\s*(\*\s*)?\b(\w+)\s*(?:([[<])\s*(\w+)\s*[\]>])?$/.exec(member.trim()) ?? []
  const most = sizes[size] ?? Number(size)
  if (type === 'string') return `string<${most}>`
  if (type === 'opaque' || (type === 'char' && bracket !== undefined))
    return bracket === '[' ? `${type}[${most}]` : `${type}<${most}>`
  const of = shapeOfType(type)
  if (pointer !== undefined) return `*(${of})`
  return bracket === undefined ? of : `(${of})<${most}>`
}

function shapeOfBody(body: string): string {
  return body
    .split(';')
    .map((member) => member.trim())
    .filter((member) => member !== '')
    .map(shapeOfMember)
    .join()
}

const shapeOf = (name: string): string => (structs.has(name) ? shapeOfType(name) : '')

const numbers = new Map<string, string>()
for (const [text, of] of [
  [remote, program.remote],
  [qemu, program.qemu],
] as const)
  for (const [, name = '', number] of text.matchAll(/^\s+(?:REMOTE|QEMU)_PROC_(\w+) = (\d+)/gm))
    numbers.set(`${of}.${number}`, name)

let compared = 0
const differences: string[] = []
const compare = (what: string, ours: unknown, theirs: unknown) => {
  compared += 1
  if (ours !== theirs) differences.push(`${what}:\n  ours   ${ours}\n  theirs ${theirs}`)
}
const bare = (name: string) => name.replaceAll('_', '').toUpperCase()
const prefix = (of: number) => (of === program.qemu ? 'qemu_' : 'remote_')

const compareCall = (
  name: string | null,
  { program: of, number, args, reply }: Procedure<never, unknown>,
) => {
  const theirs = numbers.get(`${of}.${number}`) ?? 'no such number'
  const structName = `${prefix(of)}${theirs.toLowerCase()}`
  if (name !== null)
    compare(`name of ${number}`, bare(name), bare(`${of === program.qemu ? 'QEMU' : ''}${theirs}`))
  compare(`arguments of ${theirs}`, args.shape, shapeOf(`${structName}_args`))
  compare(`reply of ${theirs}`, reply.shape, shapeOf(`${structName}_ret`))
}
const tables = [hostCalls, networkCalls, storageCalls, domainCalls, storageStreams, domainStreams]
for (const [name, one] of tables.flatMap((table) => Object.entries<Procedure<never, unknown>>(table)))
  compareCall(name, one)
compareCall('authList', authList)
compareCall('authPolkit', authPolkit)
compareCall('connectOpen', open)
for (const { register, deregister } of [...Object.values(registrations), monitorRegistration]) {
  compareCall(null, register as Procedure<never, unknown>)
  compareCall(null, deregister)
}

const events = [
  ['domain', domainEvents],
  ['network', networkEvents],
  ['storage_pool', storagePoolEvents],
  ['node_device', nodeDeviceEvents],
  ['secret', secretEvents],
] as const
const include = (name: string) => source(`include/libvirt/libvirt-${name}.h`)
const headers = [
  ...[
    'common.h.in',
    'domain',
    'domain-checkpoint',
    'domain-snapshot',
    'event',
    'host',
    'interface',
    'network',
  ],
  ...['nodedev', 'nwfilter', 'qemu', 'secret', 'storage', 'stream'],
].map((name) => (name.endsWith('.in') ? source(`include/libvirt/libvirt-${name}`) : include(name)))
const constants = new Map<string, number>()
for (const [, body = ''] of headers.join('\n').matchAll(/typedef enum \{([\s\S]*?)\} \w+;/g)) {
  let next = 0
  for (const line of body.replace(/^#.*$/gm, '').split(',')) {
    const [, name = '', value] = /^\s*(\w+)\s*(?:=\s*([\s\S]+?))?\s*$/.exec(line) ?? []
    if (name === '') continue
    const plain = value?.replaceAll(/[()]/g, '').trim()
    const shifted = /^(\d+)U?\s*<<\s*(\d+)$/.exec(plain ?? '')
    const number =
      plain === undefined
        ? next
        : shifted
          ? Number(shifted[1]) * 2 ** Number(shifted[2])
          : (constants.get(plain) ??
            plain.split('|').reduce((sum, one) => sum + (constants.get(one.trim()) ?? Number(one)), 0))
    constants.set(name, number)
    next = number + 1
  }
}
for (const [kind, table] of events)
  for (const [name, { id, procedure, body }] of Object.entries(table)) {
    const theirs = numbers.get(`${program.remote}.${procedure}`) ?? 'no such number'
    compare(`name of event ${procedure}`, bare(name), bare(theirs.replace(/^.*EVENT_(CALLBACK_)?/, '')))
    compare(`shape of ${theirs}`, `int,${body.shape}`, shapeOf(`remote_${theirs.toLowerCase()}_msg`))
    const constant = [...constants].find(([one]) => bare(one) === bare(`VIR_${kind}_EVENT_ID_${name}`))
    compare(`number of ${kind} ${name}`, id, constant?.[1])
  }
compare(
  'shape of the monitor event',
  `int,${monitorEvent.body.shape}`,
  shapeOf('qemu_domain_monitor_event_msg'),
)

for (const [name, value] of Object.entries(VIR)) compare(name, value, constants.get(`VIR_${name}`))

const errors = source('include/libvirt/virterror.h')
const listOf = (pattern: RegExp) =>
  [...errors.matchAll(/^\s+(VIR_\w+) = (\d+)/gm)].filter(([, name = '']) => pattern.test(name))
for (const [, name = '', number] of listOf(/^VIR_FROM_/)) compare(name, errorDomains[Number(number)], name)
for (const [, name = '', number] of listOf(/^VIR_(ERR|WAR)_(?!NONE|WARNING|ERROR$)/))
  compare(name, errorCodes[Number(number)], name)

console.log(`${compared} facts compared, ${differences.length} differ`)
for (const difference of differences) console.log(difference)
process.exitCode = differences.length === 0 ? 0 : 1
