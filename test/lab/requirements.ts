// What the lab needs on the machine, and how it gets there: Debian packages, by apt-get.
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runTool, takeLock } from './processes.ts'

/** Each package the lab needs on the machine, with one file that shows that it is there. */
export const requirements: ReadonlyArray<{ package: string; path: string }> = [
  { package: 'qemu-system-x86', path: '/usr/bin/qemu-system-x86_64' },
  { package: 'qemu-utils', path: '/usr/bin/qemu-img' },
  { package: 'mmdebstrap', path: '/usr/bin/mmdebstrap' },
  { package: 'dpkg-dev', path: '/usr/bin/dpkg-scanpackages' },
  { package: 'e2fsprogs', path: '/usr/sbin/mkfs.ext4' },
  { package: 'openssh-client', path: '/usr/bin/ssh' },
  { package: 'util-linux', path: '/usr/bin/setpriv' },
  ...(process.getuid?.() === 0 ? [] : [{ package: 'uidmap', path: '/usr/bin/newuidmap' }]),
]

/** What building the packages needs on the machine. */
export const packageRequirements: typeof requirements = [
  { package: 'binutils', path: '/usr/bin/strip' },
  { package: 'rpm', path: '/usr/bin/rpmbuild' },
]

const aptEnv = { DEBIAN_FRONTEND: 'noninteractive' }

/** As `ensureRequirements`, for a command that a person types: where it throws, this says why in words and ends the process. */
export async function ensureOrLeave(
  progress: (line: string) => void,
  needed: typeof requirements,
): Promise<void> {
  try {
    await ensureRequirements(progress, needed)
  } catch (error) {
    console.error((error as Error).message)
    process.exit(1)
  }
}

/**
 * Installs what is missing when run by root; as another user throws, naming the one command to run. A machine that lacks
 * something never gets a lab with parts left out.
 */
export async function ensureRequirements(
  progress: (line: string) => void,
  needed = requirements,
): Promise<void> {
  const missing = needed.filter((one) => !existsSync(one.path)).map((one) => one.package)
  if (missing.length === 0) return
  const install = ['install', '--yes', '--no-install-recommends', ...missing]
  if (process.getuid?.() !== 0) {
    throw new Error(
      `This needs ${missing.join(', ')}, and only root can install packages. Run:\n` +
        `  sudo apt-get update && sudo apt-get ${install.join(' ')}`,
    )
  }
  // Several test files may want something at once, and apt-get does not wait for its lists.
  const lock = await takeLock(join(tmpdir(), 'garrison-apt.lock'), true)
  try {
    progress(`installing ${missing.join(', ')}`)
    await runTool(['/usr/bin/apt-get', 'update'], { env: aptEnv })
    await runTool(['/usr/bin/apt-get', ...install], {
      env: aptEnv,
      onLine: (line) => {
        if (line.startsWith('Setting up')) progress(line)
      },
    })
  } finally {
    await lock?.release()
  }
  const still = needed.filter((one) => !existsSync(one.path))
  if (still.length > 0) {
    throw new Error(
      `apt-get installed ${missing.join(', ')} but ${still.map((one) => one.path).join(', ')} is not there`,
    )
  }
}
