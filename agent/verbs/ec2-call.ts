// The verb `ec2-call`: one request to the EC2 API, made in this process.

import { HostError } from '../../provisioning/problem.ts'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import {
  callEc2,
  callTagged,
  type Ec2Answer,
  type Ec2Request,
  type TaggedAnswer,
  type TaggedRequest,
} from '../host/ec2-call.ts'

/** The answer of `ec2-call`. */
export interface Called {
  readonly answer: Ec2Answer | TaggedAnswer
}

/** Makes the request that the operand holds as JSON. Throws what `callEc2` throws. */
export async function run({ request }: Args<'ec2-call'>): Promise<Called> {
  try {
    const asked = JSON.parse(request) as Ec2Request | TaggedRequest
    return { answer: await (asked.kind === 'tagged' ? callTagged(asked) : callEc2(asked)) }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new HostError('request.invalid', 'the request is no JSON', { details: { verb: 'ec2-call' } })
  }
}

/** The answer in words. */
export const render = ({ answer }: Called): string =>
  answer === null ? paragraph('', 'EC2 tells that it is so.', 0) : JSON.stringify(answer, null, 2)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
