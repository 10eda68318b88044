// A change that must come about whatever becomes of the connection: asked for, and when no answer comes, looked for.

import { setTimeout as sleep } from 'node:timers/promises'
import { HostError } from '../../provisioning/problem.ts'
import type { Connection } from '../node-libvirt/index.ts'

/** The way to libvirt, found again after each silence. Throws `libvirt.unreachable` after a few seconds. */
export type ToLibvirt = () => Promise<Connection>

/** A change: how it is asked for, and whether it is so. */
export interface Goal {
  ask(libvirt: Connection): Promise<unknown>
  holds(libvirt: Connection): Promise<boolean>
}

/** How long to wait for a libvirtd that was restarted or hangs, before nobody can tell what became of the change. */
const patienceMs = 30_000
const retryMs = 250
const mostTries = 5

/** Whether it is libvirt's answer with that code: `VIR_ERR_NO_DOMAIN`. */
export const isRefusal = (error: unknown, code: string): boolean =>
  error instanceof HostError && error.code === 'libvirt.refused' && error.details.code === code

const isSilence = (error: unknown): boolean =>
  error instanceof HostError && error.code === 'libvirt.unreachable'

/** Asks libvirt something that changes nothing, again and again while it is silent. Throws `libvirt.unreachable` in the end. */
export async function asked<T>(to: ToLibvirt, question: (libvirt: Connection) => Promise<T>): Promise<T> {
  const endMs = performance.now() + patienceMs
  for (;;) {
    try {
      return await question(await to())
    } catch (error) {
      if (!isSilence(error) || performance.now() > endMs) throw error
      await sleep(retryMs)
    }
  }
}

/**
 * Reaches a goal, by whomever: when libvirt refuses, or is silent, the world decides. What was not done is asked for again. Throws
 * `libvirt.refused` with libvirt's words, or `libvirt.unreachable` when nobody can tell whether it was done.
 */
export async function reach(to: ToLibvirt, { ask, holds }: Goal): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await ask(await to())
      return
    } catch (error) {
      const isRefused = error instanceof HostError && error.code === 'libvirt.refused'
      if (!isRefused && !isSilence(error)) throw error
      if (await asked(to, holds)) return
      if (isRefused || tries === mostTries) throw error
    }
  }
}
