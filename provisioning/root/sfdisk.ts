// The partition table of a disk as sfdisk (util-linux >= 2.37) tells it, and the argv that grows one partition.

import { z } from 'zod'
import { HostError } from '../problem.ts'
import type { Json } from '../resource.ts'

/** Asks for the table of a disk. Needs root, for it reads the disk. */
export const sfdiskJson = (disk: string): [string, ...string[]] => ['/usr/sbin/sfdisk', '--json', '--', disk]

/** Grows partition `number` up to the next one or the last usable sector: `growStdin` on its standard input. */
export const sfdiskGrow = (disk: string, number: number): [string, ...string[]] => [
  '/usr/sbin/sfdisk',
  // The kernel cannot read the table of a mounted disk again as a whole; partx tells it of the one partition instead.
  '--no-reread',
  '--no-tell-kernel',
  '--force',
  '--partno',
  String(number),
  '--',
  disk,
]

/** `, +`: same start, largest size. Every write of sfdisk also puts the GPT's backup header where the disk ends. */
export const growStdin = ', +\n'

/** One partition, in sectors. `node` is its /dev path; `type` and `uuid` as sfdisk writes them, to restore the table by. */
export interface Partition {
  readonly node: string
  readonly number: number
  readonly startSector: number
  readonly sectors: number
  readonly type: string
  readonly uuid: string | null
}

/** A partition table. `lastUsableSector` is what a GPT's header allows; an MBR has none. */
export interface PartitionTable {
  readonly disk: string
  /** gpt, dos, or another label that sfdisk knows. */
  readonly label: string
  readonly sectorBytes: number
  readonly lastUsableSector: number | null
  /** The backup header is where the disk once ended. */
  readonly backupDisplaced: boolean
  readonly partitions: readonly Partition[]
}

const answer = z.object({
  partitiontable: z.object({
    label: z.string(),
    unit: z.literal('sectors'),
    lastlba: z.number().optional(),
    sectorsize: z.number().default(512),
    partitions: z
      .array(
        z.object({
          node: z.string().regex(/\d$/),
          start: z.number(),
          size: z.number(),
          type: z.string(),
          uuid: z.string().optional(),
        }),
      )
      .default([]),
  }),
})

/**
 * Parses `sfdiskJson(disk)`'s answer; null when the disk has no table that sfdisk knows.
 * Errors: `host.denied`, `host.unexpected-answer`.
 */
export function parseSfdiskJson(
  disk: string,
  { exit, stdout, stderr }: { readonly exit: number; readonly stdout: string; readonly stderr: string },
): PartitionTable | null {
  if (/permission denied/i.test(stderr))
    throw new HostError('host.denied', `sfdisk may not read the partition table of ${disk}`)
  if (exit !== 0 && /does not contain a recognized partition table/.test(stderr)) return null
  let table: z.output<typeof answer>['partitiontable']
  try {
    table = answer.parse(JSON.parse(stdout)).partitiontable
  } catch (cause) {
    throw new HostError(
      'host.unexpected-answer',
      `sfdisk --json ${disk} ended with ${exit}: ${stderr.trim() || 'the form of its answer is not known'}`,
      { cause },
    )
  }
  return {
    disk,
    label: table.label,
    sectorBytes: table.sectorsize,
    lastUsableSector: table.lastlba ?? null,
    // Only a message on stderr tells: the JSON shows the old end of the disk either way.
    backupDisplaced: /backup GPT table is not on the end of the device/.test(stderr),
    partitions: table.partitions.map(({ node, start, size, type, uuid }) => ({
      node,
      number: Number(/\d+$/.exec(node)?.[0]),
      startSector: start,
      sectors: size,
      type,
      uuid: uuid ?? null,
    })),
  }
}

/** The table as the journal keeps it before it is changed: enough to write it again by hand. */
export const tableJson = ({ label, sectorBytes, lastUsableSector, partitions }: PartitionTable): Json => ({
  label,
  sectorBytes,
  lastUsableSector,
  partitions: partitions.map(({ node, startSector, sectors, type, uuid }) => ({
    node,
    startSector,
    sectors,
    type,
    uuid,
  })),
})
