// What libvirt asks through its hook before it starts a VM (provisioning/vms/guard.ts): whether it belongs to another host.

import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { HostReader } from '../../provisioning/host.ts'
import { readDefinition } from '../../provisioning/vms/definition.ts'
import { mayTouch } from '../vms/may-start.ts'

/**
 * `words` are libvirt's: the hook, the VM, what happens to it, which part of that. Only what comes before a start is answered:
 * libvirt would end a running VM for which it learned of a failure when it begins. `input` is the definition. Throws why the VM
 * may not be started; it then is not, by nobody.
 */
export async function answerHook(
  [, name = '', operation, part]: readonly string[],
  input: Readable,
  reader: () => Promise<HostReader>,
): Promise<void> {
  if (operation !== 'prepare' || part !== 'begin') return
  await mayTouch(await reader(), name, readDefinition(await text(input)).model)
}
