// The verb `vm set`: processors, memory, tags and autostart of VMs.

import { HostError } from '../../provisioning/problem.ts'
import { size, sizeBytes } from '../../provisioning/values.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { type Settings, set } from '../vms/settings.ts'
import { changeVms, type VmLine } from './vm-batch.ts'

const verb = 'vm set'

const invalid = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb } })

/** The bytes of a size such as `8GiB`. Throws `request.invalid`, which names the flag. */
export function bytesOf(text: string, flag: string, verb: string): number {
  const { success } = size.safeParse(text)
  const bytes = success ? sizeBytes(text) : 0
  if (bytes > 0 && Number.isSafeInteger(bytes)) return bytes
  throw new HostError('request.invalid', `--${flag} takes a size such as 512MiB or 8GiB, not ${text}`, {
    details: { verb },
  })
}

/** As the desired document has them. */
const tagKey = /^[a-z0-9][a-z0-9._/-]{0,62}$/
const tagValue = /^[^\p{C}]{0,256}$/u

function tagOf(text: string): readonly [string, string] {
  const at = text.indexOf('=')
  const [key, value] = [text.slice(0, Math.max(0, at)), text.slice(at + 1)]
  if (at > 0 && tagKey.test(key) && tagValue.test(value)) return [key, value]
  throw invalid(`--add-tag takes KEY=VALUE, with a key of a-z, 0-9, ., _, / and -, not ${text}`)
}

function settingsOf(args: Args<'vm set'>): Settings {
  const { cpus, memory, autostart } = args
  if (cpus !== undefined && !/^[1-9]\d{0,3}$/.test(cpus)) throw invalid(`--cpus takes a number, not ${cpus}`)
  const settings = {
    ...(cpus !== undefined && { cpus: Number(cpus) }),
    ...(memory !== undefined && { memoryBytes: bytesOf(memory, 'memory', verb) }),
    ...(autostart !== undefined && { autostart: autostart === 'on' }),
    tags: Object.fromEntries(args['add-tag'].map(tagOf)),
    untag: args['remove-tag'],
  }
  const { tags, untag, ...rest } = settings
  if (Object.keys({ ...tags, ...rest }).length + untag.length === 0)
    throw invalid('vm set needs something to set: --cpus, --memory, --autostart, --add-tag or --remove-tag')
  return settings
}

/** Sets it for every VM that is meant. */
export function run(context: Context<Connection>, args: Args<'vm set'>): AsyncGenerator<VmLine> {
  const settings = settingsOf(args)
  return changeVms(context, args, {
    verb,
    risk: 'safe',
    parallel: 8,
    work: (hand) => set(hand, settings),
  })
}

export { exitOf, live, render } from './vm-batch.ts'
