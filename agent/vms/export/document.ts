// The document of an exported VM: what it is, and of which files its disks are made. It is the last file of an export to be written.
//
// INVARIANTS
// - Whoever wrote it may have been anybody: a file is named by a plain word, and nothing in it can lead to a file, device or program
//   of the host that reads it.

import { createHash } from 'node:crypto'
import { z } from 'zod'
import { HostError } from '../../../provisioning/problem.ts'
import { machineSchema } from '../../../provisioning/vms/schema.ts'

const schema = 'garrison/vm-export/1'

const diskFile = z.string().regex(/^[a-z]{1,16}\.qcow2$/, 'must be a plain file name such as vda.qcow2')
const bytes = z
  .int()
  .min(0)
  .max(2 ** 50)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hexadecimal digits')
const text = z
  .string()
  .max(4096)
  .regex(/^[^\p{Cc}]*$/u, 'must have no control characters')

const exported = z.strictObject({
  /** What it was called there, where VMs may be called what none is called that a document declares. */
  name: text,
  uuid: z.string(),
  architecture: z.string().regex(/^\w{1,32}$/),
  /** The host that it was made on, and when (epoch milliseconds). */
  host: text,
  atMs: z.int().min(0).max(8.64e15),
  consistency: z.enum(['off', 'crash', 'frozen']),
  /** Whether the machine below is what the document of that host said, or was made of the VM's definition. */
  from: z.enum(['document', 'definition']),
  /** The template that it was made from there; all that it says is in the machine. */
  template: z.strictObject({ name: text, version: text, base: text.nullable() }).nullable(),
  /** What stands below vms.machines.NAME, without what is about the host. */
  machine: z.record(z.string(), z.unknown()),
  disks: z
    .array(
      z.strictObject({ name: z.string(), file: diskFile, virtualBytes: bytes, fileBytes: bytes, sha256 }),
    )
    .min(1)
    .max(64),
  /** What its firmware keeps: what it boots, and whom it trusts. */
  firmware: z.strictObject({ file: z.literal('firmware.fd'), fileBytes: bytes, sha256 }).nullable(),
  /** What is not in the export, and why. */
  left: z.array(text).max(1000),
})

/** An exported VM. Sizes in bytes. */
export type ExportedVm = z.output<typeof exported>

/** The name of the document in the folder of an export. */
export const documentName = 'vm.json'

/** Keys of a machine, and of its disks, that are about the host that it is on. */
export const hostKeys: ReadonlySet<string> = new Set(['pool', 'template', 'devices', 'xml'])
const diskHostKeys: ReadonlySet<string> = new Set(['pool', 'path', 'image'])

const digestOf = (vm: unknown): string => createHash('sha256').update(JSON.stringify(vm)).digest('hex')

/** The text of a document. */
export const printExport = (vm: ExportedVm): string =>
  `${JSON.stringify({ schema, sha256: digestOf(vm), vm }, null, 1)}\n`

/** The most bytes that a document may hold; that of a VM with a long cloud-init is some KiB. */
export const mostBytes = 2 ** 20

const why = (error: z.ZodError): string => {
  const [issue] = error.issues
  return `${issue?.path.join('.') || 'it'}: ${issue?.message}`
}

/** What in a machine may not be there, or null. */
function foreignKey(machine: ExportedVm['machine']): string | null {
  const key = Object.keys(machine).find((one) => hostKeys.has(one))
  if (key !== undefined) return key
  const disks = Object.entries((machine.disks ?? {}) as Record<string, object>)
  for (const [name, disk] of disks)
    for (const one of Object.keys(disk ?? {})) if (diskHostKeys.has(one)) return `disks.${name}.${one}`
  return null
}

/**
 * Reads a document, which is believed in nothing: each value is held against its schema. Throws `export.damaged` when it is torn,
 * was changed, or says what no export says.
 */
export function parseExport(content: string, path: string): ExportedVm {
  const damaged = (reason: string): HostError =>
    new HostError('export.damaged', `${path} ${reason}`, { details: { path } })
  let read: { readonly schema?: unknown; readonly sha256?: unknown; readonly vm?: unknown } | null
  try {
    read = JSON.parse(content) as typeof read
  } catch (error) {
    if (error instanceof SyntaxError) throw damaged('is torn, or no JSON')
    throw error
  }
  if (read?.schema !== schema) throw damaged(`is not of the schema ${schema}`)
  if (read.sha256 !== digestOf(read.vm)) throw damaged('is not as it was written')
  const { data: vm, error } = exported.safeParse(read.vm)
  if (error !== undefined) throw damaged(`says what no export says: ${why(error)}`)
  const foreign = foreignKey(vm.machine)
  if (foreign !== null) throw damaged(`says what is about a host alone: ${foreign}`)
  // Keys as in any document; disks have no size or image before they are imported.
  const machine = machineSchema.safeParse({
    ...vm.machine,
    disks: Object.fromEntries(
      Object.entries((vm.machine.disks ?? {}) as Record<string, object>).map(([name, disk]) => [
        name,
        { ...disk, size: '1MiB' },
      ]),
    ),
  })
  if (!machine.success) throw damaged(`has a VM that cannot be declared: ${why(machine.error)}`)
  if (new Set(vm.disks.map(({ file }) => file)).size < vm.disks.length) throw damaged('names a file twice')
  const declared = Object.keys(machine.data.disks).sort()
  const held = vm.disks.map(({ name }) => name).sort()
  if (JSON.stringify(declared) !== JSON.stringify(held))
    throw damaged(`declares the disks ${declared.join(', ')} and holds ${held.join(', ')}`)
  return vm
}
