// The verb `iam`: the policy that the role of a host needs for what the desired document asks of AWS, and nothing more.

import { neededOf, type Policy, policyOf } from '../../provisioning/iam.ts'
import type { InstanceFacts } from '../../provisioning/instance.ts'
import { HostError, type ProblemReport, problemOf } from '../../provisioning/problem.ts'
import type { Parts } from '../api/context.ts'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'

/** The answer of `iam`. */
export interface NeededPolicy {
  readonly file: string
  readonly policy: Policy | null
  readonly because: readonly { readonly sid: string; readonly path: string }[]
  readonly region: string | null
  /** Why the metadata of the instance were not there to narrow it, when they should have been. */
  readonly problem: ProblemReport | null
}

async function factsOf({
  reader,
}: Parts): Promise<{ facts: InstanceFacts | null; problem: ProblemReport | null }> {
  try {
    return { facts: await reader.instance(), problem: null }
  } catch (error) {
    // Without them the policy is wider, and still right.
    if (!(error instanceof HostError)) throw error
    return { facts: null, problem: problemOf(error) }
  }
}

/** Reads FILE, or the document of this host. Throws `desired.missing`, `desired.invalid`, `host.denied`. */
export async function run({ file }: Args<'iam'>, here: { parts(): Promise<Parts> }): Promise<NeededPolicy> {
  const parts = await here.parts()
  const { desired } = await parts.document(file)
  const { facts, problem } = await factsOf(parts)
  const needed = neededOf(desired, facts)
  return {
    file: file ?? parts.documentFolder,
    policy: policyOf(needed),
    because: needed.map(({ statement: { Sid }, because }) => ({ sid: Sid, path: because })),
    region: facts?.region ?? null,
    problem,
  }
}

/** The policy alone, indented, so that it can be sent into a file. */
export const render = ({ file, policy }: NeededPolicy): string =>
  policy === null
    ? paragraph('', `${file} asks nothing of AWS: its host needs no policy.`, 0)
    : JSON.stringify(policy, null, 2)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
