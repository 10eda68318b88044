// Disk images: the argv of qemu-img (QEMU >= 6.2) that asks, makes and grows them, and the parser of `qemu-img info`.

import { z } from 'zod'
import type { Answer } from '../host.ts'
import { HostError } from '../problem.ts'

const program = '/usr/bin/qemu-img'

/** The format of a disk; it is always said, since a guest can write into a raw disk what looks like another format. */
export type DiskFormat = 'qcow2' | 'raw'

/** What one disk image is. Sizes in bytes. */
export interface DiskFacts {
  readonly path: string
  readonly format: string
  /** What the guest sees. */
  readonly virtualBytes: number
  /** What it takes on the host's filesystem. */
  readonly allocatedBytes: number
  /** The image that it keeps only the difference to. `format` is null where the image does not say it. */
  readonly backing: { readonly path: string; readonly format: string | null } | null
  /** A second file that its content is in. */
  readonly dataFile: string | null
  readonly isEncrypted: boolean
  readonly isCorrupt: boolean
  /** Whether it was in use when its host or QEMU ended. */
  readonly isDirty: boolean
}

/** Asks what an image is. Its backing file is not opened; it may be in use. */
export const qemuImg = (path: string, format: DiskFormat): [string, ...string[]] => [
  program,
  'info',
  '--output=json',
  '--force-share',
  `--format=${format}`,
  '--',
  path,
]

const schema = z.object({
  filename: z.string(),
  format: z.string(),
  'virtual-size': z.int().min(0),
  'actual-size': z.int().min(0).default(0),
  'backing-filename': z.string().optional(),
  'full-backing-filename': z.string().optional(),
  'backing-filename-format': z.string().optional(),
  encrypted: z.boolean().default(false),
  'dirty-flag': z.boolean().default(false),
  'format-specific': z
    .object({
      data: z.object({ corrupt: z.boolean().default(false), 'data-file': z.string().optional() }).optional(),
    })
    .optional(),
})

/**
 * What `qemu-img info --output=json` says of one image. Errors: `host.unreadable` when it could not open it (no image of that
 * format, no such file), `host.unexpected-answer`.
 */
export function parseQemuImg({ exit, stdout, stderr }: Answer): DiskFacts {
  if (exit !== 0)
    throw new HostError('host.unreadable', `qemu-img ended with ${exit}: ${stderr.trim()}`, {
      details: { exit },
    })
  let answer: unknown
  try {
    answer = JSON.parse(stdout)
  } catch (cause) {
    throw new HostError('host.unexpected-answer', 'qemu-img answered no JSON', { cause })
  }
  const { data: image, error } = schema.safeParse(answer)
  if (error)
    throw new HostError(
      'host.unexpected-answer',
      `qemu-img answered without ${error.issues[0]?.path.join('.')}`,
      {
        cause: error,
      },
    )
  // The full name is what QEMU itself would open: a relative one is taken from the folder of the image.
  const backing = image['full-backing-filename'] ?? image['backing-filename']
  const specific = image['format-specific']?.data
  return {
    path: image.filename,
    format: image.format,
    virtualBytes: image['virtual-size'],
    allocatedBytes: image['actual-size'],
    backing:
      backing === undefined ? null : { path: backing, format: image['backing-filename-format'] ?? null },
    dataFile: specific?.['data-file'] ?? null,
    isEncrypted: image.encrypted,
    isCorrupt: specific?.corrupt ?? false,
    isDirty: image['dirty-flag'],
  }
}

/** Whether a path is in one of the folders, and a plain path: QEMU takes `json:…` and `nbd:…` for more than names. */
const isIn = (path: string, folders: readonly string[]): boolean =>
  path.startsWith('/') &&
  !/\/\.{0,2}(\/|$)/.test(path) &&
  folders.some((folder) => path.startsWith(`${folder}/`))

/**
 * Why an image that is in use here may not be what a VM runs on, or null: it, or what it stands on, leads out of the folders of the
 * pools. Such an image was not made by Garrison.
 */
export function foreignFile(
  { backing, dataFile }: Pick<DiskFacts, 'backing' | 'dataFile'>,
  folders: readonly string[],
): string | null {
  if (dataFile !== null) return `it keeps its content in ${JSON.stringify(dataFile)}`
  if (backing === null) return null
  if (!isIn(backing.path, folders)) return `it stands on ${JSON.stringify(backing.path)}, which is in no pool`
  if (backing.format === null)
    return `it does not say the format of ${JSON.stringify(backing.path)}, which it stands on`
  return null
}

/** A file to make: sizes are bytes, and paths are absolute, so that QEMU takes them for nothing else. */
interface Making {
  readonly path: string
  readonly sizeBytes: number
}

/** Makes a blank disk. */
export const createDisk = ({ path, sizeBytes }: Making, format: DiskFormat): [string, ...string[]] => [
  program,
  'create',
  '-q',
  ...['-f', format],
  '--',
  path,
  String(sizeBytes),
]

/** Makes a qcow2 that keeps only what differs from `base`, which from then on must not change; as large as that without a size. */
export const createClone = (
  { path, sizeBytes }: { readonly path: string; readonly sizeBytes: number | null },
  base: { readonly path: string; readonly format: DiskFormat },
): [string, ...string[]] => [
  program,
  'create',
  '-q',
  ...['-f', 'qcow2'],
  ...['-F', base.format, '-b', base.path],
  '--',
  path,
  ...(sizeBytes === null ? [] : [String(sizeBytes)]),
]

/** Copies an image whole into a new file of a format, leaving out what is zero. What it wrote is on the disk when it ends. */
export const convertDisk = (
  from: { readonly path: string; readonly format: DiskFormat },
  to: { readonly path: string; readonly format: DiskFormat },
): [string, ...string[]] => [
  program,
  'convert',
  '-q',
  // Its default for what it writes, unsafe, would leave it to the kernel.
  ...['-t', 'writeback'],
  ...['-f', from.format, '-O', to.format],
  '--',
  from.path,
  to.path,
]

/** Grows a disk that no VM has open. */
export const resizeDisk = ({ path, sizeBytes }: Making, format: DiskFormat): [string, ...string[]] => [
  program,
  'resize',
  '-q',
  ...['-f', format],
  '--',
  path,
  String(sizeBytes),
]
