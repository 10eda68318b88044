// Disk full, read-only and I/O errors under the journal and a configuration file: refused before the host is touched.
import t from 'tap'
import { documentOf, garrison, installGarrison, settle, writeDocument } from './garrison.ts'
import { bootGuest, type Guest } from './guest.ts'

t.setTimeout(0)

const sizeBytes = 128 * 2 ** 20
const folder = '/var/lib/garrison'

/** Puts a filesystem of its own under the journal, on a device-mapper table that can be made to fail. */
async function ownFilesystem(guest: Guest): Promise<void> {
  await guest.run(['truncate', '--size=32M', '/var/tmp/journal.img'])
  const loop = (await guest.run(['losetup', '--find', '--show', '/var/tmp/journal.img'])).stdout.trim()
  await guest.run(['dmsetup', 'create', 'journal'], { stdin: `0 65536 linear ${loop} 0\n` })
  await guest.run(['mkfs.ext4', '-q', '/dev/mapper/journal'])
  await guest.run(['systemctl', 'stop', 'garrison-operate.service'])
  await guest.run(['mkdir', '--parents', folder])
  await guest.run(['mount', '/dev/mapper/journal', folder])
}

const troubles: Readonly<Record<string, (guest: Guest) => Promise<unknown>>> = {
  'the disk is full': (guest) => guest.fillFilesystem(folder),
  'the filesystem is read-only': (guest) => guest.run(['mount', '--options', 'remount,ro', folder]),
  'the drive answers with errors': async (guest) => {
    await guest.run(['dmsetup', 'suspend', '--noflush', 'journal'])
    await guest.run(['dmsetup', 'load', 'journal'], { stdin: '0 65536 error\n' })
    await guest.run(['dmsetup', 'resume', 'journal'])
  },
}

t.test('what cannot be written down is not done', async (t) => {
  await using guest = await bootGuest({
    prepared: true,
    snapshots: true,
    drives: ['LAB0000001', 'LAB0000002', 'LAB0000003'].map((serial) => ({
      serial,
      sizeBytes,
      model: 'virtio',
    })),
  })
  await installGarrison(guest)
  await writeDocument(guest, documentOf({ volumes: undefined }))
  await ownFilesystem(guest)
  await guest.run(['sync'])
  await guest.snapshot('own')
  const hashes = async () => {
    const found: string[] = []
    for (const id of guest.driveIds.slice(1)) found.push(await guest.driveHash(id))
    return found
  }
  const blank = await hashes()

  for (const [name, trouble] of Object.entries(troubles)) {
    await t.test(name, async (t) => {
      await guest.restore('own')
      await trouble(guest)
      const answer = await garrison(guest, ['apply'])
      t.equal(answer.exit, 1)
      t.match(JSON.stringify(answer.lines), /"journal\.unwritable"/)
      t.equal((await guest.run(['mdadm', '--detail', '--scan'])).stdout, '', 'no array was begun')
      await guest.run(['sync'], { allowFailure: true })
      t.strictSame(await hashes(), blank, 'not a byte written to any drive')
    })
  }

  await t.test('a configuration file on a full filesystem keeps its last good content', async (t) => {
    await guest.restore('own')
    const before = (await guest.run(['cat', '/etc/mdadm/mdadm.conf'])).stdout
    await guest.run(['cp', '--archive', '/etc/mdadm', '/var/tmp/mdadm'])
    await guest.run(['mount', '--types', 'tmpfs', '--options', 'size=64k', 'full', '/etc/mdadm'])
    await guest.run(['cp', '--archive', '/var/tmp/mdadm/.', '/etc/mdadm'])
    const filler = await guest.fillFilesystem('/etc/mdadm')
    const answer = await garrison(guest, ['apply'])
    t.equal(answer.exit, 1)
    t.match(JSON.stringify(answer.lines.at(-1)), /"file\.no-space"/)
    t.equal((await guest.run(['cat', '/etc/mdadm/mdadm.conf'])).stdout, before)
    t.strictSame(
      (await guest.run(['ls', '--almost-all', '/etc/mdadm'])).stdout
        .split('\n')
        .filter((one) => /\.tmp|~/.test(one)),
      [],
      'no half-written file is left',
    )
    await guest.run(['rm', '--', filler])
    await settle(guest)
  })
})
