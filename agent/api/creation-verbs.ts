// The part of the table of verbs that brings VMs into being: create, export and import, and the images that they begin as.

import { RISKS } from '../../provisioning/resource.ts'
import { detach } from './job-verbs.ts'
import type { Verb } from './verbs.ts'

const declared = {
  kind: 'vm',
  placeholder: 'VM',
  brief: "names, UUIDs, or patterns such as 'web-*', of declared VMs",
  many: true,
  required: true,
} as const

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

const takenBack = 'vm, file, paths that are accepted no more; plan: whether they only would not be'

/** Every verb that brings VMs into being. */
export const creationVerbs = {
  'images list': () =>
    ({
      brief: 'show the images that disks of VMs begin as',
      help: 'Those in the pools of the desired document: how large, from where, with which checksum, and which disks of which VMs keep only what differs from them. Ends with 4 when something that may stand on them could not be read.',
      examples: [
        ['garrison images list', 'every image in every pool'],
        ['garrison images list --json', 'the same for a script'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      schema: 'garrison/images-list/1',
      json: {
        schema: 'garrison/images-list/1',
        images:
          'each image: pool, path, format, fileBytes, virtualBytes, problem, origin (source, checksum, fetchedMs; null where nobody wrote it down), users (path and vms: what stands on it), declaredBy',
        unfinished: 'pool, path and doneBytes of what was not fetched to its end',
        unread: 'what could not be read and may stand on any of them',
      },
    }) as const,
  'images fetch': () =>
    ({
      brief: 'fetch an image into a pool',
      help: 'It gets its name when it is whole and its checksum is right; a VM declared with the same source, format and checksum then finds it there. Cut short, the same command goes on where it was.',
      examples: [
        ['garrison images fetch /srv/debian.qcow2', 'from a file of this host'],
        ['garrison images fetch s3://b/i.qcow2 --checksum sha256:… --detach', 'and see garrison jobs'],
      ],
      operands: {
        source: {
          kind: 'text',
          placeholder: 'SOURCE',
          brief: 'an absolute path, an http(s) URL or s3://BUCKET/KEY',
          required: true,
        },
      },
      flags: {
        pool: { kind: 'text', placeholder: 'POOL', brief: 'where to (the only one when left out)' },
        checksum: {
          kind: 'text',
          placeholder: 'CHECKSUM',
          brief: 'sha256:… or sha512:…; must be given for what is not on this host',
        },
        format: {
          kind: 'choice',
          placeholder: 'FORMAT',
          brief: 'qcow2 (the default) or raw',
          choices: ['qcow2', 'raw'],
        },
        size: { kind: 'text', placeholder: 'BYTES', brief: 'its length; another one is refused at once' },
        detach,
      },
      door: 'admin',
      schema: 'garrison/images-fetch/1',
      json: {
        job: declareLines.job,
        begun: 'image, pool, source',
        progress: declareLines.progress,
        done: 'image, path, fileBytes, fetched (false when it was there), durationMs',
      },
      streams: true,
      job: true,
    }) as const,
  'images remove': () =>
    ({
      brief: 'remove an image that nothing stands on',
      help: 'Refused while a VM has it as a disk, or a disk or another image keeps only what differs from it, whether libvirt knows that VM or not. Of one that was not fetched to its end, what has come is removed.',
      examples: [
        ['garrison images remove debian-12-0f3a91c2d4e5b687.qcow2', 'by its name, as images list has it'],
        ['garrison images remove old.qcow2 --pool vms', 'one of several of that name'],
      ],
      operands: {
        image: { kind: 'text', placeholder: 'IMAGE', brief: 'its file name', required: true },
      },
      flags: { pool: { kind: 'text', placeholder: 'POOL', brief: 'the pool that it is in' } },
      door: 'admin',
      schema: 'garrison/images-remove/1',
      json: { 'the lines of apply': 'as in garrison/apply/1, with the one step vms.image-remove' },
      streams: true,
      steps: true,
    }) as const,
  'vm create': () =>
    ({
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
    }) as const,
  'vm adopt': () =>
    ({
      brief: 'write into the document what a VM is',
      help: 'One that nobody declared is declared in host.d/vm-NAME.yaml as its definition says, its disks where they are. Of one that is declared, what a person has changed is written there, also what garrison vm accept has left, and the document then asks for that; it is then accepted no more. Nothing is done to the VM. What no key can say is told: take it out of the document, or apply takes it back.',
      examples: [
        ['garrison vm adopt web-1 --plan', 'what would be written, and what apply would then do'],
        ['garrison vm adopt web-1', 'write it'],
      ],
      operands: { vm: { kind: 'vm', placeholder: 'VM', brief: 'name or UUID', required: true } },
      flags: { plan: { kind: 'switch', brief: 'show it; write nothing' } },
      door: 'admin',
      schema: 'garrison/vm-adopt/1',
      json: {
        'as-declared': 'vm: nothing differs',
        unsaid: 'vm and what: what no key of a document can say',
        'taken-back': takenBack,
        planned: declareLines.planned,
        declared: 'vm, file, goesOn (false)',
      },
      streams: true,
    }) as const,
  'vm accept': () =>
    ({
      brief: 'leave what differs of VMs until a day',
      help: 'Writes into host.d/vm-NAME.yaml that what garrison plan shows of these VMs now is left as it is, to the end of that day in UTC; what is accepted already gets that day too. With --path only that, and what else differs stays drift. Then apply leaves it, garrison check tells it, and from the next day on it is drift again. Other drift of theirs is not accepted by it. Nothing is done to the VMs.',
      examples: [
        ["garrison vm accept web-1 --until 2027-01-31 --reason 'load test'", 'all that differs of it now'],
        ["garrison vm accept 'web-*' --path cpus --until 2027-01-31", 'of each that alone'],
      ],
      operands: { names: declared },
      flags: {
        until: {
          kind: 'text',
          placeholder: 'DATE',
          brief: 'the last day on which it is left: 2027-01-31',
          required: true,
        },
        path: {
          kind: 'text',
          placeholder: 'PATH',
          brief: 'only this, as plan shows it: cpus, or vms.machines.web-1.cpus; several times for more',
          many: true,
        },
        reason: { kind: 'text', placeholder: 'TEXT', brief: 'why, for whoever finds it' },
        plan: { kind: 'switch', brief: 'show it; write nothing' },
      },
      door: 'admin',
      schema: 'garrison/vm-accept/1',
      json: {
        'as-declared':
          'vm: nothing differs; paths: what --path named, if anything, for then only that does not',
        planned: declareLines.planned,
        accepted: 'vm, file, until, why and paths, as garrison plan shows them',
      },
      streams: true,
    }) as const,
  'vm revert': () =>
    ({
      brief: 'make VMs again what the document declares',
      help: 'As apply, of these VMs alone: what a person has changed is taken back, also what garrison vm accept has left, which is taken out of host.d/vm-NAME.yaml first. What another file of the document accepts is named, and stays. A definition is changed for the next start; what would be lost for good, or interrupt, needs --allow.',
      examples: [
        ['garrison vm revert web-1 --plan', 'what would be done'],
        ['garrison vm revert web-1 --allow disruptive', 'a disk that somebody attached is taken away too'],
      ],
      operands: { names: declared },
      flags: {
        allow: {
          kind: 'choice',
          placeholder: 'RISK',
          brief: 'perform steps up to this risk: safe (the default), disruptive or destroys-data',
          choices: RISKS,
        },
        plan: { kind: 'switch', brief: 'show it; write and do nothing' },
      },
      door: 'admin',
      schema: 'garrison/vm-revert/1',
      json: {
        planned: 'with --plan: vm and steps (id, subject, summary, risk)',
        'taken-back': takenBack,
        'still-accepted': 'vm and accepted: path, until and where (the file and line that says so)',
        'the lines of apply': declareLines['the lines of apply'],
      },
      streams: true,
      steps: true,
    }) as const,
  'vm export': () =>
    ({
      brief: 'write a VM into a folder that it can be imported from',
      help: 'Its disks whole, as qcow2, each read back, and last vm.json: the VM as it is declared, or as its definition says. What is about this host alone is left behind, and named: who owns it, pools, devices, changes to the XML. The disks of a VM that runs are copied as they are at one moment; where libvirt cannot do that it is refused. The VM is left as it is: stop it before it is imported elsewhere. Cut short, the same command goes on.',
      examples: [
        ['garrison vm export web-1 /mnt/usb/web-1', 'into a new folder'],
        ['garrison vm export db-1 /srv/out/db-1 --freeze --detach', 'and see garrison jobs'],
      ],
      operands: {
        vm: { kind: 'vm', placeholder: 'VM', brief: 'name or UUID', required: true },
        dir: {
          kind: 'path',
          placeholder: 'DIR',
          brief: 'a folder that is empty or not there yet, an absolute path',
          required: true,
        },
      },
      flags: {
        freeze: { kind: 'switch', brief: 'have the guest agent freeze filesystems for the moment' },
        detach,
      },
      door: 'admin',
      schema: 'garrison/vm-export/1',
      json: {
        job: declareLines.job,
        selected: 'vms: its name',
        begun: 'vm and uuid',
        progress:
          'subject, doing, doneBytes, totalBytes, bytesPerSecond and leftMs, each null where it cannot be known',
        done: 'vm, uuid, changed, text, durationMs, resumed, and the export: name, uuid, architecture, host, atMs, consistency, from, template, disks (name, file, virtualBytes, fileBytes, sha256), firmware, left',
        failed: 'vm, uuid, durationMs and the problem',
        finished: 'how many are done, failed, unknown and left, durationMs',
      },
      streams: true,
      job: true,
    }) as const,
  'vm import': () =>
    ({
      brief: 'declare and make a VM that was exported',
      help: 'Reads every byte of the folder, which must be root’s alone, and then does as vm create does. Nothing is written when anything is not as it was exported, a disk is there already, or a VM of this host has its name, UUID or a MAC: --name gives it another name, --new-identity a UUID and MACs of its own. The disks are copied: the folder can go afterwards.',
      examples: [
        ['garrison vm import /mnt/usb/web-1 --plan', 'what it would be here'],
        [
          'garrison vm import /mnt/usb/web-1 --name web-2 --new-identity --set power=off',
          'as another VM, which is not started',
        ],
      ],
      operands: {
        dir: { kind: 'path', placeholder: 'DIR', brief: 'the folder, an absolute path', required: true },
      },
      flags: {
        name: { kind: 'text', placeholder: 'NAME', brief: 'what it is called here' },
        'new-identity': { kind: 'switch', brief: 'give it a UUID and MACs of its own' },
        set,
        ...declaring,
        detach,
      },
      door: 'admin',
      schema: 'garrison/vm-import/1',
      json: {
        read: 'folder, as (its name here), and the export as garrison vm export tells it',
        ...declareLines,
      },
      streams: true,
      job: true,
    }) as const,
} satisfies Record<string, () => Verb>
