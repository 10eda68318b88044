// A real libvirtd of a test's own: its sockets, configuration, guests and records are below one short folder, and nobody else's.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** A libvirtd that runs, or has been killed and can be started again over what it left. */
export interface Libvirtd {
  /** Where everything of it is; tests may put disks there. */
  readonly folder: string
  /** The socket with all rights. */
  readonly socketPath: string
  /** The socket that is only for reading. */
  readonly readOnlySocketPath: string
  /** The process; another one after each start. */
  readonly pid: number
  /** Sends a signal to libvirtd alone. After SIGKILL and SIGTERM resolves when it is gone; its guests live on. */
  signal(name: NodeJS.Signals): Promise<void>
  /** Starts libvirtd again after it was killed; resolves when it listens. */
  start(): Promise<void>
  /** Ends the guests and libvirtd, and removes the folder. */
  stop(): Promise<void>
}

/** What is to be special about a libvirtd. */
export interface LibvirtdOptions {
  /** A network namespace of its own, where it can make bridges. */
  readonly network?: boolean
  /** Makes it a host of its own, to and from which others migrate. */
  readonly hostUuid?: string
  /** Another one, from which it takes over what that has learned of QEMU: its first guest is then 5 s sooner there. */
  readonly like?: Libvirtd
}

/** What of the host is replaced by folders of its own, in a mount namespace that only it is in. */
const places: Readonly<Record<string, string>> = {
  run: '/run/libvirt',
  records: '/var/lib/libvirt',
  cache: '/var/cache/libvirt',
  log: '/var/log/libvirt',
  conf: '/etc/libvirt',
}

const configuration = {
  'libvirtd.conf': [
    'auth_unix_ro = "none"',
    'auth_unix_rw = "none"',
    'unix_sock_rw_perms = "0700"',
    'unix_sock_ro_perms = "0777"',
    'log_outputs = "3:stderr"',
  ],
  // Guests as root and without cgroups, security labels and namespaces: the machine may be a container.
  'qemu.conf': [
    'user = "root"',
    'group = "root"',
    'dynamic_ownership = 0',
    'remember_owner = 0',
    'security_driver = "none"',
    'cgroup_controllers = []',
    'namespaces = []',
    'stdio_handler = "file"',
  ],
}

const script = (mounts: readonly string[]) =>
  [
    ...mounts.map((name) => `mount --bind "$1/${name}" ${places[name]}`),
    'exec setpriv --pdeathsig TERM -- /usr/sbin/libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$1/pid"',
  ].join('\n')

/** Waits until nobody holds its standard input any more; then ends libvirtd, the guests and dnsmasq of a folder, and takes that away. */
const ending = `cat > /dev/null
for file in "$1"/pid "$1"/run/qemu/*.pid "$1"/run/network/*.pid; do
  if [ -e "$file" ] && pid=$(cat "$file") && grep -qsE "qemu|libvirtd|dnsmasq" /proc/$pid/comm; then kill -KILL $pid || :; fi
done
until rm -rf "$1"; do sleep 0.1; done`

/**
 * Starts a private libvirtd with the QEMU, test, network, storage, secret, node device, interface and filter drivers. Needs
 * root, `libvirt-daemon-system` and `libvirt-daemon-driver-qemu`. Throws with what it wrote when it does not listen within 20 s.
 */
export async function startLibvirtd({
  network = false,
  hostUuid = '',
  like,
}: LibvirtdOptions = {}): Promise<Libvirtd> {
  const folder = mkdtempSync(join(tmpdir(), 'lv-'))
  const mounts = Object.keys(places)
  for (const name of mounts) {
    mkdirSync(join(folder, name), { recursive: true })
    mkdirSync(places[name] as string, { recursive: true })
  }
  for (const [name, lines] of Object.entries(configuration))
    writeFileSync(join(folder, 'conf', name), `${lines.join('\n')}\n`)
  if (hostUuid !== '') appendFileSync(join(folder, 'conf/libvirtd.conf'), `host_uuid = "${hostUuid}"\n`)
  if (like !== undefined)
    cpSync(join(like.folder, 'cache'), join(folder, 'cache'), { recursive: true, preserveTimestamps: true })
  const socketPath = join(folder, 'run/libvirt-sock')
  const output: string[] = []
  let child: ChildProcess | null = null
  let exited: Promise<unknown> = Promise.resolve()

  const start = async () => {
    rmSync(socketPath, { force: true })
    const spaces = ['--mount', '--propagation', 'private', ...(network ? ['--net'] : [])]
    const started = spawn(
      '/usr/bin/unshare',
      [...spaces, '--', '/bin/sh', '-euc', script(mounts), 'sh', folder],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    child = started
    exited = new Promise((resolve) => started.once('close', resolve))
    started.stderr.on('data', (chunk: Buffer) => {
      output.push(chunk.toString())
      if (output.length > 200) output.shift()
    })
    for (const end = Date.now() + 20_000; !existsSync(socketPath); await sleep(10))
      if (started.exitCode !== null || Date.now() > end)
        throw new Error(`libvirtd does not listen at ${socketPath}: ${output.join('')}`)
  }

  const signal = async (name: NodeJS.Signals) => {
    child?.kill(name)
    if (name === 'SIGKILL' || name === 'SIGTERM') await exited
  }

  // Guests outlive whoever started them, so somebody is left to end them when the test ends, however that comes about: by SIGKILL too.
  const guard = spawn('/bin/sh', ['-euc', ending, 'sh', folder], {
    stdio: ['pipe', 'ignore', 'inherit'],
    detached: true,
  })
  guard.unref()
  const ended = new Promise((resolve) => guard.once('exit', resolve))

  const stop = async () => {
    child?.kill('SIGCONT')
    await signal('SIGTERM')
    guard.ref()
    guard.stdin.end()
    await ended
  }

  try {
    await start()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    folder,
    socketPath,
    readOnlySocketPath: `${socketPath}-ro`,
    get pid() {
      return child?.pid ?? 0
    },
    signal,
    start,
    stop,
  }
}

/** What libvirt's own client answers to the same daemon: `virsh` by exec, for comparison. */
export const virsh = (socketPath: string, driver: string, ...args: readonly string[]): string =>
  execFileSync('/usr/bin/virsh', ['-q', '-c', `${driver}?socket=${socketPath}`, ...args], {
    encoding: 'utf8',
  })
