// What is not as healthy as it could be: arrays that lack members or redundancy, drives that wear out, an array that is gone.

import { formatBytes } from '../block/bytes.ts'
import type { Desired } from '../desired.ts'
import type { Finding } from '../resource.ts'
import { findOurs, nameOf, titleOf } from './drives.ts'
import { criticalWarnings } from './nvme.ts'
import type { ArrayObserved, Drive, MdArray } from './observe.ts'

/** A drive that has used this much of what it is made for is worth a replacement in the drawer. */
const wornPercent = 90

/** `24 min`, `3 h 10 min`, `2 d 4 h`: what is left, in words that are not more exact than the kernel's guess. */
export function duration(minutes: number): string {
  const whole = Math.max(1, Math.round(minutes))
  if (whole < 60) return `${whole} min`
  if (whole < 24 * 60) return `${Math.floor(whole / 60)} h ${whole % 60} min`
  return `${Math.floor(whole / 1440)} d ${Math.floor((whole % 1440) / 60)} h`
}

const progressText = ({ progress }: MdArray): string => {
  if (progress === null) return ''
  const { action, percent, minutesLeft, waits } = progress
  if (waits !== null) return `${action} ${waits === 'delayed' ? 'waits for another array' : waits}`
  const left = minutesLeft === null ? 'no end in sight' : `${duration(minutesLeft)} left`
  return `${action} ${percent === null ? '' : `${Math.floor(percent)} %, `}${left}`
}

/** Slots that nothing works in. A member that is being rebuilt fills its slot, but not yet with data. */
function slots({ raidDevices, members }: MdArray) {
  const count = (condition: string) => members.filter((member) => member.condition === condition).length
  const active = count('active')
  const wanted = raidDevices ?? active
  return { wanted, active, rebuilding: Math.min(count('rebuilding'), wanted - active) }
}

/** What the array can still do without, in words. RAID10 is counted as if both copies of a block had gone. */
function mayFail({ level, raidDevices }: MdArray, lacking: number): string {
  const tolerance = level === 'raid6' ? 2 : level === 'raid1' ? (raidDevices ?? 1) - 1 : 1
  return tolerance > lacking ? `${tolerance - lacking} more may fail` : 'the next failure loses data'
}

function* arrayFindings(array: MdArray, drives: readonly Drive[]): Generator<Finding> {
  const subject = titleOf(array)
  const { level, progress, workingDevices } = array
  const hasSlots = level !== 'raid0' && level !== 'linear' && level !== null
  const { wanted, active, rebuilding } = slots(array)
  const working = workingDevices ?? active
  const lacking = wanted - working
  const faulty = array.members.filter(({ condition }) => condition === 'faulty')
  const driveOf = (name: string | null) => drives.find((drive) => drive.name === name)

  if (
    !array.active &&
    !array.metadata.startsWith('external:imsm') &&
    !array.metadata.startsWith('external:ddf')
  )
    yield {
      code: 'array.inactive',
      severity: 'high',
      subject,
      text: `${subject} is known to the kernel but does not run; ${array.members.length} members are there`,
      remedy: 'See garrison drives for what is missing; garrison plan says whether it can be assembled.',
    }
  if (array.failed)
    yield {
      code: 'array.failed',
      severity: 'high',
      subject,
      text: `${subject} has lost more members than it can do without: its data cannot be read`,
      remedy:
        'Stop what uses it and write nothing. See garrison drives and journalctl -k for the drives that went; back in, they may assemble again.',
    }
  for (const { name, drive } of faulty) {
    const on = driveOf(drive)
    yield {
      code: 'array.member-failed',
      severity: 'high',
      subject,
      text: `${on ? nameOf(on) : name} has failed in ${subject}`,
      remedy: `Put a blank drive in, then garrison drives replace ${on?.serial ?? name} NEW.`,
    }
  }
  if (array.active && !array.failed && hasSlots && lacking > 0 && rebuilding < lacking)
    yield {
      code: 'array.degraded',
      severity: 'high',
      subject,
      text: `${subject} runs with ${working} of ${wanted} members: ${mayFail(array, lacking)}`,
      remedy:
        'See garrison drives for the one that is missing; put a blank drive in, then garrison drives replace OLD NEW.',
    }
  const copies =
    progress?.action === 'recovery' && array.members.some(({ condition }) => condition === 'replacement')
  if (copies)
    yield {
      code: 'array.replacing',
      severity: 'notice',
      subject,
      text: `${subject} copies a member to its replacement and stays redundant (${progressText(array)})`,
      remedy: 'When it is through, garrison drives replace takes the old drive out.',
    }
  else if (array.active && progress && ['resync', 'recovery', 'reshape'].includes(progress.action)) {
    const until =
      progress.waits !== null
        ? `until its ${progress.action} is through, which has not begun`
        : progress.minutesLeft === null
          ? `until its ${progress.action} is through, with no end in sight`
          : `for another ${duration(progress.minutesLeft)}`
    yield {
      code: progress.action === 'reshape' ? 'array.reshaping' : 'array.resyncing',
      severity: 'warning',
      subject,
      text: `${subject} is not redundant ${until} (${progressText(array)})`,
      remedy: 'Nothing to do. Rollouts and reboots wait for it.',
    }
  }
  if ((array.mismatches ?? 0) > 0 && progress === null && array.active)
    yield {
      code: 'array.mismatches',
      severity: 'warning',
      subject,
      text: `the last check of ${subject} found ${array.mismatches} sectors that differ between members`,
      remedy: `Look at journalctl -k for drive errors; then echo repair > /sys/block/${array.kernelName}/md/sync_action makes them agree, but cannot tell which was right.`,
    }
  if (array.active && array.readOnly === 'yes')
    yield {
      code: 'array.read-only',
      severity: 'high',
      subject,
      text: `${subject} is read-only`,
      remedy: `Find out who made it so (journalctl -k); mdadm --readwrite ${array.path} ends it.`,
    }
  if (array.active && array.readOnly === 'auto')
    yield {
      code: 'array.read-only',
      severity: 'notice',
      subject,
      text: `${subject} is read-only until its first write`,
      remedy: 'Nothing to do.',
    }
}

function* driveFindings(drive: Drive): Generator<Finding> {
  const { smart } = drive
  if (smart === null) return
  const subject = nameOf(drive)
  const warnings = criticalWarnings(smart)
  if (warnings.length > 0)
    yield {
      code: 'drive.critical-warning',
      severity: 'high',
      subject,
      text: `${subject} warns of itself: ${warnings.join(', ')}`,
      remedy: `Put a blank drive in, then garrison drives replace ${drive.serial} NEW before it fails.`,
    }
  if ((smart.usedPercent ?? 0) >= wornPercent)
    yield {
      code: 'drive.wear',
      severity: 'warning',
      subject,
      text: `${subject} has used ${smart.usedPercent} % of the writes it is made for`,
      remedy: 'Have a replacement at hand; garrison drives replace changes it while the array runs.',
    }
}

/** Findings about the array that the document is about, beyond what is true of any array. */
function* ownFindings(observed: ArrayObserved): Generator<Finding> {
  const { wanted, conf, drives } = observed
  if (wanted === null) return
  const device = `/dev/md/${wanted.name}`
  const ours = findOurs(observed, wanted)
  const remembered = conf.remembered?.device === device ? conf.remembered : null
  if (conf.conflicts.length > 0)
    yield {
      code: 'array.conf-conflict',
      severity: 'warning',
      subject: device,
      text: `${conf.conflicts.join(', ')} names ${device} or its array too: mdadm may not assemble it at boot`,
      remedy: `Take the ARRAY line out of it; ${conf.path} has the one that counts.`,
    }
  if (ours.found === 'none' && remembered !== null && observed.unread.length === 0) {
    const volumes = observed.lostVolumes.map(
      ({ name, mount, domains }) =>
        name + (mount ? ` (${mount})` : '') + (domains.length > 0 ? ` with VMs ${domains.join(', ')}` : ''),
    )
    const back = drives.filter(({ serial }) => serial !== null && remembered.members.includes(serial))
    yield {
      code: 'array.lost',
      severity: 'high',
      subject: device,
      text:
        `${device} is on no drive any more; of its ${remembered.members.length} drives ${back.length} are here without it. ` +
        (volumes.length > 0 ? `Lost volumes: ${volumes.join('; ')}` : 'Which volumes it had is not known'),
      remedy:
        'Instance store is blank after an instance stop. Set array.onLoss to recreate to make the array anew, then restore; or put the old drives back.',
    }
  }
  if (ours.found === 'running') {
    const { array } = ours
    if (array.level !== null && array.level !== `raid${wanted.level}`)
      yield {
        code: 'array.wrong-level',
        severity: 'warning',
        subject: titleOf(array),
        text: `${titleOf(array)} is ${array.level}, the document wants raid${wanted.level}`,
        remedy: `Set array.level to ${array.level.replace('raid', '')}, or give the document another array.name: levels are not converted.`,
      }
    if (array.links.length > 0 && !array.links.includes(wanted.name) && array.used)
      yield {
        code: 'array.other-name',
        severity: 'notice',
        subject: titleOf(array),
        text: `${titleOf(array)} becomes ${device} when it is next started`,
        remedy: 'Nothing to do; the next reboot names it.',
      }
    const present = new Set(array.members.map(({ drive }) => drive))
    const isWhole = (array.workingDevices ?? 0) >= (array.raidDevices ?? 0)
    const missing = (remembered?.uuid === array.uuid && !isWhole ? remembered.members : []).filter(
      (serial) => !drives.some((drive) => present.has(drive.name) && (drive.serial ?? drive.wwn) === serial),
    )
    for (const serial of missing) {
      const here = drives.find((drive) => drive.serial === serial)
      yield {
        code: 'array.member-missing',
        severity: 'high',
        subject: titleOf(array),
        text: `${serial} belongs to ${titleOf(array)} and ${here ? `is here as ${here.name}, but not in it` : 'is not in the host'}`,
        remedy: here
          ? 'garrison apply --allow disruptive takes it back if it still bears the array; else garrison drives replace.'
          : `Put it back, or a blank one in, then garrison drives replace ${serial} NEW.`,
      }
    }
  }
}

/** Findings on every array of the host, on its drives, and on the array that is wanted. */
export function check(observed: ArrayObserved): readonly Finding[] {
  return [
    ...ownFindings(observed),
    ...observed.arrays.flatMap((array) => [...arrayFindings(array, observed.drives)]),
    ...observed.drives.flatMap((drive) => [...driveFindings(drive)]),
  ]
}

/** `md/garrison raid5 3 x 1.7 TiB, resync 62 %, 24 min left`, or how many drives there are when there is no array. */
export function describe(observed: ArrayObserved, desired: Desired): string {
  const ours = desired.array ? findOurs(observed, desired.array) : { found: 'none' as const }
  const array = ours.found === 'running' ? ours.array : desired.array ? undefined : observed.arrays[0]
  if (array === undefined) {
    const others = observed.arrays.length
    return `no array, ${observed.drives.length} drives${others > 0 ? `, ${others} other ${others === 1 ? 'array' : 'arrays'}` : ''}`
  }
  const size = array.memberKib === null ? '' : ` x ${formatBytes(array.memberKib * 1024)}`
  const progress = array.progress ? `, ${progressText(array)}` : ''
  const { wanted, active } = slots(array)
  const devices = active < wanted && !array.progress ? `${active} of ${wanted}` : `${wanted}`
  return `${titleOf(array)} ${array.level ?? 'inactive'} ${devices}${size}${progress}`
}
