// Made-up hosts for the tests of the array: drives, arrays and everything around them, whole unless a test takes something away.

import type { ArrayObserved, Drive, MdArray, Probe } from '../../provisioning/array/observe.ts'
import { type Desired, desiredSchema } from '../../provisioning/desired.ts'

const tebibyte = 2 ** 40

/** What reading a blank, idle drive gives. */
export const blank: Probe = {
  signatures: [],
  recognised: { type: null, version: null, uuid: null, label: null, partitionTable: null, ambivalent: false },
  sample: { sampledBytes: 34 * 2 ** 20, nonZeroAt: null },
  exclusive: 'free',
  activity: { readSectors: 0, writtenSectors: 0, inFlight: 0 },
}

/** A blank instance store drive nvme`number`n1 with serial AWS000`number`. */
export const drive = (number: number, more: Partial<Drive> = {}): Drive => ({
  name: `nvme${number}n1`,
  path: `/dev/nvme${number}n1`,
  kind: 'disk',
  model: 'Amazon EC2 NVMe Instance Storage',
  serial: `AWS000${number}`,
  wwn: `nvme.1d0f-${number}`,
  sizeBytes: 1.7 * tebibyte,
  transport: 'nvme',
  readOnly: false,
  removable: false,
  zoned: 'none',
  system: [],
  partitions: [],
  holders: [],
  arrays: [],
  mounts: [],
  swaps: [],
  named: [],
  vms: [],
  superblock: null,
  probe: blank,
  smart: { criticalWarning: 0, usedPercent: 3, sparePercent: 100, mediaErrors: 0 },
  unread: [],
  ...more,
})

/** The drive that the system stands on. */
export const rootDrive = drive(0, {
  system: ['/'],
  partitions: ['nvme0n1p1', 'nvme0n1p127'],
  mounts: [{ path: '/', pid: null }],
  probe: null,
  smart: null,
})

/** A drive that is in the running array `kernelName`. */
export const memberDrive = (number: number, kernelName = 'md127', more: Partial<Drive> = {}): Drive =>
  drive(number, { holders: [kernelName], arrays: [kernelName], probe: null, ...more })

/** Two drives are in it for each of `numbers`; nothing is wrong with it. */
export const runningArray = (numbers: readonly number[], more: Partial<MdArray> = {}): MdArray => ({
  kernelName: 'md127',
  path: '/dev/md127',
  active: true,
  readOnly: 'no',
  level: 'raid5',
  uuid: '11111111:22222222:33333333:44444444',
  homehost: 'any',
  name: 'garrison',
  metadata: '1.2',
  consistency: 'ppl',
  raidDevices: numbers.length,
  workingDevices: numbers.length,
  memberKib: 1_800_000_000,
  dataOffsetSectors: 264_192,
  failed: false,
  members: numbers.map((number, slot) => ({
    name: `nvme${number}n1`,
    drive: `nvme${number}n1`,
    slot,
    condition: 'active',
  })),
  progress: null,
  mismatches: 0,
  links: ['garrison'],
  used: false,
  system: [],
  ...more,
})

/** A Debian host on which everything could be read: the system's drive and three blank ones. */
export const host = (more: Partial<ArrayObserved> = {}): ArrayObserved => ({
  wanted: null,
  drives: [rootDrive, drive(1), drive(2), drive(3)],
  arrays: [],
  links: {},
  conf: { path: '/etc/mdadm/mdadm.conf', text: 'HOMEHOST <system>\n', remembered: null, conflicts: [] },
  initramfs: { tool: 'update-initramfs', stale: [] },
  machineId: '6c61620000000000000000000000cafe',
  instance: 'i-0123456789abcdef0',
  wantedInstance: null,
  lockHolder: null,
  unfinished: [],
  udevSettled: true,
  creating: [],
  lostVolumes: [],
  unread: [],
  ...more,
})

/** The desired document with this array part. */
export const wanting = (array: Readonly<Record<string, unknown>> = {}): Desired => ({
  ...desiredSchema.parse({ version: 1, array }),
  sources: {},
})
