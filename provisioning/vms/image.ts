// Images that disks of VMs begin as: what a declaration may say of one, and the name that it has in a pool.

import { createHash } from 'node:crypto'
import { z } from 'zod'
import { absolutePath } from '../values.ts'

/** Whether a text is an http(s) URL that names a file, and nothing that would be a secret or never be sent. */
function isFileUrl(text: string): boolean {
  const url = URL.parse(text)
  return (
    url !== null &&
    ['http:', 'https:'].includes(url.protocol) &&
    url.username === '' &&
    url.password === '' &&
    url.hash === '' &&
    !url.pathname.endsWith('/')
  )
}

/** An S3 object as the AWS tools write it; bucket names as S3 limits them, keys of at most 1024 bytes. */
const objectPattern = /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\/[^\0-\x1f\x7f]{1,1024}$/

const source = z.union([
  absolutePath,
  z
    .string()
    .max(4096)
    .regex(/^https?:\/\//i, 'must be a path, an http(s) URL or s3://BUCKET/KEY')
    .refine(isFileUrl, 'must be the URL of a file, without user, password or #'),
  z.string().regex(objectPattern, 'must be a path, an http(s) URL or s3://BUCKET/KEY'),
])

/** `sha256:` or `sha512:` and the digest in hexadecimal digits. */
const checksum = z
  .string()
  .regex(
    /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/,
    'must be sha256: and 64, or sha512: and 128 lower-case hexadecimal digits',
  )

/** The image that a disk begins as, as it is declared. */
export const imageSchema = z
  .strictObject({
    source: source.describe('Where it comes from: an absolute path, an http(s) URL, or s3://BUCKET/KEY.'),
    format: z
      .enum(['qcow2', 'raw'])
      .default('qcow2')
      .describe('Its format; it is never guessed from its content.'),
    checksum: checksum
      .optional()
      .describe('sha256: or sha512: and its digest; must be given for a URL or an S3 object.'),
    sizeBytes: z
      .int()
      .min(1)
      .optional()
      .describe('Its length in bytes, where it is known: one of another length is refused at once.'),
    copy: z
      .enum(['thin', 'full', 'own'])
      .default('thin')
      .describe(
        'thin: the disk is a clone that keeps only what differs; full: the image is copied whole; own: what is fetched is the disk itself, and the pool keeps no image.',
      ),
  })
  .refine(({ source, checksum }) => source.startsWith('/') || checksum !== undefined, {
    message: 'must have a checksum: what comes over a network is only used when it is what was meant',
    path: ['source'],
  })

/** An image, after defaults. */
export type Image = z.output<typeof imageSchema>

/** The algorithm and the digest of a checksum that the schema has accepted. */
export function checksumParts(checksum: string): { readonly algorithm: string; readonly digest: string } {
  const [algorithm = '', digest = ''] = checksum.split(':')
  return { algorithm, digest }
}

/**
 * The file name of a fetched image in a pool: a readable end of its source, and a digest of what it is. The same content declared
 * with two sources is two files; another checksum is another file, so one that is in use is never written again.
 */
export function imageFileName({ source, format, checksum = '' }: Image): string {
  const last = (source.startsWith('/') ? source : source.replace(/[?#].*$/s, '')).split('/').at(-1) ?? ''
  const readable = last
    .replace(/\.(qcow2|img|raw)$/i, '')
    .replace(/[^A-Za-z0-9_-]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, 60)
  const digest = createHash('sha256')
    .update(JSON.stringify([source, format, checksum]))
    .digest('hex')
    .slice(0, 16)
  return `${readable === '' ? 'image' : readable}-${digest}.${format}`
}
