// What the host remembers of its arrays while they do not run: mdadm.conf, the initramfs, LVM's backup of the volumes on them.

import { volumesInBackup } from '../block/lvm-backup.ts'
import type { Desired } from '../desired.ts'
import type { HostReader } from '../host.ts'
import { natural } from './devices.ts'
import type { VmUse } from './domains.ts'
import type { ArrayObserved, LostVolume } from './observe.ts'

/** The volumes of a group that is gone, each with the domains that had disks on it. */
export async function observeLostVolumes(
  reader: HostReader,
  desired: Desired,
  uses: readonly VmUse[],
): Promise<readonly LostVolume[]> {
  const group = desired.volumes?.group ?? 'garrison'
  const backup = await reader.readText(`/etc/lvm/backup/${group}`)
  return (backup === null ? [] : volumesInBackup(backup)).map((name) => {
    const mount = desired.volumes?.logical[name]?.mount ?? null
    const places = [
      `/dev/${group}/${name}`,
      `/dev/mapper/${group}-${name.replaceAll('-', '--')}`,
      ...(mount === null ? [] : [mount]),
    ]
    const onIt = uses.filter(({ paths }) =>
      paths.some((path) => places.some((place) => path === place || path.startsWith(`${place}/`))),
    )
    return { name, mount, domains: [...new Set(onIt.map((use) => use.name))].sort(natural) }
  })
}

/** The tool that makes the initramfs, and the images that are older than mdadm.conf. */
export async function observeInitramfs(
  reader: HostReader,
  confPath: string,
): Promise<ArrayObserved['initramfs']> {
  const tool = (await reader.facts('/usr/sbin/update-initramfs'))
    ? 'update-initramfs'
    : (await reader.facts('/usr/bin/dracut'))
      ? 'dracut'
      : null
  const conf = await reader.facts(confPath)
  // The images that are there, not the kernels in /lib/modules: the root side's sandbox shows that folder empty.
  const pattern = tool === 'dracut' ? /^initramfs-(?!0-rescue-).+(?<!kdump)\.img$/ : /^initrd\.img-.+$/
  const stale: string[] = []
  if (tool !== null && conf !== null)
    for (const name of (await reader.list('/boot')) ?? []) {
      const facts = pattern.test(name) ? await reader.facts(`/boot/${name}`) : null
      if (facts !== null && facts.modifiedMs < conf.modifiedMs) stale.push(`/boot/${name}`)
    }
  return { tool, stale }
}

/** mdadm reads /etc/mdadm.conf, and Debian's place only when that is missing; drop-ins lie beside it. */
export async function observeConf(reader: HostReader) {
  const debian = '/etc/mdadm/mdadm.conf'
  const plain = '/etc/mdadm.conf'
  const text = await reader.readText(plain)
  const path = text === null && (await reader.facts('/etc/mdadm'))?.kind === 'folder' ? debian : plain
  const folder = `${path}.d`
  const dropIns: (readonly [string, string])[] = []
  for (const name of (await reader.list(folder)) ?? [])
    if (name.endsWith('.conf'))
      dropIns.push([`${folder}/${name}`, (await reader.readText(`${folder}/${name}`)) ?? ''])
  return { path, text: text ?? (await reader.readText(path)) ?? '', dropIns }
}
