// Roots on every other shape a host may have, each made for real beside the guest's own and looked at from a chroot on it.
import t, { type Test } from 'tap'
import { installGarrison, type VerbAnswer, writeDocument } from './garrison.ts'
import { bootGuest, type Guest } from './guest.ts'
import { sample } from './sample.ts'

const first = '/dev/disk/by-id/virtio-LABDRIVE01'
const second = '/dev/disk/by-id/virtio-LABDRIVE02'
/** Larger than an MBR can reach; nothing but its table and a small filesystem is ever written. */
const large = '/dev/disk/by-id/virtio-LABDRIVE03'
const newRoot = '/mnt'

/** How one root is made: the commands, what is mounted in the end, and why it cannot be grown. */
interface Shape {
  readonly name: string
  readonly make: readonly (readonly string[])[]
  readonly device: string
  /** Mounted for writing, for a root that is read-only is in the way itself. Else not a byte of a drive may change. */
  readonly writable?: true
  /** The code with which the first step is blocked. */
  readonly blocked: string
}

const table = (device: string, script: string): readonly string[] => [
  ...['sh', '-c', 'printf %b "$2" | sfdisk --quiet --lock "$1" && udevadm settle', 'sh', device, script],
]
const ext4 = (device: string): readonly string[] => [
  ...['mkfs.ext4', '-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', device],
]
const group = (...devices: readonly string[]): readonly string[] => ['vgcreate', '--yes', 'rl', ...devices]

const shapes: readonly Shape[] = [
  {
    name: 'a thin volume',
    make: [
      group(first),
      ['lvcreate', '--yes', '--type=thin-pool', '--size=256M', '--name=pool', 'rl'],
      ['lvcreate', '--yes', '--thin', '--virtualsize=200M', '--name=root', 'rl/pool'],
      ext4('/dev/rl/root'),
    ],
    device: '/dev/rl/root',
    blocked: 'root.thin',
  },
  {
    name: 'an encrypted partition',
    make: [
      table(first, 'label: gpt\\nsize=300MiB\\n'),
      [
        ...['sh', '-c'],
        'printf x | cryptsetup luksFormat --batch-mode --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 "$1" - &&' +
          ' printf x | cryptsetup open --key-file=- "$1" secret',
        ...['sh', `${first}-part1`],
      ],
      ext4('/dev/mapper/secret'),
    ],
    device: '/dev/mapper/secret',
    blocked: 'root.encrypted',
  },
  {
    name: 'an array',
    make: [
      ...[first, second].map((device) => table(device, 'label: gpt\\nsize=300MiB\\n')),
      [
        ...['mdadm', '--create', '/dev/md9', '--run', '--level=1', '--raid-devices=2', '--metadata=1.2'],
        ...['--assume-clean', `${first}-part1`, `${second}-part1`],
      ],
      ext4('/dev/md9'),
    ],
    device: '/dev/md9',
    blocked: 'root.raid',
  },
  {
    name: 'a mirrored volume',
    make: [
      group(first, second),
      ['lvcreate', '--yes', '--type=raid1', '--mirrors=1', '--nosync', '--size=200M', '--name=root', 'rl'],
      ext4('/dev/rl/root'),
    ],
    device: '/dev/rl/root',
    blocked: 'root.unsupported',
  },
  {
    name: 'one btrfs over two drives',
    make: [
      ...[first, second].map((device) => table(device, 'label: gpt\\nsize=300MiB\\n')),
      ['mkfs.btrfs', '--quiet', `${first}-part1`, `${second}-part1`],
    ],
    device: `${first}-part1`,
    blocked: 'root.several-devices',
  },
  {
    name: 'ext3',
    make: [table(first, 'label: gpt\\nsize=300MiB\\n'), ['mkfs.ext3', '-q', `${first}-part1`]],
    device: `${first}-part1`,
    blocked: 'root.unsupported',
  },
  {
    name: 'a root mounted read-only',
    make: [table(first, 'label: gpt\\nsize=300MiB\\n'), ext4(`${first}-part1`)],
    device: `${first}-part1`,
    blocked: 'root.read-only',
  },
  {
    name: 'a logical partition',
    make: [
      table(first, 'label: dos\\nsize=400MiB,type=5\\nstart=4096,size=300MiB\\n'),
      ext4(`${first}-part5`),
    ],
    device: `${first}-part5`,
    writable: true,
    blocked: 'root.unsupported',
  },
  {
    name: 'an MBR that cannot reach the end of its drive',
    make: [table(large, 'label: dos\\nsize=4294965247\\n'), ['mkfs.xfs', '-q', `${large}-part1`]],
    device: `${large}-part1`,
    writable: true,
    blocked: 'root.mbr-limit',
  },
]

/** Garrison on the new root: it finds no root side there, and looks and acts itself. */
const onNewRoot = async (guest: Guest, words: readonly string[]): Promise<VerbAnswer> => {
  const { exit, stdout, stderr } = await guest.run(['chroot', newRoot, 'garrison', ...words, '--json'], {
    allowFailure: true,
    deadlineMs: 600_000,
  })
  const lines = stdout.split('\n').filter((line) => line !== '')
  return { exit, lines: lines.map((line) => JSON.parse(line)), stderr }
}

async function mountNewRoot(guest: Guest, { make, device, writable }: Shape): Promise<void> {
  for (const argv of make) await guest.run(argv)
  // Without /run/garrison, where the sockets of the root side are.
  const folders = ['usr', 'etc', 'var', 'dev', 'proc', 'sys', 'run/udev', 'run/lvm', 'run/lock', 'tmp']
  await guest.run(['mount', device, newRoot])
  await guest.run(['mkdir', '--parents', ...folders.map((folder) => `${newRoot}/${folder}`)])
  for (const name of ['bin', 'sbin', 'lib', 'lib64'])
    await guest.run(['ln', '--symbolic', `usr/${name}`, `${newRoot}/${name}`])
  await guest.run(['mkdir', `${newRoot}/run/garrison`])
  await guest.run(['mount', '--types=tmpfs', 'tmpfs', `${newRoot}/run/garrison`])
  await guest.run(['mount', '--options', `remount,noatime,${writable ? 'rw' : 'ro'}`, newRoot])
  for (const folder of folders) await guest.run(['mount', '--rbind', `/${folder}`, `${newRoot}/${folder}`])
}

/** All bytes of the drives; of one that a filesystem may write to, its partition table. */
async function written(guest: Guest, { writable, device }: Shape): Promise<readonly string[]> {
  if (writable) return [(await guest.run(['sfdisk', '--dump', device.replace(/-part\d+$/, '')])).stdout]
  await guest.run(['sync'])
  const hashes: string[] = []
  for (const id of ['LABDRIVE01', 'LABDRIVE02', 'LABDRIVE03']) hashes.push(await guest.driveHash(id))
  return hashes
}

async function blocks(t: Test, guest: Guest, shape: Shape): Promise<void> {
  const before = await written(guest, shape)
  const plan = await onNewRoot(guest, ['plan', '--only', 'root'])
  t.equal(plan.exit, 3)
  t.equal(plan.lines[0].steps[0]?.blocked?.code, shape.blocked, JSON.stringify(plan.lines[0]))
  const apply = await onNewRoot(guest, ['apply', '--only', 'root', '--allow', 'destroys-data'])
  t.equal(apply.exit, 3)
  t.equal(apply.lines.at(-1).performed, 0)
  t.strictSame(await written(guest, shape), before, 'nothing written')
}

t.setTimeout(0)

t.test('other roots', async (t) => {
  const sizeBytes = 512 * 2 ** 20
  await using guest = await bootGuest({
    prepared: true,
    snapshots: true,
    drives: [
      { serial: 'LABDRIVE01', sizeBytes },
      { serial: 'LABDRIVE02', sizeBytes },
      { serial: 'LABDRIVE03', sizeBytes: 3 * 2 ** 40 },
    ],
  })
  await installGarrison(guest)
  await writeDocument(guest, JSON.stringify({ version: 1, root: {} }))
  await guest.run(['sync'])
  await guest.snapshot('blank')
  for (const shape of sample(shapes, 3))
    await t.test(`${shape.blocked}: ${shape.name}`, async (t) => {
      await guest.restore('blank')
      await mountNewRoot(guest, shape)
      await blocks(t, guest, shape)
    })
})
