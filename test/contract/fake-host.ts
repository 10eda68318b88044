// A host for the doors: two resources over one file, steps that take their time, the real journal and the real lock.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Parts } from '../../agent/api/context.ts'
import { Jobs } from '../../agent/api/jobs.ts'
import { lockHolder, takeLock } from '../../agent/host/lock.ts'
import { Journal } from '../../agent/journal/journal.ts'
import type { HostReader, Performer } from '../../provisioning/host.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Resource, Risk, Step } from '../../provisioning/resource.ts'

/**
 * The world: names of things done; which steps there are and what they risk. A `held` step goes on only after `letGo`, and one that
 * `claims` has a device to itself.
 */
export interface World {
  done: string[]
  readonly wanted: readonly {
    readonly name: string
    readonly risk: Risk
    readonly held: boolean
    readonly claims?: true
  }[]
  readonly observationMs: number
  /** What `describe` says: text of the host. */
  readonly summary: string
  readonly unreadable?: boolean
}

const worldPath = (folder: string): string => join(folder, 'world.json')

const goPath = (folder: string, name: string): string => join(folder, `go-${name}`)

/** Lets a held step go on. */
export const letGo = (folder: string, name: string): void => writeFileSync(goPath(folder, name), '')

/** Reads the world of a folder. */
export const readWorld = (folder: string): World => JSON.parse(readFileSync(worldPath(folder), 'utf8'))

/** Makes the world of a folder. */
export function writeWorld(folder: string, world: Partial<World>): void {
  mkdirSync(folder, { recursive: true })
  const whole: World = { done: [], wanted: [], observationMs: 0, summary: 'as it is', ...world }
  writeFileSync(worldPath(folder), JSON.stringify(whole))
}

const stepsOf = ({ done, wanted }: World): readonly Step[] =>
  wanted
    .filter(({ name }) => !done.includes(name))
    .map(({ name, risk, held, claims }) => ({
      id: 'array.make',
      subject: name,
      summary: `make ${name}`,
      risk,
      because: [{ path: `array.${name}`, desired: true, observed: false, why: 'host.yaml:3' }],
      actions: [
        { kind: 'run', argv: ['/usr/bin/make', name, held ? 'held' : 'at once'], deadlineMs: 60_000 },
      ],
      ...(claims && { claims: ['/dev/device'] }),
    }))

const noLibvirt = async (): Promise<never> => {
  throw new HostError('libvirt.unreachable', 'there is no libvirt on a fake host')
}

/**
 * The parts of a host that keeps its world, its journal and its lock in `folder`. `looks` counts observations, `clashes` those that
 * were made beside another or beside a step with claims.
 */
export function fakeParts(
  folder: string,
): Parts & { readonly looks: () => number; readonly clashes: () => number } {
  let looks = 0
  let clashes = 0
  let busy = 0
  const journal = new Journal(join(folder, 'journal'))
  const lockPath = join(folder, 'apply.lock')
  const array: Resource<World> = {
    id: 'array',
    needs: [],
    declared: () => true,
    async observe() {
      looks += 1
      if (busy > 0) clashes += 1
      busy += 1
      const world = readWorld(folder)
      await delay(world.observationMs)
      busy -= 1
      if (world.unreadable) throw new HostError('host.denied', 'the array may not be read')
      return world
    },
    plan: stepsOf,
    check: () => [],
    describe: ({ summary }) => summary,
  }
  const reader = {
    lockHolder: () => lockHolder(lockPath),
    unfinishedSteps: () => journal.unfinishedSteps(),
  } as HostReader
  const performer: Performer = {
    async perform(action) {
      if (action.kind !== 'run') throw new Error(`not simulated: ${action.kind}`)
      const [, name = '', how] = action.argv
      const own = readWorld(folder).wanted.some((one) => one.name === name && one.claims) ? 1 : 0
      if (own > 0 && busy > 0) clashes += 1
      busy += own
      while (how === 'held' && !existsSync(goPath(folder, name))) await delay(10)
      busy -= own
      if (name === 'broken')
        throw new HostError('action.failed', 'make ended with 2', {
          details: { outcome: { stderrTail: 'make: *** [broken] Error 2' } },
        })
      const world = readWorld(folder)
      writeWorld(folder, { ...world, done: [...world.done, name] })
      return { kind: 'run', summary: action.argv.join(' '), durationMs: 1, exit: 0 }
    },
    claim: (_, work) => work(),
  }
  return {
    resources: [array as Resource],
    reader,
    performer,
    journal,
    documentFolder: folder,
    ownFolder: join(folder, 'own'),
    templates: async () => ({ templates: [], broken: [] }),
    async document() {
      const path = join(folder, 'host.yaml')
      if (!existsSync(path)) throw new HostError('desired.missing', `there is no ${path}`)
      return { desired: { version: 1, host: {}, sources: {} }, digest: readFileSync(path, 'utf8') }
    },
    lock: (who) => takeLock(lockPath, who, Date.now()),
    hold: async () => ({ release: async () => {} }),
    jobs: new Jobs({
      folder: join(folder, 'jobs'),
      clock: Date.now,
      lock: (path, who) => takeLock(path, who, Date.now()),
      holder: lockHolder,
    }),
    instance: async () => 'i-0',
    libvirt: noLibvirt,
    ownLibvirt: noLibvirt,
    libvirtFolders: {
      run: join(folder, 'run/libvirt'),
      kept: join(folder, 'var/lib/libvirt'),
      log: join(folder, 'var/log/libvirt'),
    },
    hostname: 'fake-h07',
    version: '0.0.0',
    clock: Date.now,
    looks: () => looks,
    clashes: () => clashes,
  }
}
