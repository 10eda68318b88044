// What proves that an image of a backup can be restored from: it is read from the drive, whole, as what it is meant to be.

import { HostError } from '../../../provisioning/problem.ts'
import { type DiskFormat, parseQemuImg, qemuImg } from '../../../provisioning/vms/qemu-img.ts'
import { digestOf, runTool, type Tools } from './tools.ts'

/** What an image is meant to be. `backing` is the name, in its own folder, of the image that it stands on. */
export interface Meant {
  readonly path: string
  readonly virtualBytes: number | null
  readonly backing: string | null
}

const damaged = (path: string, why: string): HostError =>
  new HostError('backup.damaged', `${path} ${why}`, { details: { path } })

/** Makes sure that what is read of a file comes from the drive, and not from the memory of this host. */
async function forget(tools: Pick<Tools, 'performer' | 'signal'>, path: string): Promise<void> {
  await runTool(tools, ['/usr/bin/sync', '--', path])
  await runTool(tools, ['/usr/bin/dd', `if=${path}`, 'iflag=nocache', 'count=0', 'status=none'])
}

/** What the head of an image says. Throws `backup.damaged` when that is not what is meant, before anything follows it. */
export async function judgeHead(
  { reader }: Pick<Tools, 'reader'>,
  { path, virtualBytes, backing }: Meant,
): Promise<{ readonly virtualBytes: number }> {
  const facts = parseQemuImg(await reader.query(qemuImg(path, 'qcow2')))
  if (facts.dataFile !== null) throw damaged(path, `keeps its content in ${facts.dataFile}`)
  if (facts.isCorrupt) throw damaged(path, 'is marked as corrupt')
  const folder = path.slice(0, path.lastIndexOf('/'))
  const wanted = backing === null ? null : `${folder}/${backing}`
  const stands = facts.backing?.path ?? null
  if (stands !== wanted)
    throw damaged(path, `stands on ${stands ?? 'nothing'}, and is meant to stand on ${wanted ?? 'nothing'}`)
  if (stands !== null && facts.backing?.format !== 'qcow2')
    throw damaged(path, `takes what it stands on for ${facts.backing?.format ?? 'whatever it looks like'}`)
  if (virtualBytes !== null && facts.virtualBytes !== virtualBytes)
    throw damaged(path, `is a disk of ${facts.virtualBytes} bytes, not of ${virtualBytes}`)
  return { virtualBytes: facts.virtualBytes }
}

/**
 * Reads an image back. Its structure is checked and all its bytes are read; their digest is what it is known by from then on.
 * Throws `backup.damaged`.
 */
export async function readBack(
  tools: Omit<Tools, 'to'>,
  meant: Meant,
  subject: string,
): Promise<{ readonly virtualBytes: number; readonly fileBytes: number; readonly sha256: string }> {
  const { path } = meant
  await forget(tools, path)
  const { virtualBytes } = await judgeHead(tools, meant)
  // 3: clusters that nothing refers to. They waste room and no more.
  const exit = await runTool(
    tools,
    ['/usr/bin/qemu-img', 'check', '-q', '-f', 'qcow2', '--', path],
    [0, 2, 3],
  )
  if (exit === 2) throw damaged(path, 'has errors, says qemu-img check')
  return { virtualBytes, ...(await digestOf(tools, path, { subject, doing: 'reading back' })) }
}

/** Whether two images are the same disk to a guest. Throws `action.failed` when one of them is in use. */
export const isSameDisk = async (
  tools: Pick<Tools, 'performer' | 'signal'>,
  one: { readonly path: string; readonly format: DiskFormat },
  other: { readonly path: string; readonly format: DiskFormat },
): Promise<boolean> =>
  (await runTool(
    tools,
    ['/usr/bin/qemu-img', 'compare', '-q', '-f', one.format, '-F', other.format, '--', one.path, other.path],
    [0, 1],
  )) === 0
