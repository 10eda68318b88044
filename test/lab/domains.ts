// The VMs of a lab guest, as its libvirt and its kernel have them.
import type { Guest } from './guest.ts'

/** What libvirt has: name to power, and whether it starts with the host. */
export async function domains(guest: Guest): Promise<Readonly<Record<string, string>>> {
  const { stdout } = await guest.run(['virsh', '--quiet', 'list', '--all'])
  const rows = stdout
    .split('\n')
    .flatMap((line) => /^ +(?:\d+|-) +(\S+) +(.+?) *$/.exec(line)?.slice(1, 3) ?? [])
  return Object.fromEntries(
    Array.from({ length: rows.length / 2 }, (_, at) => rows.slice(at * 2, at * 2 + 2)),
  )
}

/** How many QEMU processes have a VM's name. */
export const emulators = async (guest: Guest, name: string): Promise<number> =>
  Number(
    (
      await guest.run(['pgrep', '--count', '--full', `^/usr/bin/qemu.*guest=${name},`], {
        allowFailure: true,
      })
    ).stdout,
  )
