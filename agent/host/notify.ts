// Tells systemd how this process is (sd_notify(3)) through systemd-notify, for Node cannot send to a unix datagram socket.

import { HostError } from '../../provisioning/problem.ts'
import { execute, lastLines } from './exec.ts'

const deadlineMs = 10_000

/** How systemd is told, and how often it wants to be. */
export interface Notifier {
  /** `READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=…`. Rejects with a HostError when systemd could not be told. */
  tell(...words: readonly string[]): Promise<void>
  /** How long systemd waits between two `WATCHDOG=1`; null when it does not watch. */
  readonly watchdogMs: number | null
}

/** The systemd that started this process; null when none did, or it wants to hear nothing. */
export function notifierOf(env: Readonly<Record<string, string | undefined>>, pid: number): Notifier | null {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = env
  if (!NOTIFY_SOCKET) return null
  const isWatched = Number(WATCHDOG_USEC) > 0 && (WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === pid)
  return {
    watchdogMs: isWatched ? Number(WATCHDOG_USEC) / 1000 : null,
    async tell(...words) {
      // It waits until systemd has read it: one that is gone by then could not be told from a stranger.
      const { exit, stderr } = await execute(['/usr/bin/systemd-notify', ...words], {
        deadlineMs,
        keep: 'tail',
        environment: { NOTIFY_SOCKET },
      })
      if (exit !== 0)
        throw new HostError('action.failed', `systemd-notify: ${lastLines(stderr, 1) || `exit ${exit}`}`)
    },
  }
}
