// Looks at one md array: the kernel's list, sysfs, and `mdadm --detail` for what only the superblocks know.

import { descendants } from '../block/lsblk.ts'
import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'
import { type Devices, natural } from './devices.ts'
import { type MdadmDetail, mdadmDetail, parseMdadmDetail } from './mdadm.ts'
import type { MdstatArray } from './mdstat.ts'
import type { ArrayMember, MdArray } from './observe.ts'
import { collect, type Unread } from './unread.ts'

const memberCondition = (condition: string): ArrayMember['condition'] =>
  /faulty/.test(condition)
    ? 'faulty'
    : /rebuilding/.test(condition)
      ? 'rebuilding'
      : /replacement/.test(condition)
        ? 'replacement'
        : /journal/.test(condition)
          ? 'journal'
          : /active|sync/.test(condition)
            ? 'active'
            : 'spare'

/** Members from the kernel's list, with slot and condition from mdadm where it could be asked. */
function membersOf(
  { members, active }: MdstatArray,
  detail: MdadmDetail | null,
  devices: Devices,
): readonly ArrayMember[] {
  const rows = new Map(detail?.members.map((row) => [row.device, row]))
  return members
    .map((member): ArrayMember => {
      const row = rows.get(devices.all.get(member.kernelName)?.number ?? '')
      return {
        name: member.kernelName,
        drive: devices.disksUnder(member.kernelName)[0] ?? null,
        slot: row?.slot ?? null,
        // A replacement that is being copied to is 'spare rebuilding' to mdadm, as one that is rebuilt from parity is.
        condition: member.faulty
          ? 'faulty'
          : member.replacement
            ? 'replacement'
            : row !== undefined && active
              ? memberCondition(row.condition)
              : member.journal
                ? 'journal'
                : member.spare
                  ? 'spare'
                  : 'active',
      }
    })
    .sort((a, b) => natural(a.name, b.name))
}

const numberIn = (text: string | null): number | null => {
  const number = Number(text?.trim() || Number.NaN)
  return Number.isNaN(number) ? null : number
}

/** Reads one array. What needs root and is denied is named in `unread` and null in the answer. */
export async function observeArray(
  reader: HostReader,
  array: MdstatArray,
  devices: Devices,
  links: readonly (readonly [name: string, kernelName: string | null])[],
  system: readonly (readonly [path: string, kernelNames: readonly string[]])[],
  unread: Unread[],
): Promise<MdArray> {
  const { kernelName } = array
  const path = `/dev/${kernelName}`
  const sysfs = `/sys/block/${kernelName}/md`
  const detail = await collect(unread)(`array ${kernelName}`, async () => {
    const { exit, stdout, stderr } = await reader.query(mdadmDetail(path))
    // An array that was begun and never got a member has nothing to show.
    if (exit !== 0 && array.members.length === 0) return null
    if (stdout.trim() === '')
      throw new HostError('host.unexpected-answer', `mdadm --detail ${path}: ${stderr.trim()}`)
    return parseMdadmDetail(stdout)
  })
  const condition = (await reader.readText(`${sysfs}/array_state`))?.trim() ?? null
  const first = array.members[0]?.kernelName
  const above = [kernelName, ...descendants(devices.all, kernelName)]
  const holders = (await reader.list(`/sys/class/block/${kernelName}/holders`)) ?? []
  return {
    kernelName,
    path,
    active: array.active,
    readOnly: array.readOnly,
    level: array.active ? (detail?.level ?? array.personality) : null,
    uuid: detail?.uuid ?? null,
    homehost: detail?.homehost ?? null,
    name: detail?.name ?? null,
    metadata: array.metadata,
    consistency: detail?.consistency ?? null,
    raidDevices: array.wantedDevices ?? detail?.raidDevices ?? null,
    workingDevices: array.workingDevices,
    memberKib: detail?.memberKib ?? null,
    dataOffsetSectors:
      first === undefined ? null : numberIn(await reader.readText(`${sysfs}/dev-${first}/offset`)),
    failed: condition === 'broken' || (detail?.conditions.includes('FAILED') ?? false),
    members: membersOf(array, detail, devices),
    progress: array.progress,
    mismatches: numberIn(await reader.readText(`${sysfs}/mismatch_cnt`)),
    links: links.filter(([, target]) => target === kernelName).map(([name]) => name),
    used:
      holders.length > 0 ||
      above.length > 1 ||
      above.some((name) => (devices.all.get(name)?.mountpoints.length ?? 0) > 0),
    system: system.filter(([, names]) => names.some((name) => above.includes(name))).map(([at]) => at),
  }
}
