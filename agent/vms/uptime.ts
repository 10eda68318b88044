// Since when the QEMU of a VM runs: its PID as libvirt writes it down, and that process's start (proc(5)).

import type { HostReader } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'

/** Clock ticks a second in what the kernel tells user space, on every architecture of today (USER_HZ). */
const ticksPerSecond = 100

/** The start of a process in ticks after boot: field 22 of its stat, counted behind the name, which may hold anything. */
export function startTicks(stat: string): number | null {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[19])
  return Number.isSafeInteger(ticks) && ticks > 0 ? ticks : null
}

/** When the host booted, in epoch seconds, from /proc/stat. */
export function bootSeconds(stat: string): number | null {
  const [, seconds] = /^btime (\d+)$/m.exec(stat) ?? []
  return seconds === undefined ? null : Number(seconds)
}

/** When the VM of that name was started, in epoch milliseconds; null when that cannot be told. `runFolder` is libvirt's. */
export async function startedMs(
  reader: Pick<HostReader, 'readText'>,
  runFolder: string,
  name: string,
): Promise<number | null> {
  // libvirt lets no VM of QEMU have such a name; those of other drivers have no process.
  if (name.includes('/')) return null
  try {
    const pid = (await reader.readText(`${runFolder}/qemu/${name}.pid`))?.trim() ?? ''
    if (!/^[1-9]\d{0,9}$/.test(pid)) return null
    const [ofProcess, ofHost] = await Promise.all(
      [`/proc/${pid}/stat`, '/proc/stat'].map((path) => reader.readText(path)),
    )
    const ticks = startTicks(ofProcess ?? '')
    const boot = bootSeconds(ofHost ?? '')
    return ticks === null || boot === null ? null : boot * 1000 + (ticks * 1000) / ticksPerSecond
  } catch (error) {
    // On Debian 12 everybody may read the file (0644), which libvirt promises nobody; and not every name of a VM can be a file's (ENAMETOOLONG).
    if (error instanceof HostError) return null
    throw error
  }
}
