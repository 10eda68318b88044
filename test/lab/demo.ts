// `npm run demo`: a lab host from bare to settled, with the package that is built from this tree.
import { readFileSync } from 'node:fs'
import { installGarrison, writeDocument } from './garrison.ts'
import { bootGuest, type Guest } from './guest.ts'
import { runTool } from './processes.ts'
import { ensureOrLeave, packageRequirements, requirements } from './requirements.ts'

const startedMs = performance.now()
const seconds = () => `${((performance.now() - startedMs) / 1000).toFixed(0)} s`.padStart(6)
const say = (line: string) => console.log(`${seconds()}  ${line}`)

/** Shows a verb as an operator sees it, line by line while it runs; an exit that is not expected ends the demo. */
async function show(guest: Guest, words: readonly string[], exits: readonly number[] = [0]): Promise<void> {
  console.log(`\n$ ${words.join(' ')}`)
  const running = await guest.start(words)
  for (const line of running.lines) console.log(line)
  running.on('line', (line) => console.log(line))
  const { exit, stderr } = await running.ended
  if (stderr) console.error(stderr.trimEnd())
  if (!exits.includes(exit)) throw new Error(`${words.join(' ')} ended with ${exit}`)
}

await ensureOrLeave(say, [...packageRequirements, ...requirements])
say('building the package (dist/)')
await runTool([process.execPath, 'packaging/build.ts'], { deadlineMs: 600_000, onLine: say })
say('booting the lab host: a root drive that is not filled, and three blank NVMe drives')
await using guest = await bootGuest({ progress: say })
say('installing the package')
await installGarrison(guest)
await writeDocument(guest, readFileSync('packaging/host.yaml', 'utf8'))

await show(guest, ['garrison', 'drives'])
await show(guest, ['garrison', 'plan'], [2])
await show(guest, ['garrison', 'apply'])
say('rebooting')
await guest.reboot()
await show(guest, ['garrison', 'status'])
say('done; the lab host is shut down. To keep one: node test/lab/shell.ts')
