// A host reader that answers from a transcript written by `garrison record`: JSON lines, one per call of the reader.

import { readFile } from 'node:fs/promises'
import type { HostReader } from '../../provisioning/host.ts'
import { HostError, type ProblemCode } from '../../provisioning/problem.ts'

/** One call of the reader and what came of it. */
export interface Reading {
  readonly call: keyof HostReader
  readonly args: readonly unknown[]
  readonly answer?: unknown
  readonly error?: {
    readonly code: ProblemCode
    readonly message: string
    readonly details?: Readonly<Record<string, unknown>>
  }
}

const calls: readonly (keyof HostReader)[] = [
  'query',
  'readText',
  'list',
  'resolve',
  'facts',
  'head',
  'capacity',
  'mountTables',
  'sample',
  'exclusive',
  'ioActivity',
  'unfinishedSteps',
  'lockHolder',
  'now',
  'domains',
  'pools',
  'networks',
  'instance',
  'instanceEvents',
  'ec2Network',
]

const keyOf = ({ call, args }: Pick<Reading, 'call' | 'args'>): string =>
  `${call} ${JSON.stringify(args.filter((arg) => arg !== undefined))}`

/** A reader over readings; a call that is not among them throws an Error that names it, so no answer is ever made up. */
export function replay(readings: readonly Reading[]): HostReader {
  const known = new Map(readings.map((reading) => [keyOf(reading), reading]))
  const answer = async (call: keyof HostReader, args: readonly unknown[]): Promise<unknown> => {
    const reading = known.get(keyOf({ call, args }))
    if (reading === undefined) throw new Error(`not in the transcript: ${keyOf({ call, args })}`)
    if (reading.error !== undefined) {
      const { code, message, details } = reading.error
      throw new HostError(code, message, details === undefined ? {} : { details })
    }
    return reading.answer
  }
  return Object.fromEntries(
    calls.map((call) => [call, (...args: unknown[]) => answer(call, args)]),
  ) as unknown as HostReader
}

/** The readings of a transcript file. */
export const readTranscript = async (path: string): Promise<readonly Reading[]> =>
  (await readFile(path, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Reading)
