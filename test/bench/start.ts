// How long `garrison status --json` takes as a whole process beside `node -e 0` of the same runtime (DESIGN 7: at most 1.25 x).
//
//   node test/bench/start.ts [ROUNDS]     needs dist/garrison (npm run package)

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const repository = join(import.meta.dirname, '../..')
const executable = process.env.GARRISON ?? join(repository, 'dist/garrison')
const rounds = Number(process.argv[2] ?? 20)
const folder = mkdtempSync(join(tmpdir(), 'garrison-bench-'))
mkdirSync(join(folder, 'etc/garrison'), { recursive: true })
cpSync(join(repository, 'packaging/host.yaml'), join(folder, 'etc/garrison/host.yaml'))

const rootSide = spawn(executable, ['operate', '--sockets', folder, '--root', folder], {
  stdio: ['ignore', 'pipe', 'inherit'],
})
await once(rootSide.stdout, 'data')

const socket = ['--socket', join(folder, 'read.sock')]
const cases = {
  'node -e 0': [process.execPath, '-e', '0'],
  'garrison version': [executable, 'version'],
  'garrison status': [executable, 'status', ...socket],
  'garrison status --json': [executable, 'status', '--json', ...socket],
} as const

const took: Record<string, number[]> = Object.fromEntries(Object.keys(cases).map((name) => [name, []]))
for (let round = 0; round < rounds; round++) {
  // Outside of what is measured: an observation is only shown again for ten seconds.
  spawnSync(executable, ['status', '--json', ...socket])
  for (const [name, [program, ...args]] of Object.entries(cases)) {
    const startedMs = performance.now()
    spawnSync(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    took[name]?.push(performance.now() - startedMs)
  }
}
rootSide.kill('SIGTERM')
await once(rootSide, 'exit')
rmSync(folder, { recursive: true })

const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN
const base = took['node -e 0'] ?? []
for (const [name, numbers] of Object.entries(took)) {
  const ratio = (of: (numbers: readonly number[]) => number) => (of(numbers) / of(base)).toFixed(2)
  const least = (all: readonly number[]) => Math.min(...all)
  console.log(
    `${name.padEnd(24)} median ${median(numbers).toFixed(1)} ms (${ratio(median)} x)   ` +
      `least ${least(numbers).toFixed(1)} ms (${ratio(least)} x)`,
  )
}
