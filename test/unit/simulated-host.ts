// A host in memory for engine tests: four resources whose steps can be torn by a power cut before and inside every action.

import type { Desired } from '../../provisioning/desired.ts'
import { nothingDesired } from '../../provisioning/desired.ts'
import type { HostReader, JournalEntry, JournalWriter, Performer } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Action, Resource, Risk, Step } from '../../provisioning/resource.ts'

/** Thrown where the power goes: nothing that would run afterwards runs. */
export class PowerCut extends Error {}

/** What the simulated host keeps over a power cut. */
export interface World {
  readonly files: Map<string, string>
  readonly journal: JournalEntry[]
}

/** A step whose single write makes `path` hold `content`. */
export const write = (id: string, path: string, content: string, more: Partial<Step> = {}): Step => ({
  id,
  summary: `write ${path}`,
  risk: 'safe',
  because: [{ path, desired: content, observed: null }],
  actions: [{ kind: 'write', path, content, mode: 0o644 }],
  ...more,
})

/** A resource that wants `wanted` (path -> content) and plans one step per missing or torn file, in order. */
export const filesResource = (
  id: string,
  wanted: Readonly<Record<string, string>>,
  options: { needs?: readonly string[]; risk?: Risk; claims?: readonly string[]; actions?: number } = {},
): Resource<Readonly<Record<string, string | null>>> => ({
  id,
  needs: options.needs ?? [],
  declared: () => true,
  async observe(reader) {
    const seen: Record<string, string | null> = {}
    for (const path of Object.keys(wanted)) seen[path] = await reader.readText(path)
    return seen
  },
  plan: (observed) =>
    Object.entries(wanted).flatMap(([path, content], index, all) => {
      if (observed[path] === content) return []
      const before = all.slice(0, index).map(([earlier]) => `${id}.write ${earlier}`)
      const { risk = 'safe', claims } = options
      return {
        ...write(`${id}.write`, path, content),
        subject: path,
        because: [{ path, desired: content, observed: observed[path] ?? null }],
        risk,
        after: before,
        ...(claims && { claims }),
      }
    }),
  check: () => [],
  describe: (observed) => `${Object.values(observed).filter((content) => content !== null).length} files`,
})

const unused = (): never => {
  throw new Error('the simulated host has no such thing')
}

/** Reads the world; a path in `unreadable` is a HostError. */
export const readerOf = (world: World, unreadable: ReadonlySet<string> = new Set()): HostReader => ({
  async readText(path) {
    if (unreadable.has(path)) throw new HostError('host.unreadable', `${path} cannot be read`)
    return world.files.get(path) ?? null
  },
  query: unused,
  list: unused,
  resolve: unused,
  facts: unused,
  head: unused,
  capacity: unused,
  mountTables: unused,
  sample: unused,
  exclusive: unused,
  ioActivity: unused,
  unfinishedSteps: unused,
  lockHolder: unused,
  now: unused,
  domains: unused,
  pools: unused,
  networks: unused,
  instance: unused,
  instanceEvents: unused,
  ec2Network: unused,
})

/** Writes the world. `cut` is asked before and inside each action and may throw a PowerCut. */
export const performerOf = (
  world: World,
  cut: (point: string) => void = () => {},
  onClaim: (devices: readonly string[]) => void = () => {},
): Performer => ({
  async perform(action: Action) {
    if (action.kind !== 'write') throw new Error(`the simulated host cannot ${action.kind}`)
    cut('before the action')
    world.files.set(action.path, 'torn')
    cut('inside the action')
    world.files.set(action.path, action.content)
    cut('after the action')
    return { kind: action.kind, summary: action.path, durationMs: 1 }
  },
  claim(devices, work) {
    onClaim(devices)
    return work()
  },
})

/** A journal in the world; a cut may come before or after a line is on the disk. */
export const journalOf = (world: World, cut: (point: string) => void = () => {}): JournalWriter => ({
  async append(entry) {
    cut('before the line')
    world.journal.push(entry)
    cut('after the line')
  },
})

/** A desired document that declares nothing; simulated resources are always declared. */
export const desired: Desired = nothingDesired

/** A generator of numbers in [0, 1) from a seed (mulberry32), so that a failing order can be run again. */
export function seeded(seed: number): () => number {
  let state32 = seed >>> 0
  return () => {
    state32 = (state32 + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state32 ^ (state32 >>> 15), state32 | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
