// The header of a qcow2 image (QEMU's docs/interop/qcow2.txt), read here so that nothing opens an image that is not yet trusted.

import { formatBytes } from '../block/bytes.ts'
import type { ProblemCode } from '../problem.ts'

/** What the header of a qcow2 image says. */
export interface Qcow2Header {
  readonly version: number
  readonly virtualBytes: number
  /** The name of the file that it keeps only the difference to, or null. */
  readonly backing: string | null
  /** Its format, where the image says it. */
  readonly backingFormat: string | null
  /** Whether the bytes that were given hold all of the name. */
  readonly isWhole: boolean
  /** Whether its content is in another file. */
  readonly hasDataFile: boolean
  readonly isEncrypted: boolean
  readonly isCorrupt: boolean
}

/** How many bytes of an image `imageObjection` wants: a backing file's name has at most 1023 bytes and is in the first cluster. */
export const headBytes = 65_536

const magic = Buffer.from('QFI\xfb', 'latin1')

/** Header extensions: a type, a length, and that many bytes filled up to eight; the type 0 ends them. */
const backingFormatType = 0xe2792aca

function backingFormatIn(bytes: Buffer, start: number): string | null {
  for (let at = start; at + 8 <= bytes.length; ) {
    const [type, length] = [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)]
    if (type === 0 || at + 8 + length > bytes.length) return null
    if (type === backingFormatType) return bytes.subarray(at + 8, at + 8 + length).toString('utf8')
    at += 8 + Math.ceil(length / 8) * 8
  }
  return null
}

/** The header in the first bytes of a file; null when they are those of no qcow2 image. */
export function parseQcow2(head: Uint8Array): Qcow2Header | null {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength)
  if (bytes.length < 72 || !bytes.subarray(0, 4).equals(magic)) return null
  const version = bytes.readUInt32BE(4)
  const backingOffset = Number(bytes.readBigUInt64BE(8))
  const backingBytes = bytes.readUInt32BE(16)
  // Version 2 ends before the features and before its own length.
  const features = version >= 3 && bytes.length >= 80 ? bytes.readBigUInt64BE(72) : 0n
  return {
    version,
    virtualBytes: Number(bytes.readBigUInt64BE(24)),
    backing:
      backingOffset === 0
        ? null
        : bytes.subarray(backingOffset, backingOffset + Math.min(backingBytes, 1023)).toString('utf8'),
    backingFormat: backingFormatIn(bytes, version >= 3 && bytes.length >= 104 ? bytes.readUInt32BE(100) : 72),
    isWhole: backingOffset === 0 || backingOffset + backingBytes <= bytes.length,
    isEncrypted: bytes.readUInt32BE(32) !== 0,
    isCorrupt: (features & 2n) !== 0n,
    hasDataFile: (features & 4n) !== 0n,
  }
}

/** How files begin that people take for an image, and what they are. */
const wrappings: readonly (readonly [begins: string, is: string])[] = [
  ['\x1f\x8b', 'compressed with gzip'],
  ['\xfd7zXZ\0', 'compressed with xz'],
  ['\x28\xb5\x2f\xfd', 'compressed with zstd'],
  ['BZh', 'compressed with bzip2'],
  ['PK\x03\x04', 'a zip archive'],
  ['KDMV', 'a VMDK image'],
  ['vhdxfile', 'a VHDX image'],
  ['conectix', 'a VHD image'],
  ['<!DOCTYPE', 'a web page'],
  ['<html', 'a web page'],
]

const wrappingOf = (head: Uint8Array): string | undefined => {
  const text = Buffer.from(head.subarray(0, 16)).toString('latin1')
  return wrappings.find(([begins]) => text.startsWith(begins))?.[1]
}

/** Why an image from elsewhere may not be used, or null. */
export function imageObjection(
  format: 'qcow2' | 'raw',
  head: Uint8Array,
): { readonly code: ProblemCode; readonly message: string } | null {
  const header = parseQcow2(head)
  const wrapping = wrappingOf(head)
  if (wrapping !== undefined)
    return { code: 'image.format-differs', message: `it is ${wrapping}, not ${format}` }
  if (format === 'raw')
    // A guest could have written it there: whoever guessed the format would then follow it to any file of the host.
    return header === null
      ? null
      : { code: 'image.format-differs', message: 'it begins as a qcow2 image, not raw' }
  if (header === null)
    return { code: 'image.format-differs', message: 'it does not begin as a qcow2 image does' }
  const { version, backing, hasDataFile, isEncrypted, isCorrupt, virtualBytes } = header
  if (version !== 2 && version !== 3)
    return {
      code: 'image.format-differs',
      message: `it is qcow2 of version ${version}, which is none that is known`,
    }
  if (backing !== null)
    return {
      code: 'image.leads-elsewhere',
      message: `it keeps only what differs from a backing file, ${JSON.stringify(backing)}`,
    }
  if (hasDataFile)
    return {
      code: 'image.leads-elsewhere',
      message: 'it keeps its content in another file (an external data file)',
    }
  if (isEncrypted) return { code: 'image.encrypted', message: 'it is encrypted' }
  if (isCorrupt) return { code: 'image.corrupt', message: 'it is marked as corrupt' }
  if (virtualBytes > 2 ** 46)
    return { code: 'image.format-differs', message: `it says to be a disk of ${formatBytes(virtualBytes)}` }
  return null
}
