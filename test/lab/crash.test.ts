// SIGKILL of the agent before, during and after every step, and a power cut at every step: the next apply ends the same.
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import {
  documentOf,
  garrison,
  installGarrison,
  settle,
  shapeOf,
  startApply,
  writeDocument,
} from './garrison.ts'
import { bootGuest, defaultDrives, defaultRootSerial, type Guest, type GuestOptions } from './guest.ts'
import { random, sample, seed } from './sample.ts'

/** One moment of one step at which something ends. */
interface Case {
  readonly end: 'sigkill' | 'power cut'
  readonly moment: 'before' | 'during' | 'after'
  readonly key: string
  /** Seconds after the step began, for `during`. */
  readonly afterMs: number
}

/** Applies until the moment of the case has come, then ends the agent or the guest. Returns whether the moment came. */
async function endAt(guest: Guest, one: Case, keys: readonly string[]): Promise<void> {
  const apply = await startApply(guest)
  const index = keys.indexOf(one.key)
  const lineOf = (event: string, key: string) =>
    new RegExp(`"event":"${event}".*"key":"${key.replaceAll('.', '\\.')}"`)
  const awaited =
    one.moment === 'during'
      ? lineOf('step-started', one.key)
      : one.moment === 'after'
        ? lineOf('step-done', one.key)
        : index === 0
          ? /"event":"assessed"/
          : lineOf('step-done', keys[index - 1] as string)
  await apply.waitForLine(awaited, 600_000)
  if (one.moment === 'during') await pause(one.afterMs)
  if (one.end === 'power cut') {
    await guest.powerCut()
    await guest.powerOn()
    return
  }
  await guest.run(['systemctl', 'kill', '--kill-whom=main', '--signal=KILL', 'garrison-operate.service'], {
    allowFailure: true,
  })
  await apply.ended
}

/** A host before its first apply, and how many of its moments a run takes that does not take all. */
interface World {
  readonly name: string
  readonly guest: GuestOptions
  readonly document: string
  readonly sigkills: number
  readonly powerCuts: number
  prepare(guest: Guest): Promise<unknown>
  /** What must be the same after every crash. */
  shape(guest: Guest): Promise<unknown>
}

const kept = 'LABKEEP001'

const worlds: readonly [World, ...World[]] = [
  {
    name: 'array and volumes',
    guest: {
      prepared: true,
      // Small, so that the first resync, which slows every read of the array down, is soon through.
      drives: [
        ...defaultDrives.map((drive) => ({ ...drive, sizeBytes: 2 ** 29 })),
        { serial: kept, sizeBytes: 2 ** 28 },
      ],
    },
    document: documentOf(),
    sigkills: 2,
    powerCuts: 1,
    prepare: (guest) => guest.run(['mkfs.ext4', '-q', `/dev/disk/by-id/virtio-${kept}`]),
    shape: async (guest) => ({ ...(await shapeOf(guest)), kept: await guest.driveHash(kept) }),
  },
  {
    name: 'root and packages',
    guest: { layout: 'xfs-lvm', drives: [] },
    document: JSON.stringify({ version: 1, root: {}, software: { roles: ['storage'] } }),
    sigkills: 1,
    powerCuts: 1,
    prepare: async () => {},
    shape: async (guest) => {
      const outputs: string[] = []
      for (const argv of [
        ['df', '--output=size', '/'],
        ['sfdisk', '--dump', `/dev/disk/by-id/virtio-${defaultRootSerial}`],
        ['dpkg', '--get-selections'],
        ['dpkg', '--audit'],
      ])
        outputs.push((await guest.run(argv)).stdout)
      return outputs
    },
  },
  {
    name: 'services',
    guest: { prepared: true, drives: [] },
    document: JSON.stringify({ version: 1, software: { roles: ['vm-host'] } }),
    sigkills: 1,
    powerCuts: 0,
    prepare: async (guest) => {
      const units = ['libvirtd.socket', 'libvirtd-ro.socket', 'libvirtd.service', 'virtlogd.socket']
      await guest.run(['systemctl', 'disable', '--now', ...units])
    },
    shape: async (guest) => (await garrison(guest, ['plan'])).lines[0].steps,
  },
]

t.setTimeout(0)

const [storage, ...others] = worlds
for (const { name, guest: options, document, sigkills, powerCuts, prepare, shape: shapeNow } of [
  storage,
  ...sample(others, 1),
])
  t.test(`${name}: every crash converges to the same end`, async (t) => {
    await using guest = await bootGuest({ ...options, snapshots: true })
    await prepare(guest)
    await installGarrison(guest)
    await writeDocument(guest, document)
    await guest.run(['sync'])
    await guest.snapshot('before')

    const reference = await settle(guest)
    const steps = reference.lines.filter((line) => line.event === 'step-done')
    const keys: string[] = steps.map((line) => line.key)
    await guest.run(['sync'])
    const shape = await shapeNow(guest)
    const cases = steps.flatMap(({ key, durationMs }) =>
      (['sigkill', 'power cut'] as const).flatMap((end) =>
        (['before', 'during', 'after'] as const)
          .filter((moment) => end === 'sigkill' || moment === 'during')
          .map((moment) => ({ end, moment, key, afterMs: Math.floor(random() * durationMs) })),
      ),
    )
    const of = (end: Case['end']) => cases.filter((one) => one.end === end)
    const chosen = [...sample(of('sigkill'), sigkills), ...sample(of('power cut'), powerCuts)]
    t.ok(keys.length > 1, keys.join(', '))
    t.comment(
      `${cases.length} moments in ${keys.length} steps, ${chosen.length} of them in this run, seed ${seed}`,
    )

    for (const one of chosen)
      await t.test(
        `${one.end} ${one.moment} ${one.key}${one.moment === 'during' ? ` (${one.afterMs} ms)` : ''}`,
        async (t) => {
          await guest.restore('before')
          await endAt(guest, one, keys)
          await settle(guest)
          await guest.run(['sync'])
          t.strictSame(await shapeNow(guest), shape, 'the same end')
          const again = await garrison(guest, ['apply'])
          t.equal(again.lines.at(-1).performed, 0, 'nothing is left to do')
          const journal = await garrison(guest, ['journal'])
          t.equal(journal.exit, 0, 'the journal can be read')
        },
      )
  })
