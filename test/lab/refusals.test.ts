// Every refusal that a guest can have, provoked for real between a clean plan and the apply: refused, named, nothing written.
import t from 'tap'
import { documentOf, garrison, installGarrison, writeDocument } from './garrison.ts'
import { bootGuest, type DriveOptions, type Guest } from './guest.ts'

const sizeBytes = 128 * 2 ** 20
const serials = ['LAB0000001', 'LAB0000002', 'LAB0000003'] as const
const [victim] = serials
const link = `/dev/disk/by-id/virtio-${victim}`

/** What is done to the host, and the refusal that must name it. `touches`: the provocation itself may go on writing. */
interface Provocation {
  readonly code: string
  readonly name: string
  provoke(guest: Guest): Promise<unknown>
  /** Puts the drives back as they were plugged in, without which no snapshot can be restored. */
  undo?(guest: Guest): Promise<unknown>
}

const run =
  (...commands: readonly (readonly string[])[]) =>
  async (guest: Guest) => {
    for (const argv of commands) await guest.run(argv)
  }

const bytes = (offset: number, content: string | Buffer) => (guest: Guest) =>
  guest.run(['dd', `of=${link}`, 'bs=1', `seek=${offset}`, 'conv=notrunc', 'status=none'], { stdin: content })

const superblock = (metadata: string) =>
  run(
    [
      ...[
        'mdadm',
        '--create',
        '/dev/md99',
        '--run',
        '--level=1',
        '--raid-devices=2',
        `--metadata=${metadata}`,
      ],
      ...[link, 'missing'],
    ],
    ['mdadm', '--stop', '/dev/md99'],
  )

const append = (path: string, line: string) => async (guest: Guest) => {
  const before = await guest.run(['cat', path], { allowFailure: true })
  await guest.writeFile(path, `${before.stdout}${line}\n`)
}

/** Four ZFS labels' worth of uberblock magic, as blkid looks for it. */
const zfsLabel = async (guest: Guest) => {
  for (let uberblock = 0; uberblock < 8; uberblock++)
    await bytes(128 * 1024 + uberblock * 1024, Buffer.from('0cb1ba0000000000', 'hex'))(guest)
}

const bcacheMagic = Buffer.from('c68573f64e1a45ca8265f57f48ba6d81', 'hex')

const provocations: readonly Provocation[] = [
  {
    code: 'drive.partition-table',
    name: 'a GPT',
    provoke: run(['sgdisk', '--new=1:2048:4096', link]),
  },
  {
    code: 'drive.partition-table',
    name: 'an empty MBR',
    provoke: (guest) => guest.run(['sfdisk', link], { stdin: 'label: dos\n' }),
  },
  {
    code: 'drive.backup-gpt',
    name: 'only a backup GPT',
    provoke: run(
      ['sgdisk', '--clear', link],
      ['dd', 'if=/dev/zero', `of=${link}`, 'bs=512', 'count=34', 'conv=notrunc', 'status=none'],
    ),
  },
  { code: 'drive.signature', name: 'an LVM physical volume', provoke: run(['pvcreate', link]) },
  { code: 'drive.signature', name: 'md metadata 0.90', provoke: superblock('0.90') },
  { code: 'drive.signature', name: 'md metadata 1.0', provoke: superblock('1.0') },
  { code: 'drive.signature', name: 'md metadata 1.2', provoke: superblock('1.2') },
  {
    code: 'drive.signature',
    name: 'LUKS',
    provoke: (guest) =>
      guest.run(
        [
          'cryptsetup',
          'luksFormat',
          '--batch-mode',
          '--pbkdf=pbkdf2',
          '--pbkdf-force-iterations=1000',
          link,
          '-',
        ],
        {
          stdin: 'x',
        },
      ),
  },
  { code: 'drive.signature', name: 'swap space', provoke: run(['mkswap', link]) },
  { code: 'drive.signature', name: 'ext4', provoke: run(['mkfs.ext4', '-q', link]) },
  { code: 'drive.signature', name: 'btrfs', provoke: run(['mkfs.btrfs', '--quiet', link]) },
  { code: 'drive.signature', name: 'ceph', provoke: bytes(0, 'bluestore block device\n') },
  { code: 'drive.signature', name: 'zfs', provoke: zfsLabel },
  {
    code: 'drive.not-zero',
    name: 'bcache magic in a superblock that is torn',
    provoke: bytes(4096 + 24, bcacheMagic),
  },
  {
    code: 'drive.holder',
    name: 'a device-mapper table that names it',
    provoke: (guest) => guest.run(['dmsetup', 'create', 'somebody'], { stdin: `0 2048 linear ${link} 0\n` }),
  },
  {
    code: 'drive.mounted',
    name: 'mounted here',
    // Read-only, so that the filesystem itself writes nothing while we look.
    provoke: run(['mkfs.ext4', '-q', link], ['mount', '--read-only', link, '/mnt']),
  },
  {
    code: 'drive.mounted-elsewhere',
    name: 'mounted in another mount namespace',
    provoke: async (guest) => {
      await guest.run(['mkfs.ext4', '-q', link])
      const other = await guest.start([
        ...[
          'unshare',
          '--mount',
          'sh',
          '-c',
          `mount --read-only ${link} /mnt && echo mounted && exec sleep 600`,
        ],
      ])
      await other.waitForLine(/mounted/)
    },
  },
  { code: 'drive.swap', name: 'swapped on', provoke: run(['mkswap', link], ['swapon', link]) },
  {
    code: 'drive.named-in-fstab',
    name: 'named in fstab',
    provoke: append('/etc/fstab', `${link} /srv/x ext4 noauto 0 0`),
  },
  {
    code: 'drive.named-in-crypttab',
    name: 'named in crypttab',
    provoke: append('/etc/crypttab', `secret ${link} none luks,noauto`),
  },
  {
    code: 'drive.named-in-mdadm-conf',
    name: 'named in mdadm.conf',
    provoke: append('/etc/mdadm/mdadm.conf', `ARRAY /dev/md9 devices=${link}`),
  },
  {
    code: 'drive.named-in-unit',
    name: 'named in a mount unit',
    provoke: (guest) =>
      guest.writeFile('/etc/systemd/system/srv-x.mount', `[Mount]\nWhat=${link}\nWhere=/srv/x\nType=ext4\n`),
  },
  {
    code: 'drive.used-by-vm',
    name: 'used by a VM',
    provoke: (guest) =>
      guest.writeFile(
        '/etc/libvirt/qemu/web.xml',
        `<domain type='qemu'><name>web</name><devices><disk type='block' device='disk'><source dev='${link}'/><target dev='vda'/></disk></devices></domain>\n`,
      ),
  },
  {
    code: 'drive.busy',
    name: 'opened exclusively by a process',
    provoke: async (guest) => {
      const holder = await guest.start([
        'perl',
        '-e',
        'use Fcntl; sysopen(F, $ARGV[0], O_RDWR|O_EXCL) or die; $| = 1; print "held\\n"; sleep 600',
        link,
      ])
      await holder.waitForLine(/held/)
    },
  },
  { code: 'drive.read-only', name: 'read-only', provoke: run(['blockdev', '--setro', link]) },
  {
    code: 'drive.duplicate-serial',
    name: 'a second drive with the same serial',
    provoke: (guest) => guest.attachDrive({ serial: victim, id: 'twin', sizeBytes, model: 'virtio' }),
    undo: (guest) => guest.detachDrive('twin'),
  },
  { code: 'drive.not-zero', name: 'something in its first MiB', provoke: bytes(700_000, 'x') },
  { code: 'drive.not-zero', name: 'something in its last MiB', provoke: bytes(sizeBytes - 9000, 'x') },
  {
    code: 'drive.not-zero',
    name: 'something in its middle',
    provoke: run([
      'dd',
      'if=/dev/urandom',
      `of=${link}`,
      'bs=1M',
      'seek=50',
      'count=30',
      'conv=notrunc',
      'status=none',
    ]),
  },
  {
    code: 'drive.size-unlike',
    name: 'two per cent smaller than its siblings',
    provoke: async (guest) => {
      await guest.detachDrive(victim)
      await guest.attachDrive({
        serial: victim,
        id: 'small',
        sizeBytes: Math.floor((sizeBytes * 0.98) / 2 ** 20) * 2 ** 20,
        model: 'virtio',
      })
    },
    undo: async (guest) => {
      await guest.detachDrive('small')
      await guest.attachDrive(victim)
    },
  },
  {
    code: 'drive.active',
    name: 'read by somebody',
    provoke: async (guest) => {
      await guest.start([
        'sh',
        '-c',
        `while :; do dd if=${link} of=/dev/null iflag=direct bs=64k count=64 status=none; done`,
      ])
    },
  },
  {
    code: 'drive.udev-busy',
    name: 'udev not settled',
    provoke: run(
      ['udevadm', 'control', '--stop-exec-queue'],
      ['udevadm', 'trigger', '--subsystem-match=block'],
    ),
  },
]

/** One after the other: the guest serves one drive at a time. */
async function hashes(guest: Guest): Promise<readonly string[]> {
  const found: string[] = []
  for (const id of serials) found.push(await guest.driveHash(id))
  return found
}

t.setTimeout(0)

t.test('every refusal: named, and not a byte written', async (t) => {
  const drives: readonly DriveOptions[] = serials.map((serial) => ({ serial, sizeBytes, model: 'virtio' }))
  await using guest = await bootGuest({ prepared: true, snapshots: true, drives })
  await installGarrison(guest)
  await writeDocument(guest, documentOf({ volumes: undefined }))
  await guest.run(['sync'])
  const clean = await garrison(guest, ['plan', '--only', 'array'])
  t.match(clean.lines[0].steps[0], { key: 'array.create', blocked: null }, 'the plan on blank drives')
  await guest.snapshot('planned')

  for (const { code, name, provoke, undo } of provocations) {
    await t.test(`${code}: ${name}`, async (t) => {
      await guest.restore('planned')
      await provoke(guest)
      await guest.run(['sync'])
      const before = await hashes(guest)
      const apply = await garrison(guest, ['apply', '--allow', 'destroys-data', '--only', 'array'])
      t.equal(apply.exit, 3, 'refused')
      t.equal(apply.lines.at(-1).performed, 0)
      t.match(JSON.stringify(apply.lines.at(-1)), victim, 'the drive is named by its serial')
      const answer = await garrison(guest, ['drives'])
      const row = answer.lines[0].drives.find((one: { serial: string }) => one.serial === victim)
      t.ok(
        row?.reasons.some((reason: { code: string }) => reason.code === code),
        `${code} is among ${JSON.stringify(row?.reasons)}`,
      )
      await guest.run(['sync'])
      if (code === 'drive.read-only') await guest.run(['blockdev', '--setrw', link])
      const after = await hashes(guest)
      t.strictSame(after, before, 'not a byte written')
      await undo?.(guest)
    })
  }
  t.comment(`${provocations.length} refusals provoked`)
})
