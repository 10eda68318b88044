// A libvirtd with paused guests for the benches, and the processor time that a process, it and they have used.

import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Connection, connectOpen, type Domain, VIR } from '../../agent/node-libvirt/index.ts'
import { parseStat } from '../../agent/report/process.ts'
import { type Libvirtd, startLibvirtd } from '../contract/libvirtd.ts'
import { ensureRequirements } from '../lab/requirements.ts'

/** Guests that run and are paused, and what made them. */
export interface PausedGuests {
  readonly libvirtd: Libvirtd
  /** With all rights. */
  readonly control: Connection
  readonly domains: readonly Domain[]
  /** Processor time of all QEMUs so far, ms. */
  qemuMs(): number
  stop(): Promise<void>
}

const statOf = (pid: number | 'self'): string => readFileSync(`/proc/${pid}/stat`, 'utf8')

/** Processor time of a process so far, ms, to 10 ms. */
export const processorMs = (pid: number): number => parseStat('', statOf(pid)).cpuMs

/** What the programs that a process started have used, as far as they have ended, ms, to 10 ms. */
export function endedChildrenMs(pid: number | 'self'): number {
  const fields = statOf(pid).split(') ')[1]?.split(' ') ?? []
  return (Number(fields[13]) + Number(fields[14])) * 10
}

/** To the nanosecond: what a question costs one QEMU is less than the 10 ms in which stat counts. No thread of it ends. */
const preciseMs = (pid: number): number =>
  globSync(`/proc/${pid}/task/*/schedstat`).reduce(
    (sum, path) => sum + Number(readFileSync(path, 'utf8').split(' ')[0]) / 1e6,
    0,
  )

/** Starts so many guests of so many disks each. `network`: libvirtd has a network namespace of its own, and the guests' taps are in it. */
export async function startPausedGuests(
  count: number,
  { disks = 1, network = false }: { readonly disks?: number; readonly network?: boolean } = {},
): Promise<PausedGuests> {
  await ensureRequirements(console.log, [
    { package: 'libvirt-clients', path: '/usr/bin/virsh' },
    { package: 'libvirt-daemon-system', path: '/usr/sbin/libvirtd' },
    { package: 'qemu-system-x86', path: '/usr/bin/qemu-system-x86_64' },
  ])
  const libvirtd = await startLibvirtd({ network })
  writeFileSync(join(libvirtd.folder, 'disk.img'), Buffer.alloc(2 ** 20))
  const diskXml = (target: string) => `<disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='${libvirtd.folder}/disk.img'/><target dev='${target}' bus='virtio'/><shareable/></disk>`
  const guestXml = (name: string) => `<domain type='qemu'><name>${name}</name>
  <memory unit='MiB'>32</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${Array.from({ length: disks }, (_, at) => diskXml(`vd${String.fromCharCode(97 + at)}`)).join('')}
    <interface type='ethernet'><model type='virtio'/></interface><memballoon model='virtio'/>
  </devices></domain>`
  const control = await connectOpen('qemu:///system', { socketPath: libvirtd.socketPath })
  const domains: Domain[] = []
  const beganMs = performance.now()
  while (domains.length < count) {
    const xml = guestXml(`guest-${domains.length}`)
    domains.push(await control.domainCreateXML({ xml, flags: VIR.DOMAIN_START_PAUSED }))
    if (domains.length % 25 === 0)
      console.log(`${domains.length} guests after ${Math.round((performance.now() - beganMs) / 1000)} s`)
  }
  const pidFolder = join(libvirtd.folder, 'run/qemu')
  const pids = globSync('guest-*.pid', { cwd: pidFolder }).map((file) =>
    Number(readFileSync(join(pidFolder, file), 'utf8')),
  )
  return {
    libvirtd,
    control,
    domains,
    qemuMs: () => pids.reduce((sum, pid) => sum + preciseMs(pid), 0),
    async stop() {
      control.close()
      await libvirtd.stop()
    },
  }
}
