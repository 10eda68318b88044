// The verb `vm console`, on the root side: opens the serial console of a VM, and writes down who had it and for how long.

import type { Duplex } from 'node:stream'
import { HostError, problemOf } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'
import { openChanges } from '../vms/changes.ts'
import { vmCommand } from '../vms/command.ts'
import { readVms } from '../vms/facts.ts'
import { findVm } from '../vms/select.ts'

/** Opens the console. Throws `request.no-such-vm`, `vm.wrong-power`, `libvirt.refused` (somebody has it), `journal.unwritable`. */
export async function open(
  context: Context<Connection>,
  { vm: called, device, force }: Args<'vm console'>,
): Promise<Duplex> {
  const { reader, libvirtFolders } = context
  const libvirt = await context.libvirt('control')
  const { name, uuid, power } = findVm(await readVms(libvirt, reader, libvirtFolders.run), called)
  if (power === 'off')
    throw new HostError('vm.wrong-power', `${name} is off`, {
      details: { vm: name, power, command: vmCommand('start', name) },
    })
  const changes = await openChanges(context, `vm console ${name}`, 'disruptive')
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>()
  const carrying = async () => {
    const stream = await libvirt.domainOpenConsole({
      dom: { name, uuid },
      devName: device ?? null,
      flags: force ? VIR.DOMAIN_CONSOLE_FORCE : 0,
    })
    const closed = Promise.withResolvers<void>()
    stream.once('close', () => closed.resolve())
    // Whoever has the stream sees its errors; here only its end matters.
    stream.on('error', () => stream.destroy())
    resolve(stream)
    await closed.promise
  }
  const summary = force ? 'take its console from whoever has it' : 'open its console'
  changes
    .make({ word: 'console', vm: name, summary, risk: 'disruptive' }, carrying)
    .then(
      () => 'done',
      (error: unknown) => {
        reject(error)
        return problemOf(error).code === 'libvirt.unreachable' ? 'unknown' : 'failed'
      },
    )
    .then((outcome) => changes.end(outcome))
    // Once the session is over, nobody is left to be told that its end could not be written.
    .catch(reject)
  return await promise
}
