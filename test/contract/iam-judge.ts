// Judges requests to EC2 by a policy, as IAM does: each resource of a request must be allowed by some statement.
// Which resources and keys a request has is told by the Service Authorization Reference of Amazon EC2.

import type { Policy, Statement } from '../../provisioning/iam.ts'

/** One resource that a request is about, with the condition keys that it brings. */
export interface Judged {
  readonly action: string
  readonly arn: string
  readonly keys: Readonly<Record<string, readonly string[]>>
}

const fits = (pattern: string, text: string): boolean =>
  new RegExp(
    `^${pattern
      .split(/(\$\{.\}|[*?])/)
      .map((part) => (part === '*' ? '.*' : part === '?' ? '.' : RegExp.escape(part)))
      .join('')}$`,
    's',
  ).test(text)

const listed = (value: string | readonly string[]): readonly string[] =>
  typeof value === 'string' ? [value] : value

const operators: Readonly<Record<string, (wanted: readonly string[], had: readonly string[]) => boolean>> = {
  StringEquals: (wanted, [had, ...more]) => had !== undefined && more.length === 0 && wanted.includes(had),
  StringLike: (wanted, [had, ...more]) =>
    had !== undefined && more.length === 0 && wanted.some((pattern) => fits(pattern, had)),
  'ForAllValues:StringEquals': (wanted, had) => had.every((one) => wanted.includes(one)),
}

function permits({ Action, Resource, Condition = {} }: Statement, { action, arn, keys }: Judged): boolean {
  return (
    Action.includes(action) &&
    Resource.some((pattern) => fits(pattern, arn)) &&
    Object.entries(Condition).every(([operator, tests]) => {
      const holds = operators[operator]
      if (holds === undefined) throw new Error(`the judge does not know ${operator}`)
      return Object.entries(tests).every(([key, wanted]) => holds(listed(wanted), keys[key] ?? []))
    })
  )
}

/** The first resource that no statement allows; null when all is allowed. */
export const refusedBy = ({ Statement }: Policy, judged: readonly Judged[]): Judged | null =>
  judged.find((one) => !Statement.some((statement) => permits(statement, one))) ?? null

/** Tags in a form: `Tag.1.Key`, or `TagSpecification.1.Tag.1.Key`. */
function tagsIn(form: URLSearchParams): Readonly<Record<string, string>> {
  const keys = [...form].filter(([name]) => /(^|\.)Tag\.\d+\.Key$/.test(name))
  return Object.fromEntries(keys.map(([name, key]) => [key, form.get(name.replace(/Key$/, 'Value')) ?? '']))
}

const tagKeys = (kind: 'RequestTag' | 'ResourceTag', tags: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(tags).map(([key, value]) => [`aws:${kind}/${key}`, [value]]))

/** What is known of an interface that is there. */
export interface Seen {
  readonly tags: Readonly<Record<string, string>>
  readonly instanceId: string
}

/** The resources of a request. */
export async function judgedOf(
  form: URLSearchParams,
  region: string,
  look: (interfaceId: string) => Promise<Seen>,
): Promise<readonly Judged[]> {
  const name = form.get('Action') ?? ''
  const account = '0123'.repeat(3)
  const everywhere = { 'aws:RequestedRegion': [region] }
  const about = (kind: string, id: string, keys: Judged['keys'] = {}, action = name): Judged => ({
    action: `ec2:${action}`,
    arn: ['arn', 'aws', 'ec2', region, account, `${kind}/${id}`].join(':'),
    keys: { ...everywhere, ...keys },
  })
  const requested = tagsIn(form)
  const tagging = { ...tagKeys('RequestTag', requested), 'aws:TagKeys': Object.keys(requested) }
  const there = async (interfaceId: string, more: Judged['keys'] = {}) => {
    const { tags, instanceId } = await look(interfaceId)
    const keys = { ...tagKeys('ResourceTag', tags), ...more }
    return { instanceId, one: about('network-interface', interfaceId, keys) }
  }
  const id = form.get('NetworkInterfaceId') ?? ''
  switch (name) {
    case 'ModifySubnetAttribute':
      return [about('subnet', form.get('SubnetId') ?? '')]
    case 'CreateNetworkInterface':
      return [
        about('network-interface', '*', tagging),
        about('subnet', form.get('SubnetId') ?? ''),
        about('security-group', 'sg-0123456789abcdef0'),
        about('network-interface', '*', { ...tagging, 'ec2:CreateAction': [name] }, 'CreateTags'),
      ]
    case 'AttachNetworkInterface':
      return [(await there(id)).one, about('instance', form.get('InstanceId') ?? '')]
    case 'ModifyNetworkInterfaceAttribute': {
      const { one, instanceId } = await there(id)
      return [one, about('instance', instanceId)]
    }
    case 'CreateTags':
      return [(await there(form.get('ResourceId.1') ?? '', tagging)).one]
    default:
      return [{ action: `ec2:${name}`, arn: '*', keys: everywhere }]
  }
}
