// The part of the table of verbs that brings VMs into being: create, export and import, and the images that they begin as.

import { detach } from './job-verbs.ts'
import type { Verb } from './verbs.ts'

const declaring = {
  plan: { kind: 'switch', brief: 'show the declaration and what would be done; write nothing' },
  declare: { kind: 'switch', brief: 'write the declaration and leave the rest to apply' },
} as const

const set = {
  kind: 'text',
  placeholder: 'KEY=VALUE',
  brief: 'any key of vms.machines.NAME, dotted: disks.root.size=20GiB',
  many: true,
  untold: true,
} as const

const declareLines = {
  job: 'the id of the job, for garrison jobs follow and garrison jobs cancel',
  planned: 'with --plan: vm, file, text, steps (id, subject, summary, risk)',
  declared: 'vm, file, goesOn (false with --declare)',
  progress: 'subject, doing, doneBytes, totalBytes, bytesPerSecond and leftMs of an image that is fetched',
  'the lines of apply': 'as in garrison/apply/1, of this VM alone',
} as const

/** Every verb that brings VMs into being. */
export const creationVerbs = {
  'vm create': {
    brief: 'declare a VM and make it',
    help: 'Writes host.d/vm-NAME.yaml beside the desired document, from a template or from what --set says, and then does what that asks for, of this VM alone. It is checked and planned first: what is not valid or would be blocked is refused, and nothing is written. Values are as in YAML.',
    examples: [
      [
        'garrison vm create web-1 --template small --with image=/i.qcow2 --plan',
        'what it would be; garrison template show tells the parameters',
      ],
      ['garrison vm create db-1 --set memory=8GiB --set disks.root.size=20GiB', 'without one'],
    ],
    operands: {
      name: { kind: 'text', placeholder: 'NAME', brief: 'what it is called', required: true },
    },
    flags: {
      template: { kind: 'text', placeholder: 'TEMPLATE', brief: 'the template that it is made from' },
      with: {
        kind: 'text',
        placeholder: 'KEY=VALUE',
        brief: 'a parameter of the template',
        many: true,
        untold: true,
      },
      set,
      ...declaring,
      detach,
    },
    door: 'admin',
    schema: 'garrison/vm-create/1',
    json: declareLines,
    streams: true,
    job: true,
  },
} as const satisfies Record<string, Verb>
