// From one power to another: start, stop, restart, kill, suspend and resume of one VM.

import { setTimeout as sleep } from 'node:timers/promises'
import { HostError } from '../../provisioning/problem.ts'
import { type Power, powerOf } from '../../provisioning/vms/power.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'
import type { Changes } from './changes.ts'
import { vmCommand } from './command.ts'
import { asked, isRefusal, reach, type ToLibvirt } from './reach.ts'

/** One VM in hand. */
export interface InHand {
  readonly to: ToLibvirt
  readonly vm: { readonly name: string; readonly uuid: string; readonly persistent: boolean }
  readonly changes: Pick<Changes, 'make'>
  /** Throws why it may not be started. */
  readonly mayStart: () => Promise<void>
}

/** What became of it. `changed` is false when it was so already. */
export interface Became {
  readonly changed: boolean
  readonly text: string
}

const pollMs = 500
const halfStartedMs = 20_000

const domOf = ({ name, uuid }: InHand['vm']) => ({ name, uuid })

/** What the VM does now; null when libvirt has it no longer, as when one that was never defined has ended. */
async function powerNow(libvirt: Connection, vm: InHand['vm']): Promise<Power | null> {
  try {
    return powerOf(await libvirt.domainGetState({ dom: domOf(vm) }, { deadlineMs: 10_000 })).power
  } catch (error) {
    if (isRefusal(error, 'VIR_ERR_NO_DOMAIN')) return null
    throw error
  }
}

const wrongPower = (vm: InHand['vm'], power: Power, verb: string): HostError =>
  new HostError('vm.wrong-power', `${vm.name} is ${power}`, {
    details: { vm: vm.name, power, command: vmCommand(verb, vm.name) },
  })

const gone = (vm: InHand['vm']): HostError =>
  new HostError('request.no-such-vm', `${vm.name} has gone since it was looked for`)

/**
 * What the VM does for good. One that was being started when libvirtd was killed is paused, `starting up`, and the next libvirtd
 * ends it (qemuProcessReconnect: "wasn't fully started yet"); but one whose QEMU was not yet known it keeps like that for ever.
 */
async function settledPower(libvirt: Connection, vm: InHand['vm']): Promise<Power | 'half-started'> {
  const endMs = performance.now() + halfStartedMs
  for (;;) {
    const numbers = await libvirt.domainGetState({ dom: domOf(vm) }, { deadlineMs: 10_000 })
    const { power, reason } = powerOf(numbers)
    if (power !== 'paused' || reason !== 'starting up') return power
    if (performance.now() > endMs) return 'half-started'
    await sleep(pollMs)
  }
}

async function present({ to, vm }: InHand): Promise<Power> {
  const power = await asked(to, (libvirt) => powerNow(libvirt, vm))
  if (power === null) throw gone(vm)
  return power
}

const isOff = (power: Power | null): boolean => power === null || power === 'off'

/** What the VM does; one that a libvirtd had only begun to start is ended first. */
async function presentWhole(hand: InHand): Promise<Power> {
  const power = await present(hand)
  if (power !== 'paused') return power
  const settled = await asked(hand.to, (libvirt) => settledPower(libvirt, hand.vm))
  if (settled !== 'half-started') return settled
  await hand.changes.make(killChange(hand), () => destroy(hand))
  return present(hand)
}

/** Starts it, from its saved memory where it has some. `paused`: its processors stand still until it is resumed. */
export async function start(hand: InHand, { paused = false } = {}): Promise<Became> {
  const { to, vm, changes } = hand
  const power = await presentWhole(hand)
  if (power === 'running' || power === 'blocked') return { changed: false, text: 'runs already' }
  if (power !== 'off') {
    if (paused && power === 'paused') return { changed: false, text: 'is paused already' }
    throw wrongPower(vm, power, power === 'paused' || power === 'suspended' ? 'resume' : 'kill')
  }
  await hand.mayStart()
  const wanted = paused ? 'start it paused' : 'start it'
  await changes.make(
    {
      word: 'start',
      vm: vm.name,
      summary: wanted,
      risk: 'safe',
      actions: [{ kind: 'domain', operation: 'start', name: vm.name, uuid: vm.uuid }],
    },
    () =>
      reach(to, {
        ask: (libvirt) =>
          libvirt.domainCreateWithFlags({ dom: domOf(vm), flags: paused ? VIR.DOMAIN_START_PAUSED : 0 }),
        async holds(libvirt) {
          const settled = await settledPower(libvirt, vm)
          if (settled === 'half-started') await libvirt.domainDestroyFlags({ dom: domOf(vm) })
          return settled !== 'half-started' && settled !== 'off'
        },
      }),
  )
  return { changed: true, text: paused ? 'started, paused' : 'started' }
}

/** How a VM is stopped: it is asked, and when it is not off by then and `kill` is set, its power is cut. */
export interface Stopping {
  readonly timeoutMs: number
  readonly kill: boolean
}

async function waitUntilOff({ to, vm }: InHand, timeoutMs: number): Promise<boolean> {
  const endMs = performance.now() + timeoutMs
  for (;;) {
    if (isOff(await asked(to, (libvirt) => powerNow(libvirt, vm)))) return true
    if (performance.now() >= endMs) return false
    await sleep(Math.min(pollMs, Math.max(1, endMs - performance.now())))
  }
}

const destroy = ({ to, vm }: InHand): Promise<void> =>
  reach(to, {
    ask: (libvirt) => libvirt.domainDestroyFlags({ dom: domOf(vm) }),
    holds: async (libvirt) => isOff(await powerNow(libvirt, vm)),
  })

const killChange = ({ vm }: InHand) =>
  ({
    word: 'kill',
    vm: vm.name,
    summary: 'cut its power',
    risk: 'disruptive',
    actions: [{ kind: 'domain', operation: 'destroy', name: vm.name, uuid: vm.uuid }],
  }) as const

/** Asks its guest to shut down and waits until it is off. Throws `vm.deadline` when it is not by then. */
export async function stop(hand: InHand, { timeoutMs, kill: thenKill }: Stopping): Promise<Became> {
  const { to, vm, changes } = hand
  const power = await present(hand)
  if (power === 'off') return { changed: false, text: 'is off already' }
  if (power === 'crashed' || power === 'unknown') throw wrongPower(vm, power, 'kill')
  if (!thenKill && (power === 'paused' || power === 'suspended')) throw wrongPower(vm, power, 'resume')
  const hears = power === 'running' || power === 'blocked' || power === 'shutting-down'
  const late = new HostError(
    'vm.deadline',
    `${vm.name} was asked to shut down and is not off after ${timeoutMs / 1000} s`,
    { details: { vm: vm.name, command: vmCommand('kill', vm.name) } },
  )
  const asking = () =>
    changes.make(
      {
        word: 'stop',
        vm: vm.name,
        summary: 'ask its guest to shut down',
        risk: 'disruptive',
        actions: [
          {
            kind: 'domain',
            operation: 'shutdown',
            name: vm.name,
            uuid: vm.uuid,
            deadlineMs: timeoutMs,
          },
        ],
      },
      async () => {
        await reach(to, {
          ask: (libvirt) => libvirt.domainShutdownFlags({ dom: domOf(vm) }),
          holds: async (libvirt) => {
            const now = await powerNow(libvirt, vm)
            return isOff(now) || now === 'shutting-down'
          },
        })
        if (!(await waitUntilOff(hand, timeoutMs))) throw late
      },
    )
  try {
    if (hears) await asking()
    else throw late
    return { changed: true, text: 'shut down' }
  } catch (error) {
    if (!thenKill || !(error instanceof HostError) || error.code === 'libvirt.unreachable') throw error
    await changes.make(killChange(hand), () => destroy(hand))
    return { changed: true, text: hears ? 'killed, for it did not shut down' : `killed, for it was ${power}` }
  }
}

/** Stops it and starts it again, so that it runs with what is defined now; one that is off is started. */
export async function restart(hand: InHand, stopping: Stopping): Promise<Became> {
  const { vm } = hand
  if (!vm.persistent)
    throw new HostError('vm.wrong-power', `${vm.name} is not defined: it would be gone when it stops`, {
      details: { vm: vm.name, command: vmCommand('stop', vm.name) },
    })
  const stopped = await stop(hand, stopping)
  await start(hand)
  return { changed: true, text: stopped.changed ? `${stopped.text}, started again` : 'was off, started' }
}

/** Ends it at once, as if its power was cut. */
export async function kill(hand: InHand): Promise<Became> {
  if ((await present(hand)) === 'off') return { changed: false, text: 'is off already' }
  await hand.changes.make(killChange(hand), () => destroy(hand))
  return { changed: true, text: 'killed' }
}

/** Stops its processors; its memory stays where it is. */
export async function suspend(hand: InHand): Promise<Became> {
  const { to, vm, changes } = hand
  const power = await present(hand)
  if (power === 'paused') return { changed: false, text: 'is paused already' }
  if (power !== 'running' && power !== 'blocked')
    throw wrongPower(vm, power, power === 'off' ? 'start' : 'show')
  await changes.make({ word: 'suspend', vm: vm.name, summary: 'pause it', risk: 'disruptive' }, () =>
    reach(to, {
      ask: (libvirt) => libvirt.domainSuspend({ dom: domOf(vm) }),
      holds: async (libvirt) => (await powerNow(libvirt, vm)) === 'paused',
    }),
  )
  return { changed: true, text: 'paused' }
}

/** Writes its memory to the disk and ends it; the next start goes on from there. */
export async function save(hand: InHand): Promise<Became> {
  const { to, vm, changes } = hand
  const power = await present(hand)
  if (power === 'off') return { changed: false, text: 'is off already' }
  await changes.make(
    { word: 'save', vm: vm.name, summary: 'write its memory to the disk and end it', risk: 'disruptive' },
    () =>
      reach(to, {
        ask: (libvirt) => libvirt.domainManagedSave({ dom: domOf(vm) }),
        holds: async (libvirt) =>
          isOff(await powerNow(libvirt, vm)) && (await libvirt.domainHasManagedSaveImage({ dom: domOf(vm) })),
      }),
  )
  return { changed: true, text: 'saved; the next start goes on from there' }
}

/** Lets it run on, whether it was paused or its guest sleeps. */
export async function resume(hand: InHand): Promise<Became> {
  const { to, vm, changes } = hand
  const power = await present(hand)
  if (power === 'running' || power === 'blocked') return { changed: false, text: 'runs already' }
  if (power !== 'paused' && power !== 'suspended')
    throw wrongPower(vm, power, power === 'off' ? 'start' : 'show')
  const sleeps = power === 'suspended'
  await changes.make(
    { word: 'resume', vm: vm.name, summary: sleeps ? 'wake it up' : 'let it run on', risk: 'safe' },
    () =>
      reach(to, {
        ask: (libvirt) =>
          sleeps ? libvirt.domainPMWakeup({ dom: domOf(vm) }) : libvirt.domainResume({ dom: domOf(vm) }),
        holds: async (libvirt) => (await powerNow(libvirt, vm)) === 'running',
      }),
  )
  return { changed: true, text: sleeps ? 'woken up' : 'resumed' }
}
