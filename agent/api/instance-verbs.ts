// The part of the table of verbs that is about the EC2 instance that the host is.

import type { Verb } from './verbs.ts'

/** Every verb about the instance and what it may ask of AWS. */
export const instanceVerbs = {
  instance: () =>
    ({
      brief: 'show what AWS tells of this instance and its events',
      help: 'Reads the instance metadata (IMDSv2): identity, Region, Outpost, network interfaces with their device index, and events: maintenance, retirement, spot interruption, rebalance, the Auto Scaling lifecycle. A host that is no EC2 instance is told so, which is no error. A device index of - is not known yet: for a while after an attach the metadata say 0 of any interface.',
      examples: [
        ['garrison instance', 'who this instance is, and what awaits it'],
        ['garrison instance --json', 'the same for a script; times in epoch milliseconds'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      schema: 'garrison/instance/1',
      json: {
        schema: 'garrison/instance/1',
        atMs: 'when it looked, epoch milliseconds',
        instance:
          'null off EC2, or instanceId, region, zone, partition, outpostArn, mac and interfaces (mac, deviceNumber, interfaceId, subnetId)',
        events:
          'null off EC2, or spot (action, atMs), rebalance (noticedMs), maintenance (id, code, active, description, notBeforeMs, notAfterMs), lifecycle',
      },
    }) as const,
  iam: () =>
    ({
      brief: 'print the IAM policy that this host needs, and no more',
      help: 'Prints the policy for the role of the instance: every action that the document makes the host ask for (local network interface, images on S3, CloudWatch), each on the narrowest resources and conditions that IAM knows. On the instance itself Region and subnet are filled in from its metadata; elsewhere they are left open (*). Without FILE: the document of this host. It changes nothing and asks nothing of AWS.',
      examples: [
        ['garrison iam > policy.json', 'for aws iam put-role-policy --policy-document file://policy.json'],
        ['garrison iam ./host.yaml --json', 'with the place of the document that needs each statement'],
      ],
      operands: { file: { kind: 'path', placeholder: 'FILE', brief: 'the document' } },
      flags: {},
      door: 'local',
      schema: 'garrison/iam/1',
      json: {
        schema: 'garrison/iam/1',
        file: 'the document',
        policy: 'the policy as IAM reads it; null when the document asks nothing of AWS',
        because: 'for each statement its Sid and the place of the document that needs it',
        region: 'the Region that it is limited to, or null',
        problem: 'null, or why the metadata of the instance could not be read to narrow it',
      },
    }) as const,
  'ec2-call': () =>
    ({
      brief: 'make one request to the EC2 API, in a unit of its own',
      help: 'Started by the root side, which itself may not speak to the network.',
      examples: [],
      operands: {
        request: { kind: 'text', placeholder: 'JSON', brief: 'the request', required: true },
      },
      flags: {},
      door: 'local',
      schema: 'garrison/ec2-call/1',
      json: {
        schema: 'garrison/ec2-call/1',
        answer: 'what EC2 tells of the network of this instance; null of a change',
      },
      hidden: true,
    }) as const,
} satisfies Record<string, () => Verb>
