// The verb `images list`: the images in the pools, where they came from, and what stands on them.

import { basename } from 'node:path'
import type { ObservedImages, PoolImage } from '../../provisioning/vms/images.ts'
import type { Context } from '../api/context.ts'
import { ago, bytes, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `images list`. */
export type ImageList = ObservedImages

/** Looks at them. Throws `desired.invalid`, `libvirt.unreachable`. */
export async function run(context: Context): Promise<ImageList> {
  const { observeImages } = await import('../../provisioning/vms/images.ts')
  return observeImages(context.reader, await context.desired())
}

const indent = 4

function imageText(
  { pool, path, format, fileBytes, virtualBytes, problem, origin, users, declaredBy }: PoolImage,
  terminal: Terminal,
): readonly string[] {
  const standing = users.map((user) => {
    const who = user.vms.length === 0 ? '' : ` (${user.vms.join(', ')})`
    return user.path === path ? `a disk of ${user.vms.join(', ')}` : `${user.path}${who}`
  })
  return [
    paint(terminal, 'strong', basename(path)),
    paragraph(
      '',
      [
        `in ${pool}`,
        format,
        `${bytes(fileBytes)}${virtualBytes === null ? '' : `, a disk of ${bytes(virtualBytes)}`}`,
        ...(origin === null
          ? ['nobody wrote down where it came from']
          : [
              `from ${origin.source}, ${ago(terminal.nowMs - origin.fetchedMs)}`,
              `${origin.checksum.slice(0, 19)}…`,
            ]),
      ].join(', '),
      indent,
    ),
    ...(problem === null ? [] : [paragraph('', paint(terminal, 'bad', problem), indent)]),
    paragraph(
      '',
      standing.length === 0
        ? paint(terminal, 'dim', 'nothing stands on it')
        : `stands below: ${standing.join(', ')}`,
      indent,
    ),
    ...(declaredBy.length === 0 ? [] : [paragraph('', `declared for: ${declaredBy.join(', ')}`, indent)]),
  ]
}

/** The list in words. */
export function render({ images, unfinished, unread }: ImageList, terminal: Terminal): string {
  const lines = [
    ...images.flatMap((image) => imageText(image, terminal)),
    ...unfinished.flatMap(({ path, pool, doneBytes }) => [
      paint(terminal, 'strong', basename(path)),
      paragraph('', `in ${pool}, unfinished: ${bytes(doneBytes)} are there`, indent),
    ]),
    ...unread.map((what) => paragraph(paint(terminal, 'bad', 'not read:'), what, indent)),
  ]
  return lines.length === 0 ? 'No images.' : lines.join('\n')
}

/** 0, or 4 when something that may stand on an image could not be read. */
export const exitOf = ({ unread }: ImageList): Exit => (unread.length === 0 ? EXIT.done : EXIT.unknown)
