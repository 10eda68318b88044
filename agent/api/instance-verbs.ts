// The part of the table of verbs that is about the EC2 instance that the host is.

import type { Verb } from './verbs.ts'

/** Every verb about the instance and what it may ask of AWS. */
export const instanceVerbs = {
  instance: {
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
  },
  'ec2-call': {
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
  },
} as const satisfies Readonly<Record<string, Verb>>
