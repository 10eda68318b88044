// The `vms` part of the desired document: storage pools, machines, and the drift that is accepted for a while.

import { z } from 'zod'
import { absolutePath, size } from '../values.ts'
import { imageSchema } from './image.ts'
import { cloudInitSchema } from './seed.ts'
import { chosenTemplateSchema } from './template.ts'

/** Names are looked up in objects, where JavaScript has found these before anybody declares anything. */
const isFree = (name: string): boolean => !(name in Object.prototype)
const notFree = 'must be another name: JavaScript keeps this one for itself'

/** A VM's name: it is a file name, a word of a command line and a part of a dotted path, so it is nothing else. */
const machineName = z
  .string()
  .regex(
    /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/,
    'must be at most 63 letters, digits, ., _ or -, with a letter or digit at both ends',
  )
  .refine(isFree, notFree)

/** The name of a disk, NIC or device within its VM; as a serial number, virtio-blk takes no more than 20 bytes. */
const partName = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,19}$/, 'must be a lower-case letter, then at most 19 letters, digits, _ or -')
  .refine(isFree, notFree)

const poolName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/, 'must be at most 63 letters, digits, _ or -')
  .refine(isFree, notFree)

/** Interface names as the kernel takes them: at most 15 bytes without / and blanks. */
const interfaceName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/, 'must be the name of an interface, at most 15 characters')

/** What libvirt calls a network, machine type or CPU model: a word that needs no quoting anywhere. */
const word = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}$/, 'must be a word of letters, digits, _ . + or -')

const uuid = z
  .string()
  .regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/, 'must be a lower-case UUID')

const mac = z
  .string()
  .regex(
    /^(?!fe)[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/,
    'must be a unicast MAC such as 52:54:00:12:34:56, lower-case, and not begin with fe, which libvirt keeps for itself',
  )

const address = z.union([z.ipv4(), z.ipv6()])

const disk = z
  .strictObject({
    size: size
      .optional()
      .describe(
        'What the guest sees; it can grow and never shrinks. Default: that of its image. Not with path.',
      ),
    pool: poolName.optional().describe('The pool that its file is made in. Default: that of the VM.'),
    path: absolutePath
      .optional()
      .describe(
        'A file or block device that is there already, instead of a new file: it is never made, grown or removed.',
      ),
    image: imageSchema.optional().describe('What it begins as. Default: blank.'),
    format: z
      .enum(['qcow2', 'raw'])
      .default('qcow2')
      .describe('The format of its file; it is never guessed from its content.'),
    device: z.enum(['disk', 'cdrom']).default('disk').describe('What the guest sees; a cdrom is read-only.'),
    bus: z
      .enum(['virtio', 'scsi', 'sata'])
      .optional()
      .describe('How it is attached. Default: virtio, and sata for a cdrom.'),
    cache: z
      .enum(['none', 'writeback', 'writethrough', 'directsync', 'unsafe'])
      .default('none')
      .describe('How the host caches it. unsafe loses what the guest has flushed when the host fails.'),
    io: z
      .enum(['native', 'threads', 'io_uring'])
      .optional()
      .describe('How the host does its I/O. Default: native with cache none or directsync, else threads.'),
    discard: z
      .enum(['unmap', 'ignore'])
      .default('unmap')
      .describe('Whether blocks that the guest discards are given back.'),
    readOnly: z.boolean().default(false).describe('Whether the guest may only read it.'),
    boot: z
      .int()
      .min(1)
      .max(99)
      .optional()
      .describe('Its turn when the guest boots. Default: 1 for the first disk when no device has a turn.'),
  })
  .refine(({ path, size, image, pool }) => path === undefined || (size ?? image ?? pool) === undefined, {
    message: 'must not have size, image or pool beside path: what is at the path is taken as it is',
    path: ['path'],
  })
  .refine(({ path, size, image }) => (path ?? size ?? image) !== undefined, {
    message: 'must have a size, an image or a path',
  })
  .refine(({ image, format }) => image?.copy !== 'own' || image.format === format, {
    message: 'must have the format of the disk when the disk is to be the image itself (copy: own)',
    path: ['image', 'format'],
  })
  .refine(({ bus, device, readOnly }) => bus !== 'sata' || device === 'cdrom' || !readOnly, {
    message: 'must not be sata for a disk that is only read: QEMU has none',
    path: ['bus'],
  })
  .refine(
    ({ io, cache }) => io === undefined || io !== 'native' || cache === 'none' || cache === 'directsync',
    {
      message: 'must not be native with this cache: QEMU takes it with none and directsync only',
      path: ['io'],
    },
  )

const nic = z
  .strictObject({
    network: word
      .optional()
      .describe('A libvirt network. Default: default, when there is neither bridge nor macvtap.'),
    bridge: interfaceName.optional().describe('A bridge of the host, instead of a network.'),
    macvtap: interfaceName
      .optional()
      .describe('An interface of the host that it sits on (macvtap, bridge mode), instead of a network.'),
    model: z.enum(['virtio', 'e1000e', 'rtl8139']).default('virtio').describe('The NIC that the guest sees.'),
    mac: mac
      .optional()
      .describe('Its MAC. Default: a locally administered one made from the VM and its name.'),
    addresses: z
      .array(z.union([z.cidrv4(), z.cidrv6()]))
      .max(64)
      .default([])
      .describe('Addresses with prefix length that cloud-init sets in the guest. Default: it asks DHCP.'),
    gateways: z.array(address).max(2).default([]).describe('Default gateways that cloud-init sets.'),
    nameservers: z.array(address).max(8).default([]).describe('Name servers that cloud-init sets.'),
  })
  .refine(({ network, bridge, macvtap }) => [network, bridge, macvtap].filter(Boolean).length <= 1, {
    message: 'must have no more than one of network, bridge and macvtap',
  })

const pciAddress = z
  .string()
  .regex(/^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/, 'must be a PCI address such as 0000:3b:00.0')

const device = z.union([
  z.strictObject({ pci: pciAddress.describe('A PCI device of the host, as lspci -D shows it.') }),
  z.strictObject({ mdev: uuid.describe('The UUID of a mediated device of the host.') }),
])

/** Where an element of the domain XML is, in the small part of XPath that patch.ts reads. */
const xmlPath = z
  .string()
  .max(1024)
  .regex(/^\/domain(\/|$)/, 'must begin with /domain')

/** libvirt shows no password to whoever reads a definition: one that is declared would be drift for ever, and told as such. */
const noPassword =
  'must hold no password: libvirt hides it from whoever reads it back (a console by socket needs none)'

const xmlPatch = z.union([
  z.strictObject({
    set: xmlPath
      .refine((path) => !path.endsWith('/@passwd'), noPassword)
      .describe('Set an attribute or a text here: /domain/devices/memballoon/@model.'),
    value: z.string().max(65_536).describe('What it is set to.'),
  }),
  z.strictObject({
    add: xmlPath.describe('Add an element below this one: /domain/devices.'),
    element: z
      .string()
      .max(65_536)
      .refine((xml) => !/\spasswd\s*=/.test(xml), noPassword)
      .describe("The element as XML: <watchdog model='itco' action='reset'/>."),
  }),
  z.strictObject({ remove: xmlPath.describe('Remove every element or attribute that this finds.') }),
])

/** One VM as it is declared. */
export const machineSchema = z.strictObject({
  uuid: uuid
    .optional()
    .describe('Its UUID. Default: the one that it has; for a new VM one made from this host and its name.'),
  template: chosenTemplateSchema.optional(),
  cpus: z.int().min(1).max(4096).default(1).describe('Virtual CPUs.'),
  memory: size.default('1GiB').describe('Memory.'),
  firmware: z
    .enum(['bios', 'uefi', 'uefi-secure'])
    .default('uefi')
    .describe('What boots the guest; uefi-secure has Secure Boot with the usual keys enrolled.'),
  machine: word
    .optional()
    .describe(
      'The machine type. Default: q35 on x86_64, virt on aarch64, in the version that libvirt takes.',
    ),
  accelerator: z
    .enum(['kvm', 'tcg'])
    .default('kvm')
    .describe('kvm: on the hardware; tcg: emulated, for hosts that cannot.'),
  cpuModel: z
    .union([z.enum(['host-passthrough', 'host-model']), word])
    .optional()
    .describe(
      'host-passthrough, host-model, or a model by name. Default: host-passthrough, and maximum under tcg.',
    ),
  clock: z
    .enum(['utc', 'localtime'])
    .default('utc')
    .describe('What its real-time clock shows; Windows wants localtime.'),
  pool: poolName.optional().describe('The pool of its files. Default: the only pool that is declared.'),
  disks: z
    .record(partName, disk)
    .default({})
    .describe('Its disks by name, in the order in which it sees them.'),
  nics: z.record(partName, nic).default({}).describe('Its NICs by name, in the order in which it sees them.'),
  cloudInit: cloudInitSchema.optional(),
  console: z
    .strictObject({
      serial: z.boolean().default(true).describe('A serial console, for garrison vm console.'),
      display: z
        .enum(['none', 'vnc'])
        .default('none')
        .describe('vnc: a screen, reached by a socket on this host only.'),
    })
    .prefault({})
    .describe('How a person reaches it without its network.'),
  devices: z
    .record(partName, device)
    .default({})
    .describe('Devices of the host that are handed to it whole, by name.'),
  autostart: z
    .boolean()
    .optional()
    .describe('Whether libvirt starts it when the host boots. Default: true, and false where power is off.'),
  power: z
    .enum(['running', 'off', 'kept'])
    .default('running')
    .describe('running, off, or kept: as it is found.'),
  changes: z
    .enum(['next-start', 'restart'])
    .default('next-start')
    .describe(
      'When a change that a running guest cannot take is made: when it is next started, or by a restart (disruptive).',
    ),
  tags: z
    .record(
      z.string().regex(/^[a-z0-9][a-z0-9._/-]{0,62}$/, 'must be at most 63 of a-z, 0-9, ., _, / and -'),
      z.string().regex(/^[^\p{C}]{0,256}$/u, 'must be at most 256 characters without control characters'),
    )
    .default({})
    .describe('Words to choose VMs by: garrison vm list --tag KEY=VALUE.'),
  maintenance: z
    .enum(['migrate', 'save', 'shutdown', 'keep'])
    .default('shutdown')
    .describe('What is done with it before the host is rebooted; keep: the host waits for it.'),
  xml: z
    .array(xmlPatch)
    .max(100)
    .default([])
    .describe('Changes to the domain XML, in order, for what has no key here.'),
})

const pool = z.strictObject({
  path: absolutePath.describe('The folder that holds its files.'),
  mountpoint: absolutePath
    .optional()
    .describe(
      'What must be mounted before anything is made or started in it. Default: the declared volume that path lies on.',
    ),
})

const accepted = z.strictObject({
  until: z.iso.date().describe('The last day (UTC) on which it is accepted, as 2027-01-31.'),
  why: z.string().min(1).max(500).describe('Why, for whoever finds it.'),
})

const acceptedPath = z
  .string()
  .min(1)
  .max(512)
  .regex(/^vms\./, 'must begin with vms. as garrison plan shows it')

/** The `vms` part, strict, with every default. */
export const vmsSchema = z
  .strictObject({
    pools: z
      .record(poolName, pool)
      .default({})
      .describe('Storage pools by name: folders on mounted volumes, known to libvirt.'),
    machines: z
      .record(machineName, machineSchema)
      .default({})
      .describe('VMs by name. One that is not here is left alone.'),
    accepted: z
      .record(acceptedPath, accepted)
      .refine((all) => Object.keys(all).length <= 1000, 'must have at most 1000 entries')
      .default({})
      .describe(
        'Drift that is left as it is until a day, by the path that garrison plan shows; * in it stands for anything: vms.machines.web-*.cpus. garrison check shows it.',
      ),
  })
  .superRefine(({ pools, machines }, context) => {
    const names = Object.keys(pools)
    for (const [name, { pool, disks, cloudInit }] of Object.entries(machines)) {
      const refuse = (path: readonly string[], message: string): void => {
        context.addIssue({ code: 'custom', message, path: ['machines', name, ...path] })
      }
      const made = Object.entries(disks).filter(([, { path }]) => path === undefined)
      const isNeeded = made.some(([, disk]) => disk.pool === undefined) || cloudInit !== undefined
      if (pool !== undefined && pools[pool] === undefined)
        refuse(['pool'], `there is no pool ${pool} in vms.pools`)
      if (pool === undefined && isNeeded && names.length !== 1)
        refuse([], `must name its pool: vms.pools has ${names.length === 0 ? 'none' : 'more than one'}`)
      for (const [part, disk] of made)
        if (disk.pool !== undefined && pools[disk.pool] === undefined)
          refuse(['disks', part, 'pool'], `there is no pool ${disk.pool} in vms.pools`)
    }
  })
  .describe('VMs and the pools that their disks are in.')

/** The `vms` part after defaults. */
export type DesiredVms = z.output<typeof vmsSchema>

/** One VM after defaults. */
export type Machine = DesiredVms['machines'][string]

/** One disk of a VM after defaults. */
export type MachineDisk = Machine['disks'][string]

/** One NIC of a VM after defaults. */
export type MachineNic = Machine['nics'][string]

/** One change to the domain XML. */
export type XmlPatch = Machine['xml'][number]
