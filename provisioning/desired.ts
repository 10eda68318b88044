// The desired document: its schema with every default, and the types that plans read.

import { z } from 'zod'
import { cloudwatchSchema } from './cloudwatch.ts'
import { firewallSchema, services } from './firewall/schema.ts'
import { uplinksSchema } from './uplinks/schema.ts'
import { absolutePath, name, size } from './values.ts'
import { vmnetsSchema } from './vmnets/schema.ts'
import { vmsSchema } from './vms/schema.ts'

const software = z
  .strictObject({
    roles: z
      .array(z.enum(['storage', 'vm-host', 'console']))
      .default(['storage', 'vm-host', 'console'])
      .describe(
        'Sets of packages and services: storage (md, LVM, filesystems), vm-host (libvirt, QEMU), console (Cockpit).',
      ),
    packages: z
      .array(z.string().regex(/^[a-z0-9][a-z0-9+._-]*$/i, 'must be a package name'))
      .default([])
      .describe('Further packages to install, by the names of this distribution.'),
    lockWaitSeconds: z
      .int()
      .min(1)
      .max(3600)
      .default(300)
      .describe('How long to wait for a package lock that another process holds.'),
  })
  .describe('Packages installed, services enabled and running.')

const root = z
  .strictObject({
    grow: z.boolean().default(true).describe('Grow / to fill the disk that it stands on.'),
  })
  .describe('The root filesystem.')

const member = z.union([
  z.strictObject({ serial: z.string().min(1).describe('The serial number that garrison drives shows.') }),
  z.strictObject({ byId: absolutePath.describe('A link in /dev/disk/by-id.') }),
])

const array = z
  .strictObject({
    name: name.default('garrison').describe('The array becomes /dev/md/NAME.'),
    level: z
      .union([z.literal(0), z.literal(1), z.literal(5), z.literal(6), z.literal(10)])
      .default(5)
      .describe('RAID level.'),
    members: z
      .union([z.literal('unused'), z.array(member).min(2)])
      .default('unused')
      .describe(
        'unused: every drive that is provably blank and free; or a list of drives by serial or by-id link.',
      ),
    minimum: z
      .int()
      .min(2)
      .max(64)
      .default(3)
      .describe('Fewer members than this are not made into an array.'),
    count: z
      .int()
      .min(2)
      .max(64)
      .optional()
      .describe('Exactly so many members (with spares), or none at all.'),
    spares: z.int().min(0).max(8).default(0).describe('How many of the drives stay hot spares.'),
    chunkKiB: z
      .union([z.literal(64), z.literal(128), z.literal(256), z.literal(512), z.literal(1024)])
      .default(512)
      .describe('Chunk in KiB.'),
    consistency: z
      .enum(['ppl', 'bitmap'])
      .optional()
      .describe(
        'How a crash in the middle of a write is mended. Default: ppl for level 5, bitmap for 1, 6 and 10.',
      ),
    onLoss: z
      .enum(['report', 'recreate'])
      .default('report')
      .describe(
        'When all members come back blank (instance store after a stop): only report it, or make the array anew.',
      ),
    allow: z
      .array(z.enum(['ebs', 'zoned', 'removable', 'loop']))
      .default([])
      .describe('Kinds of drive that are refused unless they are named here.'),
  })
  .describe('The md array over the unused drives.')

const logical = z
  .strictObject({
    share: z.number().gt(0).max(100).optional().describe('Per cent of the volume group. Give share or size.'),
    size: size.optional().describe('Size such as 200GiB. Give share or size.'),
    filesystem: z.enum(['xfs', 'ext4']).default('xfs').describe('The filesystem made on it.'),
    mount: absolutePath.optional().describe('Where it is mounted; without it the volume stays raw, for VMs.'),
    owner: z.string().default('root').describe('Owner of the mounted root folder.'),
    group: z.string().default('root').describe('Group of the mounted root folder.'),
    mode: z
      .string()
      .regex(/^0?[0-7]{3,4}$/, 'must be an octal mode such as "0755" (quoted)')
      .default('0755')
      .describe('Mode of the mounted root folder.'),
    onContent: z
      .enum(['block', 'move'])
      .default('block')
      .describe(
        'When the folder to mount over has content: block, or move that content onto the new volume.',
      ),
  })
  .refine((volume) => (volume.share === undefined) !== (volume.size === undefined), {
    message: 'must have exactly one of share and size',
  })

const volumes = z
  .strictObject({
    group: name.default('garrison').describe('The LVM volume group on the array.'),
    logical: z.record(name, logical).default({}).describe('Logical volumes by name.'),
  })
  .refine((volumes) => Object.values(volumes.logical).reduce((sum, { share = 0 }) => sum + share, 0) <= 100, {
    message: 'shares add up to more than 100',
    path: ['logical'],
  })
  .describe('The volume group on the array, its volumes and their mounts.')

const networks = (what: string) =>
  z
    .record(
      z.string().regex(/^[a-z0-9][a-z0-9._-]{0,14}$/, 'must be the label of a network such as lni or eni'),
      z
        .string()
        .regex(
          /^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]{1,253})(:[1-9][0-9]{0,4})?$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$/,
          'must be an address or a name, with :PORT where it is another: 10.0.1.5, [fd00::5]:7443',
        ),
    )
    .describe(what)

/** The TCP port that hosts of a fleet reach each other at, unless the document says another. */
export const fleetPort = services.peers

const fleet = z
  .strictObject({
    port: z
      .int()
      .min(1)
      .max(65_535)
      .default(fleetPort)
      .describe('The one port that other hosts of the fleet reach this one at (TCP).'),
    listen: z
      .string()
      .regex(/^[0-9A-Fa-f:.]+$/, 'must be an address')
      .optional()
      .describe('The one address to listen on. Default: all of them; a certificate is asked for on each.'),
    addresses: networks(
      'Where this host tells others that it is, by network: eni, lni. Default: every address of its interfaces.',
    ).optional(),
    peers: z
      .record(
        z
          .string()
          .regex(/^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/, 'must be the name of a host of the fleet'),
        networks('Where the host is, by network; all are tried side by side.'),
      )
      .default({})
      .describe(
        'Hosts that are known beforehand, by the name in their certificate. Others tell of the rest.',
      ),
    discover: z
      .strictObject({
        tag: z
          .string()
          .regex(/^(?!aws:)[\w .:/=+@-]{1,128}$/, 'must be the key of a tag')
          .default('garrison-host')
          .describe('The tag; its value is the name of the host in the fleet.'),
      })
      .optional()
      .describe(
        'Look for hosts by a tag of their EC2 instances, every ten minutes. What was found is remembered for when the Region cannot be reached.',
      ),
    metrics: z
      .boolean()
      .default(false)
      .describe(
        'Answer /metrics on the port, for a Prometheus that has a certificate of the fleet (role read).',
      ),
    shell: z
      .boolean()
      .default(false)
      .describe(
        'Let root on hosts whose certificate has the role admin open a shell of root on this one (garrison shell). It is recorded.',
      ),
  })
  .describe('How this host talks with the others of its fleet. Membership itself is by garrison fleet join.')

/** The schema of the desired document. Every key that a person may write is here, with its default and its description. */
export const desiredSchema = z
  .strictObject({
    version: z.literal(1).describe('The version of this document format.'),
    host: z
      .strictObject({
        instance: z
          .string()
          .optional()
          .describe('Perform only on this EC2 instance (i-…) or machine-id; nothing is done on any other.'),
      })
      .default({})
      .describe('Which host this document is for.'),
    software: software.optional(),
    root: root.optional(),
    firewall: firewallSchema.optional(),
    array: array.optional(),
    volumes: volumes.optional(),
    uplinks: uplinksSchema.optional(),
    vmnets: vmnetsSchema.optional(),
    vms: vmsSchema.optional(),
    fleet: fleet.optional(),
    cloudwatch: cloudwatchSchema.optional(),
  })
  .refine((desired) => desired.volumes === undefined || desired.array !== undefined, {
    message: 'volumes needs array: the volume group stands on it',
    path: ['volumes'],
  })

/** The document as it is after defaults. */
export type DesiredDocument = z.output<typeof desiredSchema>

/** Where each value was written, by dotted path: `array.level` -> `host.yaml:31`. Defaults are absent. */
export type Sources = Readonly<Record<string, string>>

/** The desired document that plans read, with where each value comes from. */
export interface Desired extends DesiredDocument {
  readonly sources: Sources
}

/** An empty document: nothing is wanted; used to look at a host that has no document yet. */
export const nothingDesired: Desired = { version: 1, host: {}, sources: {} }

/** The desired RAID array, after defaults. */
export type DesiredArray = NonNullable<DesiredDocument['array']>

/** One desired logical volume, after defaults. */
export type DesiredLogical = NonNullable<DesiredDocument['volumes']>['logical'][string]
