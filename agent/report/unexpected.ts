// The error for a kernel file that says what this agent does not know.

import { HostError } from '../../provisioning/problem.ts'

/** `host.unexpected-answer` for a file, with the beginning of what it says. */
export const unexpected = (path: string, text: string): HostError =>
  new HostError('host.unexpected-answer', `${path} says what is not known there: ${text.slice(0, 200)}`, {
    details: { path },
  })
