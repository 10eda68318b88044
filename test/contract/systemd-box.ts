// A real systemd as process 1 of a box: this machine's own files under an overlay that forgets, with namespaces of its own. Needs root.
import { globSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Outcome, runTool } from '../lab/processes.ts'
import { ensureRequirements } from '../lab/requirements.ts'
import { machineRequirements, startMachine } from './nspawn.ts'

/** A booted box. */
export interface SystemdBox {
  /** Of its systemd, as it is seen from outside: whose network namespace a link is taken to. */
  readonly pid: number
  /** Runs a program in it, as root. */
  run(
    argv: readonly string[],
    options?: { readonly allowFailure?: boolean; readonly stdin?: string },
  ): Promise<Outcome>
  /** Installs the package, as a person would. */
  install(): Promise<Outcome>
  /** Properties of a unit, as systemctl show tells them. */
  show(unit: string, ...properties: readonly string[]): Promise<Readonly<Record<string, string>>>
  /** Asks until it is so. Throws when it is not within 40 s. */
  until(what: string, isSo: () => Promise<boolean>): Promise<void>
  /** Ends everything in it, and the box. */
  close(): Promise<void>
}

/** Mounts live in a namespace of this script, so that nothing is left of them however it ends. */
const script = `
folder=$1 deb=$2 name=$3
mount -t tmpfs -o size=1g box "$folder"
mkdir "$folder/up" "$folder/work" "$folder/root"
mount -t overlay box -o "lowerdir=/,upperdir=$folder/up,workdir=$folder/work" "$folder/root"
cd "$folder/root"
rm -rf etc/systemd/system/*.wants usr/sbin/policy-rc.d var/lib/garrison etc/garrison run/garrison
: > etc/machine-id
cp "$deb" garrison.deb
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
exec /usr/bin/systemd-nspawn --quiet --directory="$folder/root" \\
  --register=no --keep-unit --private-network --machine="$name" --console=pipe --boot`

const patienceMs = 40_000
let booted = 0

/** Boots a box that has the package at hand. */
export async function bootSystemdBox(deb: string, progress: (line: string) => void): Promise<SystemdBox> {
  await ensureRequirements(progress, machineRequirements)
  const folder = await mkdtemp(join(tmpdir(), 'garrison-box-'))
  const name = `garrison-${process.pid}-${booted++}`
  // The first process of a namespace of processes takes all of them along, however it ends.
  const spaces = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc']
  const machine = await startMachine(name, [
    ...['/usr/bin/unshare', ...spaces, '--', '/bin/sh', '-ec', script, 'box', folder, deb, name],
  ])
  const run: SystemdBox['run'] = (argv, options) => machine.run(argv, { deadlineMs: 120_000, ...options })
  return {
    pid: machine.pid,
    run,
    install: () =>
      run(['/usr/bin/env', 'DEBIAN_FRONTEND=noninteractive', '/usr/bin/dpkg', '--install', '/garrison.deb']),
    async show(unit, ...properties) {
      const { stdout } = await machine.run([
        ...['/usr/bin/systemctl', 'show', `--property=${properties.join()}`, unit],
      ])
      return Object.fromEntries(stdout.split('\n').map((line) => line.split(/=(.*)/s, 2)))
    },
    async until(what, isSo) {
      const givenUpMs = performance.now() + patienceMs
      while (!(await isSo())) {
        if (performance.now() > givenUpMs) throw new Error(`not so within ${patienceMs} ms: ${what}`)
        await sleep(100)
      }
    },
    async close() {
      await machine.cut()
      await rm(folder, { recursive: true, force: true })
    },
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
