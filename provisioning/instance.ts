// What AWS tells of the EC2 instance that this host is: its metadata (IMDS) and its network interfaces (the EC2 API).

import type { ProblemReport } from './problem.ts'

/** One network interface as the metadata tell it. */
export interface MetadataInterface {
  /** Lower case, with colons. */
  readonly mac: string
  /**
   * Null when it is not told, and when it may not be true yet: for a while after an interface was attached they say 0 of it,
   * which is true of the first interface alone.
   */
  readonly deviceNumber: number | null
  readonly interfaceId: string | null
  readonly subnetId: string | null
}

/** What the metadata tell of the instance. */
export interface InstanceFacts {
  readonly instanceId: string
  readonly region: string
  readonly zone: string
  /** `aws` but in China, GovCloud and other partitions. */
  readonly partition: string
  /** Null off Outposts, and on some: best effort. */
  readonly outpostArn: string | null
  /** The MAC of the first interface. */
  readonly mac: string
  readonly interfaces: readonly MetadataInterface[]
}

/** One event that AWS has scheduled. Times are epoch milliseconds, null where none is told or it is no date. */
export interface MaintenanceEvent {
  readonly id: string
  /** `instance-retirement`, `instance-stop`, `instance-reboot`, `system-reboot`, `system-maintenance`, … */
  readonly code: string
  /** False when it was cancelled or is over. */
  readonly active: boolean
  readonly description: string
  readonly notBeforeMs: number | null
  readonly notAfterMs: number | null
}

/** What is going to happen to the instance, as the metadata tell it. */
export interface InstanceEvents {
  readonly spot: { readonly action: string; readonly atMs: number | null } | null
  readonly rebalance: { readonly noticedMs: number | null } | null
  readonly maintenance: readonly MaintenanceEvent[]
  /** What its Auto Scaling group wants it to be (`InService`, `Terminated`, …); null without a group. */
  readonly lifecycle: string | null
}

/** Where and how a network interface is attached. */
export interface Ec2Attachment {
  readonly id: string
  /** Null when it belongs to somebody else's account. */
  readonly instanceId: string | null
  readonly deviceIndex: number
  readonly phase: 'attaching' | 'attached' | 'detaching'
  readonly deleteOnTermination: boolean
}

/** One network interface as EC2 describes it. */
export interface Ec2Interface {
  readonly id: string
  /** Lower case, with colons. */
  readonly mac: string
  readonly subnetId: string
  readonly tags: Readonly<Record<string, string>>
  readonly attachment: Ec2Attachment | null
}

/** One subnet as EC2 describes it. */
export interface Ec2Subnet {
  readonly id: string
  readonly outpostArn: string | null
  /** An interface in this subnet that is attached at this device index is a local network interface; null: none is. */
  readonly lniDeviceIndex: number | null
}

/** What EC2 is asked about the network of this instance. */
export interface Ec2Question {
  /** The subnet to look at; null for that of the instance's first interface. */
  readonly subnetId: string | null
  readonly deviceIndex: number
}

/** What EC2 answered. */
export interface Ec2Network {
  readonly instanceId: string
  /** The subnet that was asked about; it may not be among `subnets`, and then does not exist. */
  readonly subnetId: string | null
  /** That subnet, and those of every interface below. */
  readonly subnets: readonly Ec2Subnet[]
  /** The interfaces of this instance, and those that carry our tag for it. */
  readonly interfaces: readonly Ec2Interface[]
  /** Interfaces of other instances at that device index, told while the subnet knows no local network interfaces. */
  readonly othersAtIndex: readonly string[]
  /** Ids of interfaces with our tag that were there once and are not any more. */
  readonly gone: readonly string[]
}

/** An answer of EC2 and how old it is. With a problem it is the last answer that there was, or null. */
export interface Ec2Reading {
  readonly answer: Ec2Network | null
  /** Epoch milliseconds, null when EC2 never answered. */
  readonly answeredMs: number | null
  readonly problem: ProblemReport | null
}

/** The tag of an interface that Garrison made; its value is the instance that it was made for. */
export const ownTag = 'garrison:lni'

/** The actions that the API is asked for, one table with what each is for: `garrison iam` and refusals name them. */
export const EC2_ACTIONS = {
  describeInterfaces: 'ec2:DescribeNetworkInterfaces',
  describeSubnets: 'ec2:DescribeSubnets',
  describeInstances: 'ec2:DescribeInstances',
  enableLni: 'ec2:ModifySubnetAttribute',
  createInterface: 'ec2:CreateNetworkInterface',
  attachInterface: 'ec2:AttachNetworkInterface',
  modifyInterface: 'ec2:ModifyNetworkInterfaceAttribute',
  tag: 'ec2:CreateTags',
} as const
