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
import { bootGuest, defaultDrives, type Guest } from './guest.ts'
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

t.setTimeout(0)

t.test('every crash converges to the same end', async (t) => {
  await using guest = await bootGuest({
    prepared: true,
    snapshots: true,
    // Small, so that the first resync, which slows every read of the array down, is soon through.
    drives: [
      ...defaultDrives.map((drive) => ({ ...drive, sizeBytes: 2 ** 29 })),
      { serial: 'LABKEEP001', sizeBytes: 2 ** 28 },
    ],
  })
  await guest.run(['mkfs.ext4', '-q', '/dev/disk/by-id/virtio-LABKEEP001'])
  await installGarrison(guest)
  await writeDocument(guest, documentOf())
  await guest.run(['sync'])
  const kept = await guest.driveHash('LABKEEP001')
  await guest.snapshot('bare')

  const reference = await settle(guest)
  const steps = reference.lines.filter((line) => line.event === 'step-done')
  const keys: string[] = steps.map((line) => line.key)
  const shape = await shapeOf(guest)
  const cases = steps.flatMap(({ key, durationMs }) =>
    (['sigkill', 'power cut'] as const).flatMap((end) =>
      (['before', 'during', 'after'] as const)
        .filter((moment) => end === 'sigkill' || moment === 'during')
        .map((moment) => ({ end, moment, key, afterMs: Math.floor(random() * durationMs) })),
    ),
  )
  const of = (end: Case['end']) => cases.filter((one) => one.end === end)
  const chosen = [...sample(of('sigkill'), 3), ...sample(of('power cut'), 1)]
  t.comment(
    `${cases.length} moments in ${keys.length} steps, ${chosen.length} of them in this run, seed ${seed}`,
  )

  for (const one of chosen) {
    const name = `${one.end} ${one.moment} ${one.key}${one.moment === 'during' ? ` (${one.afterMs} ms)` : ''}`
    await t.test(name, async (t) => {
      await guest.restore('bare')
      await endAt(guest, one, keys)
      await settle(guest)
      t.strictSame(await shapeOf(guest), shape, 'the same array, volumes and mounts, and no more of them')
      const again = await garrison(guest, ['apply'])
      t.equal(again.lines.at(-1).performed, 0, 'nothing is left to do')
      const journal = await garrison(guest, ['journal'])
      t.equal(journal.exit, 0, 'the journal can be read')
      await guest.run(['sync'])
      t.equal(await guest.driveHash('LABKEEP001'), kept, 'not a byte of the other drive has changed')
    })
  }
})
