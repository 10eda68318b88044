// `node test/lab/shell.ts [ext4|xfs-lvm|btrfs] [--prepared] [--snapshots]`: boots a guest for a person and says how to reach it.
import { parseArgs } from 'node:util'
import { bootGuest } from './guest.ts'
import { layouts } from './image.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prepared: { type: 'boolean', default: false }, snapshots: { type: 'boolean', default: false } },
})
const wanted = positionals[0] ?? 'ext4'
const layout = layouts.find((one) => one === wanted)
if (!layout) throw new Error(`no layout ${wanted}; there are ${layouts.join(', ')}`)

const began = performance.now()
const guest = await bootGuest({ layout, ...values })
process.stdout.write(`up after ${Math.round((performance.now() - began) / 1000)} s; reach it with\n\n`)
process.stdout.write(`  ${guest.sshCommand.join(' ')}\n\nCtrl-C ends it and forgets its drives.\n`)
process.once('SIGINT', () => {
  guest.close().finally(() => process.exit(0))
})
