// Network namespaces for tests: made under a name of their own, commands run in them, all gone at the end. Needs root.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'

const ip = (...args: readonly string[]): string =>
  execFileSync('/usr/sbin/ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })

/** A namespace that tests run commands in. */
export interface Namespace {
  readonly name: string
  /** Runs `ip` in it. */
  ip(...args: readonly string[]): string
  /** Runs a program in it; never throws for how it ended. */
  run(argv: readonly string[]): { exit: number; stdout: string; stderr: string }
  /** Starts a program and waits for its first output; it ends with the namespace. */
  start(argv: readonly string[], says?: 'stdout' | 'stderr'): Promise<void>
}

/** Makes namespaces for one test file; `close` takes them and what runs in them away. */
export function namespaces() {
  const made: string[] = []
  const started: ReturnType<typeof spawn>[] = []
  return {
    make(label: string): Namespace {
      const name = `garrison-${process.pid}-${label}`
      ip('netns', 'add', name)
      made.push(name)
      const within = (argv: readonly string[]) => ['netns', 'exec', name, ...argv]
      ip('-n', name, 'link', 'set', 'lo', 'up')
      return {
        name,
        ip: (...args) => ip('-n', name, ...args),
        run(argv) {
          const { status, stdout, stderr } = spawnSync('/usr/sbin/ip', within(argv), {
            encoding: 'utf8',
          })
          return { exit: status ?? -1, stdout, stderr }
        },
        async start(argv, says = 'stdout') {
          const child = spawn('/usr/sbin/ip', within(argv), {
            stdio: ['ignore', 'pipe', says === 'stderr' ? 'pipe' : 'inherit'],
          })
          started.push(child)
          const ended = once(child, 'exit').then(([exit]) => {
            throw new Error(`${argv.join(' ')}: ended with ${exit}`)
          })
          await Promise.race([once(child[says] as Readable, 'data'), ended])
          ended.catch(() => {})
          child[says]?.resume()
        },
      }
    },
    async close(): Promise<void> {
      for (const child of started) {
        if (child.exitCode !== null || child.signalCode !== null) continue
        const exited = once(child, 'exit')
        child.kill('SIGKILL')
        await exited
      }
      for (const name of made) ip('netns', 'delete', name)
    },
  }
}

/** Joins two namespaces by a cable. */
export function cable(
  one: Namespace,
  oneName: string,
  other: Namespace,
  otherName: string,
  mac?: string,
): void {
  one.ip(
    'link',
    'add',
    oneName,
    ...(mac === undefined ? [] : ['address', mac]),
    'type',
    'veth',
    'peer',
    'name',
    otherName,
    'netns',
    other.name,
  )
  one.ip('link', 'set', oneName, 'up')
  other.ip('link', 'set', otherName, 'up')
}

/** A program that takes TCP connections, and answers UDP, on ports of every address. */
export const listening = (tcp: readonly number[], udp: readonly number[] = []): readonly string[] => [
  process.execPath,
  '-e',
  `let left = ${tcp.length + udp.length}
   const ready = () => { if (--left === 0) console.log('ready') }
   for (const port of ${JSON.stringify(tcp)})
     require('net').createServer((socket) => socket.on('error', () => socket.destroy()).end('hello')).listen(port, '::', ready)
   for (const port of ${JSON.stringify(udp)}) {
     const socket = require('dgram').createSocket('udp6')
     socket.on('message', (text, { address, port }) => socket.send(text, port, address)).bind(port, ready)
   }`,
]

const tryTcp = `const [, host, port, from] = process.argv
  const socket = require('net').connect({ host, port, ...(from ? { localAddress: from } : {}) })
  const end = (word) => { console.log(word); process.exit() }
  socket.on('connect', () => end('open')).on('error', (error) => end(error.code))
  setTimeout(end, 700, 'silent')`

const tryUdp = `const [, host, port] = process.argv
  const socket = require('dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4')
  const end = (word) => { console.log(word); process.exit() }
  socket.on('message', () => end('open')).on('error', (error) => end(error.code))
  socket.send('x', port, host)
  setTimeout(end, 700, 'silent')`

/** How a connection fares: `open`, `silent` when nothing comes back, or an errno. */
export const attempt = (
  from: Namespace,
  kind: 'tcp' | 'udp',
  host: string,
  port: number,
  source = '',
): string =>
  from
    .run([
      process.execPath,
      '-e',
      kind === 'tcp' ? tryTcp : tryUdp,
      host,
      `${port}`,
      ...(source === '' ? [] : [source]),
    ])
    .stdout.trim()
