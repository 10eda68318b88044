// The one table of what the daemon finds: what it means, from when it is said and until when, and what a person does then.

import type { MetricName } from '../../provisioning/metrics.ts'
import type { Severity } from '../../provisioning/resource.ts'

/** A finding that a metric makes by itself: it begins above a level, and stands until the value is down at `until`. */
export interface Level {
  readonly metric: MetricName
  readonly above: Readonly<Partial<Record<Severity, number>>>
  readonly until: number
  /** What is said of a value, already in words with its unit. */
  readonly says: (value: string) => string
}

/** One finding. It is said when it has been so for `appearMs`, and no more when it has not been so for `clearMs`. */
export interface FindingEntry {
  readonly meaning: string
  /** When it is so, in words; of one with a level the level says it. */
  readonly when?: string
  readonly remedy: string
  readonly appearMs: number
  readonly clearMs: number
  readonly level?: Level
  /** Codes of what would be its cause: while one of them stands, of the same subject or of what that stands on, this is not said. */
  readonly hiddenBy?: readonly string[]
}

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const mebibyte = 2 ** 20

/** What a filesystem has nothing to say about itself for, once its array is gone. */
const lostArrays = ['array.failed', 'array.inactive', 'volumes.lost']

/** Every finding that the daemon makes itself, by its code. What `garrison status` finds is handed on as it is. */
export const FINDINGS = {
  'agent.cpu': {
    meaning: 'The daemon takes far more processor time than it needs.',
    remedy: 'Report it with garrison history agent.cpu --json; systemctl restart garrison begins anew.',
    appearMs: 15 * minute,
    clearMs: 15 * minute,
    level: {
      metric: 'agent.cpu',
      above: { warning: 25 },
      until: 10,
      says: (value) => `the daemon takes ${value} of a processor`,
    },
  },
  'agent.files': {
    meaning: 'The daemon has far more files open than it needs.',
    remedy: 'Report it with the output of garrison report --json; systemctl restart garrison frees them.',
    appearMs: 5 * minute,
    clearMs: 5 * minute,
    level: {
      metric: 'agent.files',
      above: { warning: 500 },
      until: 300,
      says: (value) => `the daemon has ${value} files open`,
    },
  },
  'agent.history-unwritable': {
    meaning: 'What is measured is not written down, so garrison history has a gap.',
    when: 'it could not be opened or written; what is measured is kept in memory, or lost',
    remedy:
      'See the message for why, and make room in /var/lib/garrison/daemon. Where it could not be opened, then run systemctl restart garrison.',
    appearMs: 0,
    clearMs: 2 * minute,
  },
  'agent.lag': {
    meaning: 'The daemon comes to its work late: the host is overloaded, or the daemon has too much to do.',
    remedy: 'See garrison history cpu.busy and pressure.cpu; if the host is idle, report it.',
    appearMs: minute,
    clearMs: 5 * minute,
    level: {
      metric: 'agent.lag',
      above: { warning: 2000 },
      until: 500,
      says: (value) => `the daemon came ${value} late to its work`,
    },
    hiddenBy: ['pressure.cpu', 'memory.used'],
  },
  'agent.memory': {
    meaning: 'The daemon takes far more memory than it needs.',
    remedy: 'Report it with garrison history agent.memory --json; systemctl restart garrison frees it.',
    appearMs: 10 * minute,
    clearMs: 10 * minute,
    level: {
      metric: 'agent.memory',
      above: { warning: 100 * mebibyte },
      until: 75 * mebibyte,
      says: (value) => `the daemon takes ${value}`,
    },
  },
  'array.degraded': {
    meaning: 'An array lacks members: it works, with less redundancy or none.',
    when: 'the kernel counts fewer working members than the array is made for',
    remedy:
      'See garrison drives for the member that is gone, and put a new one in with garrison drives replace.',
    appearMs: 0,
    clearMs: 20 * second,
    hiddenBy: ['array.failed', 'array.member-failed'],
  },
  'array.inactive': {
    meaning: 'An array is known to the kernel and does not run.',
    when: 'the kernel lists it as inactive',
    remedy: 'See garrison drives for what is missing; garrison plan says whether it can be assembled.',
    appearMs: 30 * second,
    clearMs: 20 * second,
  },
  'array.resyncing': {
    meaning: 'An array copies data to a member, and is not redundant until it is done.',
    when: 'the kernel reports a resync or recovery',
    remedy: 'Rollouts and reboots wait for it. Nothing to do.',
    appearMs: 0,
    clearMs: 20 * second,
  },
  'clock.offset': {
    meaning: 'The clock is wrong, so times in logs and reports are, and certificates may be refused.',
    remedy: 'See chronyc sources for servers that can be reached; chronyc makestep sets the clock at once.',
    appearMs: 0,
    clearMs: 10 * minute,
    level: {
      metric: 'clock.offset',
      above: { warning: 500, high: 60_000 },
      until: 100,
      says: (value) => `the clock is ${value} off`,
    },
  },
  'clock.skewed': {
    meaning: 'The clock is not what AWS says that the time is. What CloudWatch is told is corrected by it.',
    when: 'it differs by more than a minute from the date of an answer',
    remedy: 'See chronyc sources for servers that can be reached; chronyc makestep sets the clock at once.',
    appearMs: 0,
    clearMs: 10 * minute,
    hiddenBy: ['clock.offset'],
  },
  'clock.stepped': {
    meaning: 'The clock was set to another time while the daemon ran.',
    when: 'the clock moved more than 2 s against the steady one within a round',
    remedy: 'Look in journalctl -u chronyd -u systemd-timesyncd who set it. It is told for an hour.',
    appearMs: 0,
    clearMs: hour,
  },
  'clock.unsynchronised': {
    meaning: 'Nothing keeps the clock right.',
    when: 'chrony, or else the kernel, says that it is not synchronised',
    remedy: 'See systemctl status chronyd systemd-timesyncd and whether their servers can be reached.',
    appearMs: 15 * minute,
    clearMs: minute,
  },
  'cloudwatch.cannot-ask': {
    meaning: 'Batches without an answer are kept, since CloudWatch may not be asked whether it has them.',
    when: 'the role allows to send and not to ask',
    remedy: 'Allow cloudwatch:GetMetricData, and logs:GetLogEvents where events are sent.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.denied': {
    meaning: 'This host may not tell CloudWatch anything. What it would tell waits on the disk.',
    when: 'two requests in a row were refused for want of rights or credentials',
    remedy: 'Give the instance a role with the policy that garrison iam prints.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.dropped': {
    meaning:
      'Datapoints or events were dropped: for want of room, of a disk that takes them, or for being two weeks old.',
    when: 'any was; it is told for a day',
    remedy:
      'See garrison cloudwatch for what waits and why; raise cloudwatch.spoolMiB if the room is too small.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.refused': {
    meaning:
      'CloudWatch does not take a datapoint or event for what it is; it was dropped, the others were sent.',
    when: 'it was refused by itself while others beside it were taken; it is told for a day',
    remedy: 'Report it with the text of this finding.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.relayed': {
    meaning: 'This host does not reach the Region, and a peer tells CloudWatch of it (cloudwatch.relay).',
    when: 'a peer has sent a batch, until the Region is reached from here again',
    remedy:
      'See to the service link, the route or DNS of this host; garrison cloudwatch tells what waits. Nothing is lost meanwhile.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.settings': {
    meaning: 'It is not known what CloudWatch is to be told, or where.',
    when: 'the desired document could not be read, or no Region is known',
    remedy: 'See garrison check /etc/garrison/host.yaml, and the message.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.silent': {
    meaning:
      'CloudWatch takes nothing. What it would be told waits on the disk and is sent with its own times.',
    when: 'every request has failed for 10 min',
    remedy: 'See garrison cloudwatch for why.',
    appearMs: 0,
    clearMs: 0,
  },
  'cloudwatch.spool-unwritable': {
    meaning: 'What CloudWatch would be told cannot be written down, so nothing is sent.',
    when: 'writing failed',
    remedy: 'See the message for why; the spool is in /var/lib/garrison/daemon, where there must be space.',
    appearMs: 0,
    clearMs: 2 * minute,
    hiddenBy: ['filesystem.read-only'],
  },
  'cpu.steal': {
    meaning: 'A hypervisor below gives processors to others while work waits here.',
    remedy: 'On metal this cannot be: see garrison report for the instance type. Move work elsewhere.',
    appearMs: 10 * minute,
    clearMs: 10 * minute,
    level: {
      metric: 'cpu.steal',
      above: { warning: 10, high: 40 },
      until: 5,
      says: (value) => `${value} of the processors’ time is taken by others`,
    },
  },
  'drive.slow': {
    meaning: 'A drive takes long to answer.',
    remedy:
      'See garrison history drive.busy for whether it is overloaded, and garrison drives show for its health.',
    appearMs: 10 * minute,
    clearMs: 10 * minute,
    level: {
      metric: 'drive.latency',
      above: { warning: 200, high: 2000 },
      until: 100,
      says: (value) => `requests take ${value} on average`,
    },
    hiddenBy: ['array.resyncing'],
  },
  'ec2.lifecycle': {
    meaning: 'The Auto Scaling group that this instance is in is ending it.',
    when: 'the metadata say that it is to be Terminated',
    remedy:
      'Move the VMs now. Whoever scales the group must leave this instance out, or protect it from scaling in.',
    appearMs: 0,
    clearMs: 0,
    hiddenBy: ['ec2.spot-interruption'],
  },
  'ec2.maintenance': {
    meaning: 'AWS has scheduled a reboot or maintenance of this instance or its machine.',
    when: 'the metadata list it as active; high when it is a reboot within a day',
    remedy:
      'Move or stop the VMs before; garrison instance tells the window. Some events can be moved in the EC2 console.',
    appearMs: 0,
    clearMs: 0,
  },
  'ec2.rebalance': {
    meaning: 'AWS says that this Spot instance may soon be taken back.',
    when: 'the metadata recommend to rebalance',
    remedy: 'Start nothing new here, and move what must not stop.',
    appearMs: 0,
    clearMs: 0,
    hiddenBy: ['ec2.spot-interruption'],
  },
  'ec2.retirement': {
    meaning: 'AWS is going to end or stop this instance: the array and all that is on it are gone then.',
    when: 'the metadata list instance-retirement or instance-stop as active',
    remedy:
      'Back up the VMs (garrison vm backup) or move them, and make another host; garrison instance tells the window.',
    appearMs: 0,
    clearMs: 0,
  },
  'ec2.spot-interruption': {
    meaning: 'AWS takes this Spot instance back within two minutes.',
    when: 'the metadata tell an instance action',
    remedy: 'Shut the VMs down now (garrison vm stop); nothing on its own drives outlives it.',
    appearMs: 0,
    clearMs: 0,
  },
  'filesystem.fills': {
    meaning: 'At the rate of the last day a filesystem will be full soon.',
    when: 'the trend over six hours or more reaches zero: warning within 7 days, high within one; from half full on',
    remedy: 'Find out what grows (du -x), then remove it or raise the size of its volume in the document.',
    appearMs: 30 * minute,
    clearMs: hour,
    hiddenBy: [...lostArrays, 'filesystem.space'],
  },
  'filesystem.inodes': {
    meaning: 'A filesystem has few inodes left; without any no file can be made.',
    remedy: 'Remove small files that are not needed; a larger volume has more inodes.',
    appearMs: 0,
    clearMs: 5 * minute,
    level: {
      metric: 'filesystem.inodes-used',
      above: { warning: 85, high: 95 },
      until: 83,
      says: (value) => `${value} of the inodes are used`,
    },
    hiddenBy: lostArrays,
  },
  'filesystem.inodes-run-out': {
    meaning:
      'At the rate of the last day a filesystem will soon have no inode left, and no file can be made then.',
    when: 'the trend over six hours or more reaches zero: warning within 7 days, high within one; from half used on',
    remedy: 'Find the folder that gets many small files (du --inodes -x), and remove what is not needed.',
    appearMs: 30 * minute,
    clearMs: hour,
    hiddenBy: [...lostArrays, 'filesystem.inodes'],
  },
  'filesystem.read-only': {
    meaning: 'A filesystem that could be written can only be read now, as after an error of its drive.',
    when: 'it was mounted to be written since the daemon began, and is not any more',
    remedy: 'Look for the error in journalctl -k; save what is on it before you repair it.',
    appearMs: 0,
    clearMs: minute,
    hiddenBy: lostArrays,
  },
  'filesystem.silent': {
    meaning: 'A filesystem does not answer: its drive or array hangs.',
    when: 'no answer for 30 s',
    remedy: 'See journalctl -k and garrison drives; what uses it hangs too.',
    appearMs: 0,
    clearMs: minute,
    hiddenBy: lostArrays,
  },
  'filesystem.space': {
    meaning: 'A filesystem has little space left; VMs whose disks are on it pause when it is full.',
    remedy: 'Remove what is not needed, or raise the share or size of its volume in the document.',
    appearMs: 0,
    clearMs: 5 * minute,
    level: {
      metric: 'filesystem.used',
      above: { warning: 85, high: 95 },
      until: 83,
      says: (value) => `${value} is used`,
    },
    hiddenBy: lostArrays,
  },
  'fleet.certificate': {
    meaning:
      'The certificate of this host in its fleet could not be renewed; when it ends, no host trusts it.',
    when: 'three quarters of its time are over; high once all of it is',
    remedy:
      'See garrison fleet peers for why. It is renewed by any host that issues certificates; once it has ended: garrison fleet revoke where it was let in, then invite and join.',
    appearMs: 0,
    clearMs: 0,
  },
  'fleet.file-damaged': {
    meaning:
      'A file that this host keeps of its fleet (where the others are, or whom not to trust) does not hold what was written there.',
    when: 'it was read, until it is written anew: by the daemon within a minute, or when a peer tells it again',
    remedy:
      'Nothing to do for known.json and discovered.json; see garrison fleet status that all hosts are there. A damaged file in revoked: remove it, and revoke that host again where it was let in.',
    appearMs: 0,
    clearMs: 0,
  },
  'fleet.issuer': {
    meaning: 'This host issues the certificates of the fleet, and its own right to do so comes to its end.',
    when: 'less than 120 days are left; a warning below 30 days',
    remedy:
      'Renew it where the key of the authority is: garrison fleet request here, garrison fleet sign there, garrison fleet accept here.',
    appearMs: 0,
    clearMs: 0,
  },
  'fleet.not-working': {
    meaning: 'This host has joined a fleet, and its keys or its port do not work.',
    when: 'it was tried, and is tried again each minute',
    remedy:
      'See the message for why, and journalctl -u garrison; garrison fleet status tells how the others are.',
    appearMs: 2 * minute,
    clearMs: 0,
  },
  'host.unreadable': {
    meaning: 'A part of the host could not be looked at, so nothing is known of it.',
    when: 'reading it failed',
    remedy: 'See the message for why. What was known of it before goes on being told.',
    appearMs: minute,
    clearMs: minute,
  },
  'kernel.reboot-needed': {
    meaning: 'Software was installed that runs only from the next boot on.',
    when: 'Debian says so in /run/reboot-required, or a kernel, libc, systemd, D-Bus or firmware package is newer than the boot',
    remedy: 'Plan a reboot: move or stop the VMs, wait for arrays to be redundant, then reboot.',
    appearMs: 0,
    clearMs: 0,
  },
  'kernel.tainted': {
    meaning: 'The kernel has something to say against itself: a crash in part, a lockup, damaged memory.',
    when: 'one of its taint marks M, B, D, L, R or W is set; they stay until the next boot',
    remedy: 'Read journalctl -k for what happened, and reboot when it suits.',
    appearMs: 0,
    clearMs: 0,
  },
  'libvirt.silent': {
    meaning: 'libvirt does not answer, so nobody can tell what the VMs do; they may well be running.',
    when: 'no answer for 30 s',
    remedy:
      'See systemctl status libvirtd virtqemud and journalctl -u libvirtd; a restart of it touches no running VM.',
    appearMs: 30 * second,
    clearMs: 0,
  },
  'load.high': {
    meaning: 'Far more tasks want to run than there are processors.',
    remedy: 'See garrison vm stats for the VMs that take most, and garrison history pressure.cpu.',
    appearMs: 5 * minute,
    clearMs: 15 * minute,
    level: {
      metric: 'load.per-processor',
      above: { notice: 4, warning: 16 },
      until: 2,
      says: (value) => `${value} tasks for each processor over fifteen minutes`,
    },
    hiddenBy: ['pressure.cpu', 'pressure.io', 'filesystem.silent'],
  },
  'memory.oom-kills': {
    meaning: 'The kernel ended processes for lack of memory; a VM may be among them.',
    remedy:
      'See journalctl -k -g "Out of memory" for which, and garrison why vm NAME. It is told for an hour.',
    appearMs: 0,
    clearMs: hour,
    level: {
      metric: 'memory.oom-kills',
      above: { high: 0 },
      until: 0,
      says: (value) => `processes that the kernel ended within ten seconds for lack of memory: ${value}`,
    },
  },
  'memory.used': {
    meaning: 'There is hardly any memory left; the kernel will end processes next, VMs among them.',
    remedy: 'See garrison vm list and garrison vm stats; stop a VM, or give some of them less memory.',
    appearMs: 2 * minute,
    clearMs: 5 * minute,
    level: {
      metric: 'memory.used',
      above: { warning: 95, high: 98 },
      until: 93,
      says: (value) => `${value} of the memory cannot be had`,
    },
  },
  'nic.errors': {
    meaning: 'A NIC loses packets.',
    remedy:
      'See ip -s -s link for which kind; look at its cable and its switch, and at the load of the host.',
    appearMs: 10 * minute,
    clearMs: 10 * minute,
    level: {
      metric: 'nic.errors',
      above: { notice: 1, warning: 50 },
      until: 0.5,
      says: (value) => `${value} packets are damaged or dropped`,
    },
    hiddenBy: ['nic.no-carrier'],
  },
  'nic.no-carrier': {
    meaning: 'A NIC that is switched on has no link: nothing reaches the network through it.',
    when: 'it is up and has no carrier; high where the document has it as an uplink, or a VM network leads there',
    remedy:
      'Look at its cable and its switch. Over an LNI the VMs are reached; garrison report tells how others are.',
    appearMs: 20 * second,
    clearMs: 20 * second,
  },
  'pressure.cpu': {
    meaning: 'Work waits for processors most of the time.',
    remedy: 'See garrison vm stats for the VMs that take most.',
    appearMs: 15 * minute,
    clearMs: 15 * minute,
    level: {
      metric: 'pressure.cpu',
      above: { notice: 60, warning: 95 },
      until: 40,
      says: (value) => `something waits for a processor ${value} of the time`,
    },
    hiddenBy: ['cpu.steal'],
  },
  'pressure.io': {
    meaning: 'Work stands still for want of drives.',
    remedy:
      'See garrison history drive.busy and drive.latency, and garrison vm stats for who reads and writes.',
    appearMs: 10 * minute,
    clearMs: 10 * minute,
    level: {
      metric: 'pressure.io-full',
      above: { warning: 40, high: 90 },
      until: 20,
      says: (value) => `everything waits for drives ${value} of the time`,
    },
    hiddenBy: ['array.resyncing', 'filesystem.silent'],
  },
  'pressure.memory': {
    meaning: 'Work stands still for want of memory.',
    remedy: 'See garrison vm list and garrison vm stats; stop a VM, or give some of them less memory.',
    appearMs: 5 * minute,
    clearMs: 10 * minute,
    level: {
      metric: 'pressure.memory-full',
      above: { warning: 10, high: 40 },
      until: 5,
      says: (value) => `everything waits for memory ${value} of the time`,
    },
    hiddenBy: ['memory.used'],
  },
  'root.silent': {
    meaning: 'The root side could not be asked, so drift and what only root may see are as old as they say.',
    when: 'asking it failed',
    remedy:
      'See systemctl status garrison-read.socket garrison-operate.service and journalctl -u garrison-operate.',
    appearMs: 10 * second,
    clearMs: 0,
  },
  'root.unknown': {
    meaning: 'A resource could not be read, so nobody can tell whether it is settled.',
    when: 'the root side says that it is unknown',
    remedy: 'garrison why RESOURCE tells what could not be read.',
    appearMs: 0,
    clearMs: 0,
    hiddenBy: ['root.silent'],
  },
  'units.failed': {
    meaning: 'A unit of systemd has failed and does not run.',
    when: 'systemctl lists it as failed',
    remedy:
      'See systemctl status UNIT for why; systemctl reset-failed UNIT forgets one that does not matter.',
    appearMs: 0,
    clearMs: 0,
    hiddenBy: ['software.unit-failed'],
  },
  'vm.crashed': {
    meaning: 'A VM has crashed, and is off or stands still.',
    when: 'libvirt says crashed, or paused because the guest panicked',
    remedy: 'garrison vm logs NAME tells what was last said; garrison vm start NAME starts it again.',
    appearMs: 0,
    clearMs: 0,
    hiddenBy: ['libvirt.silent'],
  },
  'vm.io-error': {
    meaning: 'A VM was paused because one of its disks could not be read or written.',
    when: 'libvirt says paused, I/O error',
    remedy:
      'Most often the filesystem of its disk is full or its drive fails: mend that, then garrison vm resume NAME.',
    appearMs: 0,
    clearMs: 0,
    hiddenBy: ['libvirt.silent', 'array.failed', 'array.inactive'],
  },
  'vm.lost': {
    meaning: 'The process of a VM has ended, and libvirt has not said why.',
    when: 'it has ended and libvirt still lists it',
    remedy: 'See garrison vm logs NAME and journalctl -k -g "Out of memory".',
    appearMs: 20 * second,
    clearMs: 0,
    hiddenBy: ['memory.oom-kills'],
  },
  'vm.stuck': {
    meaning: 'The QEMU of a VM does not answer libvirt; the guest may go on working.',
    when: 'questions to it have been without an answer for 2 min',
    remedy:
      'See whether its process waits for a drive (garrison vm show NAME); garrison vm kill NAME ends it as if its power was cut.',
    appearMs: 2 * minute,
    clearMs: 0,
    hiddenBy: ['libvirt.silent', 'filesystem.silent', 'array.failed'],
  },
} as const satisfies Readonly<Record<string, FindingEntry>>

/** The code of a finding that the daemon makes itself. */
export type FindingCode = keyof typeof FINDINGS

/** What the table knows of a code; null for one of `garrison status`. */
export const findingEntry = (code: string): FindingEntry | null =>
  Object.hasOwn(FINDINGS, code) ? FINDINGS[code as FindingCode] : null

/** What a finding is about, by its code: `array` of `array.degraded`. */
export const kindOf = (code: string): string => code.slice(0, code.indexOf('.'))
