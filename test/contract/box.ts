// A host of its own for tests: Debian with systemd, networkd and NetworkManager in a container whose network is a namespace. Needs root.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { cached, hashOf } from '../lab/image.ts'
import { release } from '../lab/packages.ts'
import { type Outcome, runTool, type Tool, type ToolOptions } from '../lab/processes.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { type Machine, machineRequirements, startMachine } from './nspawn.ts'

const repository = join(import.meta.dirname, '..', '..')
const packages = [
  ...['systemd', 'systemd-sysv', 'udev', 'dbus', 'procps', 'kmod', 'libatomic1'],
  ...['iproute2', 'iputils-ping', 'network-manager', 'nftables', 'openssh-server'],
]
const excluded = ['doc', 'man', 'locale', 'info'].map((one) => `--dpkgopt=path-exclude=/usr/share/${one}/*`)

/** Neither backend runs unless a test says so, and nothing asks for a login. */
const masked = [
  'systemd-networkd-wait-online.service',
  'NetworkManager-wait-online.service',
  'console-getty.service',
]

const makeRoot = (progress: (line: string) => void): Promise<string> =>
  cached(`box-${hashOf([packages, excluded, masked, release])}`, progress, async (folder) => {
    const root = join(folder, 'root')
    await runTool([
      ...['/usr/bin/mmdebstrap', '--quiet', '--mode=root', '--variant=minbase', '--format=directory'],
      ...[`--include=${packages.join(',')}`, '--dpkgopt=force-unsafe-io', ...excluded],
      ...[release.codename, root],
    ])
    writeFileSync(join(root, 'etc/machine-id'), '6c61620000000000000000000000beef\n')
    writeFileSync(join(root, 'etc/hostname'), 'box\n')
    const systemctl = (...args: readonly string[]) =>
      runTool(['/usr/bin/systemctl', `--root=${root}`, ...args])
    await systemctl('mask', ...masked)
    await systemctl('disable', 'NetworkManager.service', 'ssh.service')
  })

/** The host. Everything is run as root in it. */
export interface Box {
  /** Starts the host: before the first use, and after it has been cut off. */
  boot(): Promise<void>
  /** As if its power was cut. */
  cut(): Promise<void>
  /** Shut down in order. */
  halt(): Promise<void>
  run(argv: readonly string[], options?: ToolOptions): Promise<Outcome>
  /** Starts a program that is there to be watched or killed. */
  start(argv: readonly string[]): Tool
  /** The argv of a verb of Garrison there. */
  garrison(...args: readonly string[]): readonly string[]
  write(path: string, content: string, mode?: number): void
  read(path: string): string | null
  remove(path: string): void
}

/** The programs that are needed to make hosts. */
export const boxRequirements = [
  ...machineRequirements,
  { package: 'iproute2', path: '/usr/sbin/ip' },
  { package: 'mmdebstrap', path: '/usr/bin/mmdebstrap' },
]

/** Makes a host whose network is the namespace, with the units of Garrison enabled; it is not started yet. */
export async function makeBox(
  namespace: string,
  progress: (line: string) => void,
): Promise<Box & { close(): Promise<void> }> {
  await ensureRequirements(progress, boxRequirements)
  const base = join(await makeRoot(progress), 'root')
  const folder = mkdtempSync(join(tmpdir(), 'garrison-box-'))
  const upper = join(folder, 'upper')
  for (const name of ['upper', 'work', 'root']) mkdirSync(join(folder, name))
  // A link as in a work tree that borrows its packages leads out of the repository.
  const modules = dirname(realpathSync(join(repository, 'node_modules', 'zod')))
  const node = realpathSync(process.execPath)
  const binds = [...new Set([repository, modules, dirname(node)])].map((path) => `--bind-ro=${path}`)
  let machine: Machine | null = null

  const inside = (path: string): string => machine?.inside(path) ?? join(upper, path)
  const started = (): Machine => {
    if (machine === null) throw new Error('the box is not started')
    return machine
  }

  const box: Box & { close(): Promise<void> } = {
    async boot() {
      // The mount of the overlay goes with the process that made it.
      const script = `mount -t overlay overlay -o "lowerdir=$0,upperdir=$1/upper,workdir=$1/work" "$1/root"; shift; exec "$@"`
      machine = await startMachine(namespace, [
        ...['/usr/bin/unshare', '--mount', '--propagation=slave', '/bin/sh', '-ec', script, base, folder],
        ...[
          '/usr/bin/systemd-nspawn',
          `--directory=${folder}/root`,
          '--boot',
          '--register=no',
          '--keep-unit',
        ],
        ...[`--network-namespace-path=/run/netns/${namespace}`, '--capability=CAP_NET_ADMIN,CAP_NET_RAW'],
        ...[`--machine=${namespace}`, '--console=pipe', '--quiet', ...binds],
      ])
    },
    async cut() {
      await machine?.cut()
      machine = null
    },
    async halt() {
      await machine?.halt()
      machine = null
    },
    run: (argv, options) => started().run(argv, options),
    start: (argv) => started().start(argv),
    garrison: (...args) => [node, join(repository, 'agent', 'main.ts'), ...args],
    write(path, content, mode = 0o644) {
      mkdirSync(dirname(inside(path)), { recursive: true })
      writeFileSync(inside(path), content, { mode })
    },
    read(path) {
      try {
        return readFileSync(inside(path), 'utf8')
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
        throw error
      }
    },
    remove: (path) => rmSync(inside(path)),
    async close() {
      await box.cut()
      rmSync(folder, { recursive: true })
    },
  }

  execFileSync('/usr/bin/cp', ['--recursive', '--', join(repository, 'systemd', 'usr'), upper])
  box.write('/usr/bin/garrison', `#!/bin/sh\nexec ${box.garrison().join(' ')} "$@"\n`, 0o755)
  return box
}
