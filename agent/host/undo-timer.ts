// The deadline of a change to the network, outside this process: a transient timer of systemd, and the units that undo at boot and at stop.

import { HostError } from '../../provisioning/problem.ts'
import { type Argv, execute, lastLines } from './exec.ts'
import { isGoingDown, leadMs } from './undo-saved.ts'

/** What ends a change that nobody confirms, whatever becomes of this process. */
export interface UndoTimer {
  /**
   * Begins to count, so that the old configuration is back by the deadline: the undoing begins `leadMs` before. Throws
   * `undo.unarmed` when it would not come, or nothing would undo when the host goes down or at boot.
   */
  start(deadlineMs: number): Promise<void>
  isRunning(): Promise<boolean>
  stop(): Promise<void>
  /** Undoes now and returns when that has been done, or the host goes down and does it. Throws `undo.incomplete`. */
  restoreNow(): Promise<void>
}

const unit = 'garrison-network-undo'
const notLoaded = 5
const restoreMs = 180_000

const systemctl = (...args: readonly string[]): Argv => ['/usr/bin/systemctl', ...args]

const run = (argv: Argv, deadlineMs = 20_000) => execute(argv, { deadlineMs, keep: 'tail' })

/** The timer of systemd. */
export const systemdTimer: UndoTimer = {
  async start(deadlineMs) {
    // Enabled on disk before the change: after a power cut nothing else is left to undo it.
    const enabled = await run(systemctl('is-enabled', `${unit}.service`))
    if (enabled.exit !== 0)
      throw new HostError(
        'undo.unarmed',
        `${unit}.service is not enabled (${lastLines(enabled.stdout || enabled.stderr, 1)}), so a restart of the host would not undo the change`,
      )
    await this.stop()
    // It stays until the host goes down, which stops the timer: it is stopped with it, and undoes what is armed then.
    const atStop = await run(systemctl('start', `${unit}-at-stop.service`))
    if (atStop.exit !== 0)
      throw new HostError(
        'undo.unarmed',
        `${unit}-at-stop.service was refused: ${lastLines(atStop.stderr, 1)}`,
      )
    const { exit, stderr } = await run([
      '/usr/bin/systemd-run',
      `--unit=${unit}.service`,
      `--on-active=${deadlineMs - leadMs(deadlineMs)}ms`,
      '--timer-property=AccuracySec=100ms',
      '--quiet',
    ])
    if (exit !== 0) throw new HostError('undo.unarmed', `the timer was refused: ${lastLines(stderr, 1)}`)
  },
  async isRunning() {
    return (await run(systemctl('is-active', '--quiet', `${unit}.timer`))).exit === 0
  },
  async stop() {
    const { exit, stderr } = await run(systemctl('stop', `${unit}.timer`))
    if (exit !== 0 && exit !== notLoaded)
      throw new HostError('action.failed', `${unit}.timer could not be stopped: ${lastLines(stderr, 1)}`)
  },
  async restoreNow() {
    const { exit, stderr } = await run(systemctl('start', `${unit}.service`), restoreMs)
    // A host that goes down starts nothing more: what is started to be stopped then undoes it.
    if (exit !== 0 && !(await isGoingDown()))
      throw new HostError('undo.incomplete', `${unit}.service failed: ${lastLines(stderr, 1)}`)
  },
}
