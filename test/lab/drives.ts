// The files behind a guest's drives, read from the machine's side with qemu-img: what is on them, to the byte.
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { runTool } from './processes.ts'

/** A run of bytes on a drive. */
export interface Range {
  offset: number
  length: number
}

/** What a drive holds: `hash` is equal for two drives exactly when all their bytes are, zeroes included. */
export interface DriveContent {
  hash: string
  /** The runs of blocks of 4096 bytes that have a byte other than zero, in order, merged. */
  nonZero: Range[]
}

const blockBytes = 4096
const chunkBytes = 1024 * 1024

/** Reads a raw image, skipping its holes; safe while a guest uses it, since both sides share the page cache. */
export async function readContent(path: string): Promise<DriveContent> {
  const map = await runTool(['/usr/bin/qemu-img', 'map', '--force-share', '-f', 'raw', '--output=json', path])
  const extents = JSON.parse(map.stdout) as Array<{
    start: number
    length: number
    data: boolean
    zero: boolean
  }>
  const zero = Buffer.alloc(chunkBytes)
  const chunk = Buffer.alloc(chunkBytes)
  const position = Buffer.alloc(8)
  const hash = createHash('sha256')
  const nonZero: Range[] = []
  const file = await open(path)
  try {
    for (const extent of extents) {
      if (!extent.data || extent.zero) continue
      const end = extent.start + extent.length
      for (let at = extent.start; at < end; at += chunkBytes) {
        const { bytesRead } = await file.read(chunk, 0, Math.min(chunkBytes, end - at), at)
        if (chunk.compare(zero, 0, bytesRead, 0, bytesRead) === 0) continue
        for (let inside = 0; inside < bytesRead; inside += blockBytes) {
          const last = Math.min(inside + blockBytes, bytesRead)
          if (chunk.compare(zero, 0, last - inside, inside, last) === 0) continue
          const offset = at + inside
          position.writeBigUInt64BE(BigInt(offset))
          hash.update(position).update(chunk.subarray(inside, last))
          const before = nonZero.at(-1)
          if (before && before.offset + before.length === offset) before.length += last - inside
          else nonZero.push({ offset, length: last - inside })
        }
      }
    }
  } finally {
    await file.close()
  }
  return { hash: hash.digest('hex'), nonZero }
}

/** Makes a drive image of holes: raw, or qcow2 on top of a raw `backing` image that may be smaller. */
export async function makeDrive(
  path: string,
  sizeBytes: number,
  format: 'raw' | 'qcow2',
  backing?: string,
): Promise<void> {
  const base = backing === undefined ? [] : ['-b', backing, '-F', 'raw']
  await runTool(['/usr/bin/qemu-img', 'create', '-q', '-f', format, ...base, '--', path, String(sizeBytes)])
}
