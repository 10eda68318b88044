// The verb `drives`: every drive, chosen or refused for the array, and why.

import type { ArrayObserved, Drive } from '../../provisioning/array/index.ts'
import { HostError, type ProblemCode, problems } from '../../provisioning/problem.ts'
import type { Context, View } from '../api/context.ts'
import { bytes, columns, paint, paragraph, type Style, shorten, type Terminal } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'

/** One reason against a drive; `text` goes on after its name. */
interface Reason {
  readonly code: ProblemCode
  readonly text: string
  readonly remedy: string
}

/** One drive in the answer. */
export interface JudgedDrive extends Pick<Drive, 'name' | 'path' | 'model' | 'serial' | 'sizeBytes'> {
  readonly verdict: 'member' | 'chosen' | 'unused' | 'refused'
  readonly text: string
  readonly reasons: readonly Reason[]
}

/** The answer of `drives`. */
export interface Drives {
  readonly host: string
  readonly atMs: number
  readonly ageMs: number
  readonly drives: readonly JudgedDrive[]
}

/** What was observed of the drives of a view. Throws the problem that kept the array from being read. */
export function observedDrives({ assessments }: View): ArrayObserved {
  const array = assessments.find(({ resource }) => resource === 'array')
  if (array?.problem) throw new HostError(array.problem.code, array.problem.message, array.problem)
  return array?.observed as ArrayObserved
}

/** Every drive of a view with its verdict, in the order of the host. */
export async function judgedDrives(view: View): Promise<readonly JudgedDrive[]> {
  const observed = observedDrives(view)
  const { selectDrives } = await import('../../provisioning/array/index.ts')
  const { verdicts } = selectDrives(observed, view.desired)
  return observed.drives.flatMap(({ name, path, model, serial, sizeBytes }) => {
    const one = verdicts.find(({ drive }) => drive === name)
    if (one === undefined) return []
    const reasons = one.refusals.map(({ code, message }) => ({
      code,
      text: message,
      remedy: problems()[code].remedy,
    }))
    return { name, path, model, serial, sizeBytes, verdict: one.verdict, text: one.text, reasons }
  })
}

/**
 * The drive of that kernel name, path or serial; a serial may be shortened with `…` as the table shows it.
 * Throws `request.no-such-drive` when there is none or more than one.
 */
export function findDrive<D extends Pick<JudgedDrive, 'name' | 'path' | 'serial'>>(
  drives: readonly D[],
  called: string,
): D {
  const [head = '', tail] = called.split(/…|\.\.\./)
  const is = ({ name, path, serial }: D) =>
    name === called ||
    path === called ||
    serial === called ||
    (tail !== undefined && serial?.startsWith(head) && serial.endsWith(tail))
  const [found, ...others] = drives.filter(is)
  if (found === undefined)
    throw new HostError('request.no-such-drive', `no drive of this host is called ${called}`)
  if (others.length > 0) {
    const names = [found, ...others].map(({ name }) => name).join(', ')
    throw new HostError('request.no-such-drive', `several drives are called ${called}: ${names}`)
  }
  return found
}

/** Looks at the drives, or shows the last look while it is young. */
export async function run(context: Context, { fresh }: Args<'drives'>): Promise<Drives> {
  const view = await context.look({ fresh })
  const { hostname: host, clock } = context
  const ageMs = Math.max(0, clock() - view.atMs)
  return { host, atMs: view.atMs, ageMs, drives: await judgedDrives(view) }
}

/** The colour of a verdict. */
export const verdictStyle: Readonly<Record<JudgedDrive['verdict'], Style>> = {
  member: 'good',
  chosen: 'good',
  unused: 'dim',
  refused: 'warn',
}

const headings = ['drive', 'model', 'serial', 'size', 'verdict'] as const
/** The most columns that drive, model, serial and size may take, so that a verdict has room beside them. */
const mostColumns = [10, 13, 11, 8] as const

const remedyColumn = 9

/** The answer in words. */
export function render({ drives }: Drives, terminal: Terminal): string {
  if (drives.length === 0) return 'No drives.'
  const rows = drives.map((drive) =>
    [drive.name, drive.model ?? '-', drive.serial ?? '-', bytes(drive.sizeBytes)].map((cell, at) =>
      shorten(cell, mostColumns[at] ?? columns),
    ),
  )
  const widths = mostColumns.map((_, at) =>
    Math.max(headings[at]?.length ?? 0, ...rows.map((row) => row[at]?.length ?? 0)),
  )
  const lead = (cells: readonly string[]) =>
    cells.map((cell, at) => `${cell.padEnd(widths[at] ?? 0)}  `).join('')
  const verdictColumn = widths.reduce((sum, width) => sum + width + 2, 0)
  return [
    paint(terminal, 'dim', `${lead(headings.slice(0, -1))}${headings.at(-1)}`),
    ...drives.flatMap(({ verdict, text, reasons }, at) => {
      const what = `${paint(terminal, verdictStyle[verdict], verdict)}: ${text}`
      const row = paragraph(lead(rows[at] ?? []), what, verdictColumn)
      const remedy = reasons[0]?.remedy
      // The same advice for drives in a row is given once, after the last of them.
      const said = remedy === undefined || remedy === drives[at + 1]?.reasons[0]?.remedy
      return said ? [row] : [row, paragraph('', remedy, remedyColumn)]
    }),
  ].join('\n')
}

/** Always 0: whether the drives suffice is for `plan` to say. */
export const exitOf = (): Exit => EXIT.done
