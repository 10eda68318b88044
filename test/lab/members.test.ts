// Members that fail, are replaced, come back blank, or belong to an array that a person made.
import { open } from 'node:fs/promises'
import t, { type Test } from 'tap'
import { documentOf, garrison, installGarrison, settle, writeDocument } from './garrison.ts'
import { bootGuest, type Guest } from './guest.ts'
import { sample } from './sample.ts'

t.setTimeout(0)

const sizeBytes = 512 * 2 ** 20
const serials = ['LAB0000001', 'LAB0000002', 'LAB0000003'] as const

/** Instance store after a stop: the same drives, blank. */
async function stopAndStart(guest: Guest): Promise<void> {
  await guest.powerOff()
  for (const id of guest.driveIds.slice(1)) {
    await using file = await open(guest.drivePath(id), 'r+')
    const { size } = await file.stat()
    await file.truncate(0)
    await file.truncate(size)
  }
  await guest.powerOn()
}

const codes = async (guest: Guest): Promise<readonly string[]> => {
  const { lines } = await garrison(guest, ['status', '--fresh'])
  return lines[0].resources.flatMap(({ findings }: { findings: { code: string }[] }) =>
    findings.map(({ code }) => code),
  )
}

const arrays = async (guest: Guest): Promise<number> =>
  (await guest.run(['mdadm', '--detail', '--scan'])).stdout
    .split('\n')
    .filter((line) => line.startsWith('ARRAY')).length

const cases: readonly (readonly [string, (t: Test) => Promise<void>])[] = [
  [
    'a member fails while the array resyncs and after; each is replaced without a step of another kind',
    async (t) => {
      await using guest = await bootGuest({
        prepared: true,
        drives: serials.map((serial) => ({ serial, sizeBytes })),
      })
      await installGarrison(guest)
      await writeDocument(guest, documentOf())
      // Slow enough that the resync is still under way when the first member fails.
      await guest.run(['sysctl', '--write', 'dev.raid.speed_limit_max=2000'])
      await settle(guest)
      t.ok((await codes(guest)).includes('array.resyncing'), 'not redundant yet, and it says so')

      // A new array is built onto its last member: only that one can fail now without taking the array along.
      for (const [failed, spare, when] of [
        [serials[2], 'LAB0000011', 'during the resync'],
        [serials[0], 'LAB0000012', 'after it'],
      ] as const)
        await t.test(`${failed} fails ${when}`, async (t) => {
          if (when === 'after it')
            await guest.run(['mdadm', '--wait', '/dev/md/garrison'], { allowFailure: true })
          await guest.failDrive(failed)
          await guest.run([
            'dd',
            'if=/dev/urandom',
            'of=/srv/backup/x',
            'bs=1M',
            'count=8',
            'conv=fsync',
            'status=none',
          ])
          await guest.run(['sync'])
          const seen = await codes(guest)
          t.ok(seen.includes('array.degraded'), `degraded is among ${seen}`)
          const refused = await garrison(guest, ['drives', 'replace', failed, serials[1]])
          t.equal(refused.exit, 3, 'a member cannot take the place of another')
          await guest.attachDrive({ serial: spare, sizeBytes })
          await guest.run(['sysctl', '--write', 'dev.raid.speed_limit_max=200000'])
          const replaced = await garrison(guest, ['drives', 'replace', failed, spare])
          t.equal(replaced.exit, 0, JSON.stringify(replaced.lines.at(-1)))
          await guest.run(['mdadm', '--wait', '/dev/md/garrison'], {
            allowFailure: true,
            deadlineMs: 300_000,
          })
          const after = await codes(guest)
          t.notOk(after.includes('array.degraded'), `not degraded any more: ${after}`)
          t.equal(await arrays(guest), 1)
          await settle(guest)
        })
    },
  ],
  [
    'all drives come back blank: reported by name, made anew only when the document says so',
    async (t) => {
      await using guest = await bootGuest({
        prepared: true,
        drives: serials.map((serial) => ({ serial, sizeBytes })),
      })
      await installGarrison(guest)
      await writeDocument(guest, documentOf())
      await settle(guest)
      await stopAndStart(guest)
      const status = await garrison(guest, ['status', '--fresh'])
      const text = JSON.stringify(status.lines[0])
      t.match(text, /array\.lost/)
      for (const volume of ['images', 'backup']) t.match(text, volume, `${volume} is named as lost`)
      const reported = await garrison(guest, ['apply', '--allow', 'destroys-data'])
      t.equal(reported.exit, 3)
      t.equal(await arrays(guest), 0, 'nothing is made anew by itself')

      await writeDocument(guest, documentOf({ array: { onLoss: 'recreate' } }))
      await settle(guest)
      t.equal(await arrays(guest), 1)
      await guest.run(['mountpoint', '--quiet', '/var/lib/libvirt/images'])

      await t.test('an array that a person made is adopted', async (t) => {
        await guest.run(['rm', '--force', '--', '/etc/garrison/host.yaml'])
        await stopAndStart(guest)
        await guest.run([
          ...['mdadm', '--create', '/dev/md/byhand', '--run', '--level=5', '--raid-devices=3'],
          ...serials.map((serial) => `/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_${serial}`),
        ])
        await guest.run(['sed', '--in-place', '/garrison/d', '/etc/mdadm/mdadm.conf'])
        await writeDocument(guest, documentOf({ array: { onLoss: 'recreate' } }))
        const answer = await settle(guest)
        const keys: string[] = answer.lines
          .filter((line) => line.event === 'step-done')
          .map((line) => line.key)
        t.notOk(
          keys.some((key) => /^array\.(re)?create/.test(key)),
          `no array is made: ${keys}`,
        )
        t.equal(await arrays(guest), 1)
      })
    },
  ],
]

for (const [name, run] of sample(cases, 1)) t.test(name, run)
