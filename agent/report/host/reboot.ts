// Whether the host should be started anew: what Debian leaves in /run, and on hosts with RPM what `dnf needs-restarting -r` looks at.

import { unexpected } from '../unexpected.ts'

/** Packages whose old version goes on running until the next boot. */
const untilBoot = [
  'kernel',
  'kernel-core',
  'kernel-rt',
  'glibc',
  'linux-firmware',
  'microcode_ctl',
  'systemd',
  'dbus',
  'dbus-broker',
  'dbus-daemon',
]

/** Asks when these were installed; of those that are not there rpm says so and ends with 1 for each. */
export const rpmInstallTimes = (): [string, ...string[]] => [
  '/usr/bin/rpm',
  '--query',
  '--queryformat=%{NAME} %{INSTALLTIME}\\n',
  '--',
  ...untilBoot,
]

/** The packages of the answer that were installed after boot, each once. `bootedMs` is epoch time. */
export function installedSince(text: string, bootedMs: number): readonly string[] {
  const names = text.split('\n').flatMap((line) => {
    if (line === '' || / is not installed$/.test(line)) return []
    const [, name = '', seconds] = /^(\S+) (\d+)$/.exec(line) ?? []
    if (name === '') throw unexpected('rpm --query', line)
    return Number(seconds) * 1000 > bootedMs ? [name] : []
  })
  return [...new Set(names)]
}

/** The packages that Debian names in /run/reboot-required.pkgs, each once. */
export const namedPackages = (text: string): readonly string[] => [
  ...new Set(text.split('\n').filter((line) => line !== '')),
]
