// SELinux labels of mounted folders: `matchpathcon -V` (libselinux) as the question, semanage and restorecon as the answer.

import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'
import type { Action } from '../resource.ts'

/** The label that a path has and the one that the policy wants there. */
export interface Label {
  readonly observed: string
  readonly wanted: string
}

/** Asks whether the label of a path is what the policy says. */
export const matchpathcon = (path: string): [string, ...string[]] => ['/usr/sbin/matchpathcon', '-V', path]

/** Parses the answer; null when the label is right. Errors: `host.unexpected-answer`. */
export function parseMatchpathcon(stdout: string): Label | null {
  if (/ verified\.$/m.test(stdout)) return null
  const [, observed, wanted] = / has context (\S+), should be (\S+)$/m.exec(stdout) ?? []
  if (observed === undefined || wanted === undefined)
    throw new HostError('host.unexpected-answer', 'matchpathcon neither verified the label nor named one')
  return { observed, wanted }
}

/** The label to mend at a mounted path, or null: SELinux is off, the label is right, or the policy leaves the path alone. */
export async function observeLabel(reader: HostReader, path: string): Promise<Label | null> {
  if ((await reader.facts('/sys/fs/selinux/enforce')) === null) return null
  const { stdout } = await reader.query(matchpathcon(path))
  const label = parseMatchpathcon(stdout)
  return label?.wanted === '<<none>>' ? null : label
}

/**
 * Actions that give the mounted folder its label. A path of which the policy knows nothing is `default_t`, which no VM may touch:
 * such a one becomes a place of VM images first.
 */
export const labelActions = (path: string, { wanted }: Label): readonly Action[] => [
  ...(wanted.split(':')[2] === 'default_t'
    ? [
        {
          kind: 'run',
          argv: [
            '/usr/sbin/semanage',
            'fcontext',
            '--add',
            '--type',
            'virt_image_t',
            `${path.replace(/[.^$*+?()[\]{}|\\]/g, '\\$&')}(/.*)?`,
          ],
          deadlineMs: 120_000,
          unit: true,
        } as const,
      ]
    : []),
  { kind: 'run', argv: ['/usr/sbin/restorecon', path], deadlineMs: 60_000 },
]
