// The verb `version`.

import { EXIT, type Exit } from '../api/verbs.ts'
import { version } from '../api/version.ts'

/** The answer of `version`. */
export interface Version {
  readonly version: string
  readonly runtime: string
  readonly arch: string
}

/** What this executable is. */
export const run = async (): Promise<Version> => ({ version, runtime: process.version, arch: process.arch })

/** The answer in words. */
export const render = ({ version, runtime, arch }: Version): string =>
  `garrison ${version} (node ${runtime}, ${arch})`

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
