// moto, a server that behaves as the APIs of AWS do: its own venv with pinned packages, made once for a user and kept.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** A server that runs. Every service is at one endpoint; credentials may be anything. */
export interface Moto {
  readonly endpoint: string
  stop(): Promise<void>
}

const requirements = join(import.meta.dirname, 'moto-requirements.txt')
const python = '/usr/bin/python3'

/** The folder of the venv; another list of packages is another folder. Throws with what pip says when it cannot be made. */
function venv(): string {
  const digest = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 16)
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'garrison-test')
  const folder = join(cache, `moto-${digest}`)
  if (existsSync(join(folder, 'ready'))) return folder
  mkdirSync(cache, { recursive: true })
  // Scripts in a venv name its folder, so it is made where it stays; another run may be making it too.
  const making = `${folder}.${process.pid}`
  const run = (program: string, ...args: readonly string[]): void =>
    void execFileSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  try {
    run(python, '-m', 'venv', making)
    run(
      join(making, 'bin/python'),
      '-m',
      'pip',
      'install',
      '--quiet',
      '--only-binary=:all:',
      '--require-hashes',
      '-r',
      requirements,
    )
    mkdirSync(join(making, 'ready'))
    if (!existsSync(folder)) renameSync(making, folder)
  } finally {
    rmSync(making, { recursive: true, force: true })
  }
  return folder
}

/** A port of loopback that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

const startMs = 120_000

/** Starts moto on loopback; it ends with this process. */
export async function startMoto(): Promise<Moto> {
  const port = await freePort()
  const endpoint = `http://127.0.0.1:${port}`
  // By the interpreter: the scripts of a venv that was renamed name its former folder.
  const child: ChildProcess = spawn(
    '/usr/bin/setpriv',
    [
      '--pdeathsig',
      'KILL',
      join(venv(), 'bin/python'),
      ...['-c', 'from moto.server import main; main()', '-H', '127.0.0.1', '-p', String(port)],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said = `${said}${chunk}`.slice(-2000)
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const untilMs = performance.now() + startMs
  for (;;) {
    if (child.exitCode !== null) throw new Error(`moto ended: ${said}`)
    const isThere = await fetch(`${endpoint}/moto-api/`).then(
      ({ ok }) => ok,
      () => false,
    )
    if (isThere) break
    if (performance.now() > untilMs) throw new Error(`moto does not answer: ${said}`)
    await sleep(100)
  }
  return {
    endpoint,
    async stop() {
      child.kill('SIGKILL')
      await ended
    },
  }
}
