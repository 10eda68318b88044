// Root grown to its drive in each layout while it is in use, and left alone where something is in the way.
import t from 'tap'
import { garrison, installGarrison, settle, writeDocument } from './garrison.ts'
import { bootGuest, type Guest } from './guest.ts'
import { sample } from './sample.ts'

t.setTimeout(0)

const document = JSON.stringify({ version: 1, root: {} })

const rootBytes = async (guest: Guest): Promise<number> =>
  Number((await guest.run(['df', '--output=size', '--block-size=1', '/'])).stdout.split('\n')[1])

for (const layout of sample(['xfs-lvm', 'btrfs'] as const, 1)) {
  t.test(`${layout}: / fills its drive, and a second apply does nothing`, async (t) => {
    await using guest = await bootGuest({ layout, drives: [] })
    await installGarrison(guest)
    await writeDocument(guest, document)
    const before = await rootBytes(guest)
    const answer = await settle(guest)
    t.ok(answer.lines.at(-1).performed > 0)
    const after = await rootBytes(guest)
    t.ok(after > 6.5 * 2 ** 30, `${before} bytes have become ${after} of an 8 GiB drive`)
    t.equal((await settle(guest)).lines.at(-1).performed, 0)
    const warnings = await guest.run(['sfdisk', '--verify', '/dev/nvme0n1'], { allowFailure: true })
    t.notMatch(warnings.stderr, /backup|PMBR/i, 'the partition table is whole')
    await guest.reboot()
    t.equal(await rootBytes(guest), after, 'the same after a reboot')
    t.equal((await garrison(guest, ['plan'])).exit, 0)
  })
}

t.test('another partition behind root is in the way; without it root grows, in an MBR too', async (t) => {
  await using guest = await bootGuest({ layout: 'ext4', drives: [] })
  await installGarrison(guest)
  await writeDocument(guest, document)
  await guest.run(['sfdisk', '--append', '--force', '--no-reread', '/dev/nvme0n1'], {
    stdin: 'size=64MiB\n',
    allowFailure: true,
  })
  await guest.run(['partx', '--update', '/dev/nvme0n1'])
  const table = (await guest.run(['sfdisk', '--dump', '/dev/nvme0n1'])).stdout
  const answer = await garrison(guest, ['apply', '--allow', 'destroys-data'])
  t.equal(answer.exit, 3)
  const [left] = answer.lines.at(-1).left
  t.equal(left?.reason, 'blocked')
  t.match(left?.text, /behind|after/)
  t.equal((await guest.run(['sfdisk', '--dump', '/dev/nvme0n1'])).stdout, table)

  const parts = [...table.matchAll(/^\/dev\/nvme0n1p(\d+) : start= *(\d+)/gm)]
    .toSorted(([, , a], [, , b]) => Number(a) - Number(b))
    .map(([, number]) => number)
  await guest.run(['sfdisk', '--delete', '--force', '--no-reread', '/dev/nvme0n1', `${parts.at(-1)}`])
  // udev may have told the kernel already, for which partx fails.
  await guest.run(['partx', '--delete', '--nr', `${parts.at(-1)}`, '/dev/nvme0n1'], { allowFailure: true })
  t.equal((await guest.run(['lsblk', `/dev/nvme0n1p${parts.at(-1)}`], { allowFailure: true })).exit, 32)
  await guest.run(['apt-get', 'install', '--yes', '--no-install-recommends', 'gdisk'])
  await guest.run(['sgdisk', `--gpttombr=${parts.slice(0, -1).toSorted().join(':')}`, '/dev/nvme0n1'])
  t.match((await guest.run(['sfdisk', '--dump', '/dev/nvme0n1'])).stdout, /^label: dos$/m)
  const before = await rootBytes(guest)
  t.ok((await settle(guest)).lines.at(-1).performed > 0)
  const after = await rootBytes(guest)
  t.ok(after > 6.5 * 2 ** 30, `${before} bytes have become ${after} of an 8 GiB drive`)
  t.equal((await settle(guest)).lines.at(-1).performed, 0)
  // No reboot: the boot loader of this image was installed on a GPT.
  t.match((await guest.run(['sfdisk', '--verify', '/dev/nvme0n1'])).stdout, /No errors/)
})
