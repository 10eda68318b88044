// How far an image that is fetched has come, told by the file that grows, whichever process fetches it.

import { basename } from 'node:path'
import type { HostReader } from '../../provisioning/host.ts'
import type { Progress } from '../api/progress.ts'

const pollMs = 500

/** Tells how far the image that will be at `path` is, until the answer is called. */
export function watchImage(
  reader: Pick<HostReader, 'facts' | 'readText'>,
  path: string,
  tell: (line: Progress) => void,
): () => void {
  const look = async () => {
    const [part, record] = await Promise.all([
      reader.facts(`${path}.part`),
      reader.readText(`${path}.part.json`),
    ])
    if (part === null || record === null) return
    const total = /"totalBytes":(\d+)/.exec(record)?.[1]
    tell({
      event: 'progress',
      subject: basename(path),
      doing: 'fetching',
      doneBytes: part.sizeBytes,
      totalBytes: total === undefined ? null : Number(total),
    })
  }
  const timer = setInterval(() => {
    // The fetch itself says what is wrong.
    look().catch(() => undefined)
  }, pollMs)
  return () => clearInterval(timer)
}
