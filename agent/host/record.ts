// Writes down every question to a host reader and its answer, one JSON line each, so that tests can replay the host.

import type { HostReader } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'

/** What came of a call. The same call with the same arguments may come more than once; each line is what was so then. */
type Outcome =
  | { readonly answer: unknown }
  | { readonly error: { readonly code: string; readonly message: string; readonly details: unknown } }

const calls: Readonly<Record<keyof HostReader, true>> = {
  query: true,
  readText: true,
  list: true,
  resolve: true,
  facts: true,
  head: true,
  capacity: true,
  mountTables: true,
  sample: true,
  exclusive: true,
  ioActivity: true,
  unfinishedSteps: true,
  lockHolder: true,
  now: true,
  domains: true,
  pools: true,
  networks: true,
  instance: true,
  instanceEvents: true,
  ec2Network: true,
}

/** The same reader, telling `write` one line (without line feed) per call. Errors that are no HostError are passed on unwritten. */
export function recording(reader: HostReader, write: (line: string) => Promise<void>): HostReader {
  const record =
    (call: keyof HostReader) =>
    async (...args: unknown[]) => {
      // An argument that was left out and one given as undefined are the same call.
      const given = args.filter((arg) => arg !== undefined)
      const tell = (outcome: Outcome) => write(JSON.stringify({ call, args: given, ...outcome }))
      try {
        const answer = await (reader[call] as (...args: unknown[]) => Promise<unknown>).apply(reader, args)
        await tell({ answer })
        return answer
      } catch (error) {
        if (error instanceof HostError) {
          const { code, message, details } = error
          await tell({ error: { code, message, details } })
        }
        throw error
      }
    }
  return Object.fromEntries(
    (Object.keys(calls) as (keyof HostReader)[]).map((call) => [call, record(call)]),
  ) as unknown as HostReader
}
