// Every refusal that a guest can have, provoked for real between a clean plan and the apply: refused, named, nothing written.
import t, { type Test } from 'tap'
import { documentOf, garrison, installGarrison, startApply, writeDocument } from './garrison.ts'
import { bootGuest, type DriveOptions, type Guest } from './guest.ts'
import { sample, seed } from './sample.ts'

const sizeBytes = 128 * 2 ** 20
const serials = ['LAB0000001', 'LAB0000002', 'LAB0000003'] as const
const [victim] = serials
const link = `/dev/disk/by-id/virtio-${victim}`

/** What is done to the host, and the refusal that must name it. */
interface Provocation {
  readonly code: string
  readonly name: string
  /** The serial or kernel name of the drive that is refused; `victim` by default. */
  readonly drive?: string
  /** The code with which the whole apply is refused, before any drive is looked at. */
  readonly whole?: string
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
      await guest.run(['mkdir', '/run/other'])
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
    provoke: (guest) =>
      replaceVictim(guest, { id: 'small', sizeBytes: Math.floor((sizeBytes * 0.98) / 2 ** 20) * 2 ** 20 }),
    undo: (guest) => bringVictimBack(guest, 'small'),
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
  {
    code: 'drive.removable',
    name: 'with a medium that can be taken out',
    provoke: (guest) => replaceVictim(guest, { id: 'stick', removable: true }),
    undo: (guest) => bringVictimBack(guest, 'stick'),
  },
  {
    code: 'drive.loop',
    name: 'a loop device in the place of a drive',
    drive: 'loop0',
    provoke: async (guest) => {
      await guest.detachDrive(victim)
      await guest.run(['truncate', `--size=${sizeBytes}`, '/var/tmp/drive'])
      await guest.run(['losetup', '/dev/loop0', '/var/tmp/drive'])
    },
    undo: (guest) => guest.attachDrive(victim),
  },
  {
    code: 'drive.other-instance',
    name: 'a document for another host',
    whole: 'plan.other-instance',
    provoke: (guest) =>
      guest.writeFile('/etc/garrison/host.d/host.yaml', 'host: { instance: i-0123456789abcdef0 }\n'),
  },
  {
    code: 'drive.unfinished-apply',
    name: 'an apply of another plan that was killed in the middle',
    provoke: async (guest) => {
      await writeDocument(guest, documentOf({ volumes: undefined, array: { name: 'other' } }))
      await applyThatHangs(guest)
      await killRootSide(guest)
      await guest.run(['mv', '/usr/sbin/mdadm.real', '/usr/sbin/mdadm'])
      await writeDocument(guest, documentOf({ volumes: undefined }))
    },
  },
]

/** Puts another drive with the same serial into the place of the victim. */
async function replaceVictim(guest: Guest, other: Partial<DriveOptions> & { id: string }): Promise<void> {
  await guest.detachDrive(victim)
  await guest.attachDrive({ serial: victim, sizeBytes, ...other })
}

async function bringVictimBack(guest: Guest, other: string): Promise<void> {
  await guest.detachDrive(other)
  await guest.attachDrive(victim)
}

/** Starts an apply that comes as far as `mdadm --create` and no further; nothing is written to the drives. */
async function applyThatHangs(guest: Guest): Promise<void> {
  await guest.run(['mv', '/usr/sbin/mdadm', '/usr/sbin/mdadm.real'])
  await guest.writeFile(
    '/usr/sbin/mdadm',
    '#!/bin/sh\ncase "$*" in *--create*) touch /run/hangs; exec sleep 3600 ;; esac\nexec mdadm.real "$@"\n',
  )
  await guest.run(['chmod', '755', '/usr/sbin/mdadm'])
  await startApply(guest, ['--only', 'array'])
  await guest.run(['timeout', '120', 'sh', '-c', 'until test -e /run/hangs; do sleep 0.2; done'])
}

const killRootSide = run(['systemctl', 'kill', '--signal=KILL', 'garrison-operate.service'])

/** One after the other: the guest serves one drive at a time. */
async function hashes(guest: Guest): Promise<readonly string[]> {
  const found: string[] = []
  for (const id of serials) found.push(await guest.driveHash(id))
  return found
}

/** Applies, and shows that the drive was refused for this reason and that no drive has changed by a byte. */
async function refuses(
  t: Test,
  guest: Guest,
  { code, whole, drive = victim }: Pick<Provocation, 'code' | 'drive' | 'whole'>,
): Promise<void> {
  await guest.run(['sync'])
  const before = await hashes(guest)
  const apply = await garrison(guest, ['apply', '--allow', 'destroys-data', '--only', 'array'])
  t.equal(apply.exit, 3, 'refused')
  if (whole === undefined) {
    t.equal(apply.lines.at(-1).performed, 0)
    t.match(JSON.stringify(apply.lines.at(-1)), drive, 'the drive is named')
  } else t.equal(apply.lines.at(-1).code, whole)
  const answer = await garrison(guest, ['drives'])
  const row = answer.lines[0].drives.find(
    (one: { serial: string | null; name: string }) => one.serial === drive || one.name === drive,
  )
  t.ok(
    row?.reasons.some((reason: { code: string }) => reason.code === code),
    `${code} is among ${JSON.stringify(row?.reasons)}`,
  )
  await guest.run(['sync'])
  if (code === 'drive.read-only') await guest.run(['blockdev', '--setrw', link])
  t.strictSame(await hashes(guest), before, 'not a byte written')
}

t.setTimeout(0)

t.test('every refusal: named, and not a byte written', async (t) => {
  const drives: readonly DriveOptions[] = serials.map((serial) => ({ serial, sizeBytes }))
  await using guest = await bootGuest({ prepared: true, snapshots: true, drives })
  await installGarrison(guest)
  await writeDocument(guest, documentOf({ volumes: undefined }))
  await guest.run(['sync'])
  const clean = await garrison(guest, ['plan', '--only', 'array'])
  t.match(clean.lines[0].steps[0], { key: 'array.create', blocked: null }, 'the plan on blank drives')
  await guest.snapshot('planned')

  for (const provocation of sample(provocations, 12)) {
    await t.test(`${provocation.code}: ${provocation.name}`, async (t) => {
      await guest.restore('planned')
      await provocation.provoke(guest)
      await refuses(t, guest, provocation)
      await provocation.undo?.(guest)
    })
  }
  t.comment(`${provocations.length} provocations, seed ${seed}`)

  await t.test('another apply holds the lock', async (t) => {
    await guest.restore('planned')
    await applyThatHangs(guest)
    const before = await hashes(guest)
    const apply = await garrison(guest, ['apply', '--only', 'array'])
    t.equal(apply.exit, 3, 'refused')
    t.match(
      apply.lines.at(-1),
      { code: 'apply.locked', message: /says root over ssh/ },
      'the holder is named',
    )
    // The holder's own look does not count its own lock; that of another root side does.
    await guest.run(['mkdir', '/run/other'])
    const other = await guest.start(['garrison', 'operate', '--sockets', '/run/other'])
    await other.waitForLine(/./)
    const seen = await garrison(guest, ['drives', '--socket', '/run/other/admin.sock'])
    const codes = seen.lines[0].drives
      .filter(({ serial }: { serial: string }) => (serials as readonly string[]).includes(serial))
      .map(({ reasons }: { reasons: { code: string }[] }) => reasons.map(({ code }) => code))
    t.equal(codes.length, serials.length)
    for (const of of codes) t.ok(of.includes('drive.locked-apply'), `drive.locked-apply is among ${of}`)
    t.strictSame(await hashes(guest), before, 'not a byte written')
  })
})

/** What a person may do in the moment between the agent's plan and its first write, as a script of sh; the bytes that it writes. */
const moments = [
  {
    name: 'a signature',
    script: `printf 'bluestore block device\\n' | dd of=${link} conv=notrunc,fsync`,
    bytesAt: [0],
  },
  {
    name: 'a byte',
    script: `printf x | dd of=${link} bs=1 seek=700000 conv=notrunc,fsync`,
    bytesAt: [700_000],
  },
  { name: 'a line in fstab', script: `echo '${link} /srv/x ext4 noauto 0 0' >> /etc/fstab`, bytesAt: [] },
] as const

t.test('what appears after the plan, while the drives are held for the first write', async (t) => {
  const drives: readonly DriveOptions[] = serials.map((serial) => ({ serial, sizeBytes }))
  await using guest = await bootGuest({ prepared: true, snapshots: true, drives })
  await installGarrison(guest)
  await writeDocument(guest, documentOf({ volumes: undefined }))
  // The agent asks lsblk in every look. The first look at drives that cannot be had exclusively is the one before the first write.
  await guest.run(['mv', '/usr/bin/lsblk', '/usr/bin/lsblk.real'])
  await guest.writeFile(
    '/usr/bin/lsblk',
    `#!/bin/sh
if test ! -e /run/provoked && ! perl -e 'use Fcntl; exit !sysopen(F, "${link}", O_RDONLY|O_EXCL)'; then
  sh /root/provoke >/run/provoked 2>&1
fi
exec lsblk.real "$@"
`,
  )
  await guest.run(['chmod', '755', '/usr/bin/lsblk'])
  await guest.run(['sync'])
  await guest.snapshot('planned')
  for (const { name, script, bytesAt } of sample<(typeof moments)[number]>(moments, 1))
    await t.test(name, async (t) => {
      await guest.restore('planned')
      await guest.writeFile('/root/provoke', script)
      const apply = await garrison(guest, ['apply', '--allow', 'destroys-data', '--only', 'array'])
      await guest.run(['test', '-e', '/run/provoked'])
      t.equal(apply.exit, 3, 'refused')
      t.equal(apply.lines.at(-1).performed, 0)
      const [problem] = apply.lines.at(-1).problems
      t.equal(problem?.code, 'plan.changed')
      t.match(problem?.message, victim, 'the drive is named')
      await guest.run(['sync'])
      for (const serial of serials) {
        const { nonZero } = await guest.driveContent(serial)
        const expected = serial === victim ? bytesAt.map((at) => Math.floor(at / 4096) * 4096) : []
        t.strictSame(
          nonZero.map(({ offset }) => offset),
          expected,
          `${serial} holds what was provoked and nothing else`,
        )
      }
    })
})

t.test('what only an NVMe drive can be', async (t) => {
  const zones = 'LABZONES01'
  const drives: readonly DriveOptions[] = [
    ...serials.map((serial) => ({ serial, sizeBytes })),
    { serial: zones, sizeBytes, zoned: true },
  ]
  await using guest = await bootGuest({ prepared: true, drives })
  await installGarrison(guest)
  await writeDocument(guest, documentOf({ volumes: undefined }))
  const clean = await garrison(guest, ['plan', '--only', 'array'])
  t.match(clean.lines[0].steps[0], { key: 'array.create', blocked: null }, 'the plan on blank drives')

  await t.test('drive.unwell: its health log warns', async (t) => {
    await guest.warnOfDrive(victim, 0b1000)
    await refuses(t, guest, { code: 'drive.unwell' })
    await guest.warnOfDrive(victim, 0)
  })
  await t.test('drive.zoned: a drive of zones, asked for by its serial', async (t) => {
    const members = [...serials.slice(1), zones].map((serial) => ({ serial }))
    await writeDocument(guest, documentOf({ volumes: undefined, array: { members } }))
    await refuses(t, guest, { code: 'drive.zoned', drive: zones })
  })
})
