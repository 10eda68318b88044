// A real systemd as process 1 of a box: this machine's own files under an overlay that forgets, with namespaces of its own. Needs root.
import { globSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { endOf, type Outcome, runTool, startTool, takeLock } from '../lab/processes.ts'
import { ensureRequirements } from '../lab/requirements.ts'

/** A booted box. */
export interface SystemdBox {
  /** Runs a program in it, as root. */
  run(argv: readonly string[], options?: { readonly allowFailure?: boolean }): Promise<Outcome>
  /** Properties of a unit, as systemctl show tells them. */
  show(unit: string, ...properties: readonly string[]): Promise<Readonly<Record<string, string>>>
  /** Asks until it is so. Throws when it is not within 40 s. */
  until(what: string, isSo: () => Promise<boolean>): Promise<void>
  /** Ends everything in it, and the box. */
  close(): Promise<void>
}

/** Mounts live in a namespace of this script, so that nothing is left of them however it ends. */
const script = `
folder=$1 deb=$2
mount -t tmpfs -o size=1g box "$folder"
mkdir "$folder/up" "$folder/work" "$folder/root"
mount -t overlay box -o "lowerdir=/,upperdir=$folder/up,workdir=$folder/work" "$folder/root"
cd "$folder/root"
rm -rf etc/systemd/system/*.wants usr/sbin/policy-rc.d var/lib/garrison etc/garrison run/garrison
: > etc/machine-id
cp "$deb" garrison.deb
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
keep=--keep-unit
test ! -d /run/systemd/system || keep=
exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 /usr/bin/systemd-nspawn --quiet --directory="$folder/root" \\
  --register=no $keep --private-network --machine=garrison-box --console=pipe --boot`

const bootMs = 60_000
const patienceMs = 40_000

/** Reads a file of a process; empty once that has ended. */
const ofProcess = async (path: string): Promise<string> =>
  readFile(`/proc/${path}`, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return ''
    throw error
  })

/** The systemd that a process has brought forth; null until there is one. */
async function systemdBelow(pid: number): Promise<number | null> {
  for (const child of (await ofProcess(`${pid}/task/${pid}/children`)).trim().split(' ')) {
    if (child === '') continue
    if ((await ofProcess(`${child}/comm`)) === 'systemd\n') return Number(child)
    const below = await systemdBelow(Number(child))
    if (below !== null) return below
  }
  return null
}

/** Boots a box that finds the package at /garrison.deb. One at a time on a machine: systemd-nspawn has one place for its own. */
export async function bootSystemdBox(deb: string, progress: (line: string) => void): Promise<SystemdBox> {
  await ensureRequirements(progress, [
    { package: 'systemd-container', path: '/usr/bin/systemd-nspawn' },
    { package: 'util-linux', path: '/usr/bin/nsenter' },
  ])
  const lock = await takeLock(join(tmpdir(), 'garrison-box.lock'), true)
  const folder = await mkdtemp(join(tmpdir(), 'garrison-box-'))
  // The first process of a namespace of processes takes all of them along, however it ends.
  const spaces = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc']
  const unshare = ['/usr/bin/unshare', ...spaces, '--']
  const nspawn = startTool([...unshare, '/bin/sh', '-ec', script, 'box', folder, deb])
  let said = ''
  for (const stream of [nspawn.stdout, nspawn.stderr])
    stream.on('data', (chunk: Buffer) => {
      said = `${said}${chunk}`.slice(-4000)
    })
  const ended = endOf(nspawn)
  let first: number | null = null

  const run: SystemdBox['run'] = (argv, options) =>
    runTool(['/usr/bin/nsenter', `--target=${first}`, '--all', '--', ...argv], {
      deadlineMs: 120_000,
      ...options,
    })
  const close = async () => {
    nspawn.kill('SIGKILL')
    await ended
    await rm(folder, { recursive: true, force: true })
    // Where no systemd keeps the machine's own, systemd-nspawn leaves its control groups behind.
    const left = globSync('/sys/fs/cgroup/{systemd,unified}/{payload,supervisor}')
    if (left.length > 0)
      await runTool(['/usr/bin/find', ...left, '-depth', '-type', 'd', '-delete'], { allowFailure: true })
    await lock?.release()
  }
  const untilBy = async (ms: number, what: string, isSo: () => Promise<boolean>) => {
    const givenUpMs = performance.now() + ms
    while (!(await isSo())) {
      if (performance.now() > givenUpMs) throw new Error(`not so within ${ms} ms: ${what}\n${said}`)
      await sleep(100)
    }
  }
  try {
    await untilBy(bootMs, 'the box has booted', async () => {
      if (nspawn.exitCode !== null) throw new Error(`systemd-nspawn: exit ${nspawn.exitCode}\n${said}`)
      first ??= nspawn.pid === undefined ? null : await systemdBelow(nspawn.pid)
      if (first === null) return false
      const { stdout } = await run(['/usr/bin/systemctl', 'is-system-running'], { allowFailure: true })
      return /^(running|degraded)$/m.test(stdout)
    })
  } catch (error) {
    await close()
    throw error
  }
  return {
    run,
    async show(unit, ...properties) {
      const { stdout } = await run(['/usr/bin/systemctl', 'show', `--property=${properties.join()}`, unit])
      return Object.fromEntries(stdout.split('\n').map((line) => line.split(/=(.*)/s, 2)))
    },
    until: (what, isSo) => untilBy(patienceMs, what, isSo),
    close,
  }
}

/** The package as built; built when it is not there. */
export async function builtDeb(): Promise<string> {
  const root = join(import.meta.dirname, '..', '..')
  const find = () => globSync(join(root, 'dist', 'garrison_*.deb'))
  if (find().length === 0) await runTool([process.execPath, join(root, 'packaging', 'build.ts')])
  const [deb] = find()
  if (deb === undefined) throw new Error('packaging/build.ts has built no .deb')
  return deb
}
