// One apply of the local network interface alone, with the real engine, metadata client and EC2 client; tests kill it anywhere.
//
//   node test/contract/lni-agent.ts FOLDER     FOLDER/nics.json: MACs that the host has devices with

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Ec2 } from '../../agent/host/ec2.ts'
import { callEc2 } from '../../agent/host/ec2-call.ts'
import { Imds } from '../../agent/host/imds.ts'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { LinuxPerformer } from '../../agent/host/perform.ts'
import { Journal } from '../../agent/journal/journal.ts'
import { nothingDesired } from '../../provisioning/desired.ts'
import { converge, type EngineEvent } from '../../provisioning/engine.ts'
import type { HostReader } from '../../provisioning/host.ts'
import type { Resource, Step } from '../../provisioning/resource.ts'
import { checkLni, lniSchema, type ObservedLni, observeLni, planLni } from '../../provisioning/uplinks/lni.ts'

/** Where the host of a test has its network devices: by MAC. */
export const nicsPath = (folder: string): string => join(folder, 'nics.json')

/** How the end of an apply is told. */
export type Ended = Extract<EngineEvent, { event: 'finished' }>

const libvirt = () => Promise.reject(new Error('not asked'))

/** The reader of the test's host; what it remembers is in the folder. */
export function readerOf(folder: string, ec2: Ec2, imds: Imds): HostReader {
  const real = new LinuxHost({
    ...{ claims: new Set<string>(), libvirt, imds, ec2 },
    unfinishedSteps: async () => [],
    lockHolder: async () => null,
  })
  const macs = (): readonly string[] =>
    existsSync(nicsPath(folder)) ? JSON.parse(readFileSync(nicsPath(folder), 'utf8')) : []
  const macAt = (path: string): string | undefined => macs()[Number(/\/nic(\d+)(\/|$)/.exec(path)?.[1])]
  return Object.assign(Object.create(real) as HostReader, {
    list: async () => macs().map((_, at) => `nic${at}`),
    readText: async (path: string) => (macAt(path) === undefined ? null : `${macAt(path)}\n`),
    resolve: async (path: string) => (macAt(path) === undefined ? null : '/sys/devices/pci'),
    instance: () => real.instance(),
    ec2Network: (question: Parameters<HostReader['ec2Network']>[0]) => real.ec2Network(question),
    now: () => real.now(),
  })
}

/** Waits no longer than so: a test need not wait for minutes. */
const impatient = (step: Step, mostMs: number): Step => ({
  ...step,
  actions: step.actions.map((action) =>
    action.kind === 'wait' ? { ...action, deadlineMs: Math.min(action.deadlineMs, mostMs) } : action,
  ),
})

/** How long is waited for the answer to one request, and for a device to appear. */
interface Patience {
  readonly requestMs?: number
  readonly waitMs?: number
}

/** One apply; its last line. */
export async function applyLni(
  folder: string,
  document: unknown = {},
  { requestMs = 1000, waitMs = 60_000 }: Patience = {},
): Promise<Ended> {
  const imds = new Imds({ isInstance: async () => true, pauseMs: 1 })
  const ec2 = new Ec2({
    imds,
    memoryPath: join(folder, 'ec2.json'),
    clock: Date.now,
    call: (request) => callEc2(request, { pauseMs: 5, requestMs }),
  })
  const reader = readerOf(folder, ec2, imds)
  const wanted = lniSchema.parse(document)
  const lni: Resource<ObservedLni> = {
    id: 'uplinks',
    needs: [],
    declared: () => true,
    observe: (from) => observeLni(from, wanted),
    plan: (observed) =>
      planLni(observed, wanted, { settings: 'uplinks.lan.lni', sources: {} }).map((step) =>
        impatient(step, waitMs),
      ),
    check: (observed) => checkLni(observed, false),
    describe: ({ lni: seen }) => seen?.interfaceId ?? 'none',
  }
  const events = converge({
    resources: [lni as Resource],
    reader,
    performer: new LinuxPerformer({ reader, claims: new Set(), libvirt, ec2 }),
    journal: new Journal(join(folder, 'journal')),
    desired: nothingDesired,
    request: { who: 'a test', allow: 'safe' },
    apply: 'test',
    instance: 'i-0',
    desiredDigest: '0',
    clock: Date.now,
    signal: new AbortController().signal,
  })
  for await (const event of events) if (event.event === 'finished') return event
  throw new Error('it did not end')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { outcome, problems } = await applyLni(process.argv[2] ?? '', {}, { requestMs: 10_000 })
  console.log(JSON.stringify({ outcome, problems }))
}
