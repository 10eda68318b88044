// The verb `vm create`: declares a VM from a template or from options, and makes it.

import { HostError } from '../../provisioning/problem.ts'
import type { Context } from '../api/context.ts'
import type { Args } from '../api/verbs.ts'
import type { Connection } from '../node-libvirt/index.ts'
import { withWords } from '../vms/declaration.ts'
import { type DeclareLine, declareVm } from './vm-declare.ts'

/** Creates it. Throws `request.invalid`, `vm.name-taken`, `desired.invalid`, `template.unknown`, and whatever blocks it. */
export async function* run(
  context: Context<Connection>,
  { name, template, with: values, set, plan, declare }: Args<'vm create'>,
): AsyncGenerator<DeclareLine> {
  const verb = 'vm create'
  if (template === undefined && values.length > 0)
    throw new HostError('request.invalid', '--with is for the parameters of a --template', {
      details: { verb },
    })
  if (plan && declare)
    throw new HostError('request.invalid', 'it is either --plan or --declare', { details: { verb } })
  const parameters = withWords({}, values, 'with', verb)
  const chosen = { name: template, ...(values.length > 0 && { parameters }) }
  const declaration = withWords(template === undefined ? {} : { template: chosen }, set, 'set', verb)
  const on = new Date(context.clock()).toISOString().slice(0, 10)
  yield* declareVm(context, {
    ...{ verb, name, declaration },
    heading: `Made by garrison vm create on ${on}, for ${context.who}.`,
    until: plan ? 'plan' : declare ? 'declare' : 'converge',
  })
}

export { exitOf, live, render } from './vm-declare.ts'
