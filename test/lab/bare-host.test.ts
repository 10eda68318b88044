// Bare to settled on NVMe drives, with packages from apt: a second apply does nothing, and a reboot changes nothing.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { garrison, installGarrison, settle, shapeOf, writeDocument } from './garrison.ts'
import { bootGuest, defaultDrives } from './guest.ts'

t.setTimeout(0)

t.test(
  'a bare host is settled by the shipped document, stays so over a reboot, and keeps what is not its own',
  async (t) => {
    await using guest = await bootGuest({
      layout: 'ext4',
      drives: [...defaultDrives, { serial: 'LABKEEP001', sizeBytes: 2 ** 30 }],
    })
    // Somebody's data, on a drive that the document does not name.
    const [keep] = (
      await guest.run(['readlink', '--canonicalize', '/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_LABKEEP001'])
    ).stdout.split('\n')
    await guest.run(['mkfs.ext4', '-q', keep as string])
    await guest.run(['sync'])
    const kept = await guest.driveHash('LABKEEP001')
    await installGarrison(guest)
    await writeDocument(guest, readFileSync('packaging/host.yaml', 'utf8'))

    const plan = await garrison(guest, ['plan'])
    t.equal(plan.exit, 2, 'a bare host has drifted')
    const answer = await settle(guest)
    const done = answer.lines.filter((line) => line.event === 'step-done')
    const ids = done.map((line) => line.key.split(' ')[0])
    for (const id of ['software.install', 'root.partition', 'array.create', 'volumes.group', 'volumes.mount'])
      t.ok(ids.includes(id), `${id} was performed`)
    const last = answer.lines.at(-1)
    const toolsMs = done.reduce((sum, line) => sum + line.actionsMs, 0)
    t.comment(`apply ${last.durationMs} ms, its tools ${toolsMs} ms, ${done.length} steps`)
    for (const line of done) t.comment(`  ${line.key}: ${line.durationMs} ms, tools ${line.actionsMs} ms`)

    const again = await settle(guest)
    t.equal(again.lines.at(-1).performed, 0, 'a second apply does nothing')

    const before = await shapeOf(guest)
    await guest.reboot()
    t.strictSame(await shapeOf(guest), before, 'the same array under its own name, the same mounts')
    const status = await garrison(guest, ['status', '--fresh'])
    t.equal(status.lines[0].standing, 'settled')
    t.equal(status.exit, 0)
    const link = await guest.run(['readlink', '--canonicalize', '/dev/md/garrison'])
    t.match(link.stdout, /^\/dev\/md\d+\n$/)
    const root = await guest.run(['df', '--output=size', '--block-size=1', '/'])
    t.ok(Number(root.stdout.split('\n')[1]) > 7 * 2 ** 30, 'root fills its 8 GiB drive')
    await guest.run(['sync'])
    t.equal(await guest.driveHash('LABKEEP001'), kept, 'not a byte of the other drive has changed')
  },
)
