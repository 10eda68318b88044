// What IAM must allow a host for what its document asks of AWS: the statements of a policy, as narrow as IAM can say them.
//
// Which resources and condition keys an action has is told by the Service Authorization Reference (Amazon EC2, S3, CloudWatch, CloudWatch Logs).

import type { Desired } from './desired.ts'
import { EC2_ACTIONS, type InstanceFacts, ownTag } from './instance.ts'

/** A test of a statement: operator -> key -> what it is held against. */
type Condition = Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>

/** One statement, as IAM reads it. */
export interface Statement {
  readonly Sid: string
  readonly Effect: 'Allow'
  readonly Action: readonly string[]
  readonly Resource: readonly string[]
  readonly Condition?: Condition
}

/** A policy document of IAM. */
export interface Policy {
  readonly Version: '2012-10-17'
  readonly Statement: readonly Statement[]
}

/** A statement and the place of the document that needs it, such as `uplinks.lan.lni`. */
export interface Needed {
  readonly statement: Statement
  readonly because: string
}

const allow = (
  Sid: string,
  Action: readonly string[],
  Resource: readonly string[],
  ...conditions: readonly (Condition | null)[]
): Statement => {
  const given = conditions.filter((one) => one !== null)
  return {
    ...{ Sid, Effect: 'Allow', Action, Resource },
    ...(given.length > 0 && { Condition: Object.assign({}, ...given) as Condition }),
  }
}

/** Who and where the host is, as far as it is known; the rest is left open. */
interface Place {
  readonly partition: string
  readonly region: string | null
  readonly instanceId: string | null
  readonly subnetId: string | null
}

function placeOf({ host }: Desired, facts: InstanceFacts | null): Place {
  const first = facts?.interfaces.find(({ mac }) => mac === facts.mac)
  return {
    partition: facts?.partition ?? 'aws',
    region: facts?.region ?? null,
    instanceId: host.instance?.startsWith('i-') ? host.instance : null,
    subnetId: first?.subnetId ?? null,
  }
}

/** What the local network interface needs of EC2. */
function lniStatements(lni: NonNullable<LniWish>, place: Place): readonly Statement[] {
  const { partition, region, instanceId } = place
  const arn = (kind: string, id: string | null): string =>
    `arn:${partition}:ec2:${region ?? '*'}:*:${kind}/${id ?? '*'}`
  const tagged = (key: 'RequestTag' | 'ResourceTag'): Condition => ({
    [instanceId === null ? 'StringLike' : 'StringEquals']: { [`aws:${key}/${ownTag}`]: instanceId ?? 'i-*' },
  })
  // Descriptions know no resources.
  const look = allow(
    'GarrisonLook',
    [EC2_ACTIONS.describeInterfaces, EC2_ACTIONS.describeSubnets],
    ['*'],
    region === null ? null : { StringEquals: { 'aws:RequestedRegion': region } },
  )
  if (!lni.ensure) return [look]
  const subnet = arn('subnet', lni.subnet ?? place.subnetId)
  const interfaces = [arn('network-interface', null)]
  const use = [EC2_ACTIONS.attachInterface, EC2_ACTIONS.modifyInterface]
  const keys = Object.keys(lni.tags).sort()
  return [
    look,
    allow('GarrisonSubnet', [EC2_ACTIONS.enableLni], [subnet]),
    allow('GarrisonCreate', [EC2_ACTIONS.createInterface], interfaces, tagged('RequestTag')),
    allow('GarrisonCreateIn', [EC2_ACTIONS.createInterface], [subnet, arn('security-group', null)]),
    allow('GarrisonCreateTagged', [EC2_ACTIONS.tag], interfaces, {
      StringEquals: { 'ec2:CreateAction': 'CreateNetworkInterface' },
    }),
    ...(keys.length === 0
      ? []
      : [
          allow('GarrisonTag', [EC2_ACTIONS.tag], interfaces, tagged('ResourceTag'), {
            'ForAllValues:StringEquals': { 'aws:TagKeys': keys },
          }),
        ]),
    allow('GarrisonAttach', use, interfaces, tagged('ResourceTag')),
    allow('GarrisonAttachTo', use, [arn('instance', instanceId)]),
  ]
}

type LniWish = NonNullable<Desired['uplinks']>[string]['lni']

/** What the reports to CloudWatch need; a part that is told twice is looked up first, so it is read too. */
function cloudwatchStatements(told: NonNullable<Desired['cloudwatch']>, place: Place): readonly Statement[] {
  const region = told.region ?? place.region
  const metrics = [
    allow('GarrisonMetrics', ['cloudwatch:PutMetricData'], ['*'], {
      StringEquals: { 'cloudwatch:namespace': told.namespace },
    }),
    // It knows neither resources nor namespaces.
    allow(
      'GarrisonMetricsSeen',
      ['cloudwatch:GetMetricData'],
      ['*'],
      region === null ? null : { StringEquals: { 'aws:RequestedRegion': region } },
    ),
  ]
  if (told.logs === undefined) return metrics
  const group = `arn:${place.partition}:logs:${region ?? '*'}:*:log-group:${told.logs.group}`
  return [
    ...metrics,
    allow(
      'GarrisonLogGroup',
      ['logs:CreateLogGroup', 'logs:PutRetentionPolicy', 'logs:CreateLogStream'],
      [group, `${group}:*`],
    ),
    allow('GarrisonLogs', ['logs:PutLogEvents', 'logs:GetLogEvents'], [`${group}:log-stream:*`]),
  ]
}

/** Characters that mean something in a Resource stand for themselves only as policy variables. */
const literally = (key: string): string => key.replaceAll(/[*?$]/g, (one) => `\${${one}}`)

/** The objects of S3 that disks begin as, with where the document names each. */
function objects({ vms }: Desired): readonly { readonly path: string; readonly object: string }[] {
  return Object.entries(vms?.machines ?? {}).flatMap(([name, { disks }]) =>
    Object.entries(disks).flatMap(([disk, { image }]) => {
      const [, object] = /^s3:\/\/(.+)$/s.exec(image?.source ?? '') ?? []
      return object === undefined ? [] : [{ path: `vms.machines.${name}.disks.${disk}.image`, object }]
    }),
  )
}

/**
 * What IAM must allow for a document, in a steady order; empty when it asks nothing of AWS. `facts`: the instance that it is for;
 * without it Region and subnet are left open. Pure.
 */
export function neededOf(desired: Desired, facts: InstanceFacts | null): readonly Needed[] {
  const place = placeOf(desired, facts)
  const needed: Needed[] = Object.entries(desired.uplinks ?? {}).flatMap(([name, { lni }]) =>
    lni === undefined
      ? []
      : lniStatements(lni, place).map((statement) => ({ statement, because: `uplinks.${name}.lni` })),
  )
  if (desired.fleet?.discover !== undefined)
    needed.push({
      statement: allow(
        'GarrisonFleet',
        [EC2_ACTIONS.describeInstances],
        ['*'],
        place.region === null ? null : { StringEquals: { 'aws:RequestedRegion': place.region } },
      ),
      because: 'fleet.discover',
    })
  if (desired.cloudwatch !== undefined)
    for (const statement of cloudwatchStatements(desired.cloudwatch, place))
      needed.push({ statement, because: 'cloudwatch' })
  const found = objects(desired)
  const arns = found.map(({ object }) => `arn:${place.partition}:s3:::${literally(object)}`)
  if (found.length > 0)
    needed.push({
      statement: allow('GarrisonImages', ['s3:GetObject'], [...new Set(arns)].sort()),
      because: found.map(({ path }) => path).join(', '),
    })
  return needed
}

/** The policy with these statements; null when there is none, for IAM knows no empty one. */
export const policyOf = (needed: readonly Needed[]): Policy | null =>
  needed.length === 0 ? null : { Version: '2012-10-17', Statement: needed.map(({ statement }) => statement) }
