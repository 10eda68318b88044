// Which distribution this is: os-release(5).

import { HostError } from '../problem.ts'

/** What os-release says. `version` is VERSION_ID, empty in rolling distributions. */
export interface OsRelease {
  readonly id: string
  readonly version: string
  /** For people: `Debian GNU/Linux 12 (bookworm)`. */
  readonly name: string
}

/** Parses /etc/os-release; values may be quoted as in a shell. Errors: `host.unexpected-answer` when it has no ID. */
export function parseOsRelease(text: string): OsRelease {
  const value = (key: string): string => {
    const [, raw = ''] = new RegExp(`^${key}=(.*)$`, 'm').exec(text) ?? []
    const [, quoted] = /^(?:"(.*)"|'.*')\s*$/.exec(raw) ?? []
    const plain = quoted?.replace(/\\(["$`\\])/g, '$1') ?? raw.trim().replace(/^'(.*)'$/, '$1')
    return plain
  }
  const id = value('ID')
  if (id === '') throw new HostError('host.unexpected-answer', '/etc/os-release names no ID')
  return { id, version: value('VERSION_ID'), name: value('PRETTY_NAME') || id }
}
