// The part of the table of verbs that is about VMs.

import type { Verb } from './verbs.ts'

/** What `vm list` can show of a VM, in the order in which it is offered. */
export const vmColumns = [
  'name',
  'power',
  'cpus',
  'memory',
  'age',
  'networks',
  'tags',
  'reason',
  'autostart',
  'persistent',
  'saved',
  'template',
  'id',
  'uuid',
] as const

const one = { kind: 'vm', placeholder: 'VM', brief: 'name or UUID', required: true } as const

const names = {
  kind: 'vm',
  placeholder: 'VM',
  brief: "names, UUIDs, or patterns such as 'web-*'",
  many: true,
} as const

const tag = {
  kind: 'text',
  placeholder: 'KEY=VALUE',
  brief: 'only those with this tag; KEY alone takes any value; more than one narrows further',
  many: true,
} as const

const all = { kind: 'switch', brief: 'every VM of this host' } as const

const parallel = {
  kind: 'text',
  placeholder: 'NUMBER',
  brief: 'how many at once (8 when left out, 32 for those that wait for a guest)',
} as const

const batch = { tag, all, parallel } as const

const stopping = {
  timeout: {
    kind: 'text',
    placeholder: 'TIME',
    brief: 'how long to wait for a guest: 90s, 5m, … (3m when left out)',
  },
  kill: { kind: 'switch', brief: 'cut the power of those that are not off by then' },
} as const

const batchLines = {
  selected: 'vms: the names of those that are meant',
  begun: 'vm and uuid of the one that is begun',
  done: 'vm, uuid, changed (false when it was so already), text, durationMs',
  failed: 'vm, uuid, durationMs and the problem',
  finished:
    'how many are done, unchanged, failed, unknown (nobody can tell) and left (not begun, for the caller has gone), durationMs',
} as const

const batchHelp =
  'Names, patterns, --tag and --all choose the VMs; when a word finds none, nothing is done to any. Each is told when it is done. Ends with 1 when any failed, with 4 when nobody can tell what became of one.'

/** Every verb about VMs. */
export const vmVerbs = {
  'vm list': {
    brief: 'show the VMs of this host',
    help: 'One line for each VM that libvirt has. When libvirt does not answer, that is said, with since when, and the exit code is 4: unknown is not off.',
    examples: [
      [
        "garrison vm list 'web-*' --power running --sort age",
        'what runs of the web servers, the youngest first',
      ],
      ['garrison vm list --columns name,power,uuid --csv', 'for a spreadsheet'],
    ],
    operands: { names },
    flags: {
      power: {
        kind: 'choice',
        placeholder: 'POWER',
        brief: 'only those that are running, off, paused, …',
        choices: ['running', 'blocked', 'paused', 'shutting-down', 'off', 'crashed', 'suspended', 'unknown'],
      },
      tag,
      network: { kind: 'text', placeholder: 'NETWORK', brief: 'only those on this network or bridge' },
      older: {
        kind: 'text',
        placeholder: 'TIME',
        brief: 'only those that have run longer: 90s, 30m, 2h, 7d',
      },
      younger: { kind: 'text', placeholder: 'TIME', brief: 'only those that have run for less' },
      columns: { kind: 'text', placeholder: 'LIST', brief: `of ${vmColumns.join(', ')}` },
      sort: {
        kind: 'choice',
        placeholder: 'COLUMN',
        brief: 'the order (name when left out)',
        choices: vmColumns,
      },
      csv: { kind: 'switch', brief: 'print CSV' },
      watch: { kind: 'switch', brief: 'go on showing it, until Ctrl-C' },
    },
    door: 'read',
    schema: 'garrison/vms/1',
    json: {
      vms: 'atMs, and each VM: name, uuid, id, power, reason, persistent, autostart, saved, cpus, memoryBytes, networks, tags, template, runningSinceMs, problem',
      unknown: 'with --watch, when libvirt does not answer: atMs and the problem',
    },
    streams: true,
  },
  'vm show': {
    brief: 'show everything that is known of one VM',
    help: 'Its power and why, processors and memory, disks with what they take, NICs with their addresses, snapshots, and where it came from.',
    examples: [
      ['garrison vm show web-1', 'by its name'],
      ['garrison vm show 5e0a7b1c-7d3f-4c52-9a51-3a1d0c6f2b10 --json', 'by its UUID, for a script'],
    ],
    operands: { vm: one },
    flags: {},
    door: 'read',
    schema: 'garrison/vm/1',
    json: {
      schema: 'garrison/vm/1',
      atMs: 'when it was looked at, epoch milliseconds',
      vm: 'as in garrison/vms/1',
      model:
        'what its definition says: type, firmware, machine, cpuModel, disks, nics, devices, …; null when it cannot be read',
      disks: 'of each disk by its target: capacityBytes, allocationBytes',
      addresses: 'by MAC: the addresses that the guest has, as far as the host knows',
      snapshots: 'their names',
      unread: 'what could not be learned, and why',
    },
  },
  'vm start': {
    brief: 'start VMs',
    help: `A VM whose memory was saved goes on from there. ${batchHelp}`,
    examples: [
      ['garrison vm start web-1 web-2', 'two of them'],
      ['garrison vm start --tag env=prod --parallel 2', 'all with a tag, two at a time'],
    ],
    operands: { names },
    flags: { ...batch, paused: { kind: 'switch', brief: 'with processors that stand still until resumed' } },
    door: 'operate',
    schema: 'garrison/vm-start/1',
    json: batchLines,
    streams: true,
  },
  'vm stop': {
    brief: 'shut VMs down and wait until they are off',
    help: `The guest is asked, by its agent or by the power button. ${batchHelp}`,
    examples: [
      ["garrison vm stop 'web-*'", 'all that have such a name'],
      ['garrison vm stop --all --timeout 5m --kill', 'everything, whether it listens or not'],
    ],
    operands: { names },
    flags: { ...batch, ...stopping },
    door: 'operate',
    schema: 'garrison/vm-stop/1',
    json: batchLines,
    streams: true,
  },
  'vm restart': {
    brief: 'shut VMs down and start them again',
    help: `They then run with what is defined now. One that is off is started. ${batchHelp}`,
    examples: [
      ['garrison vm restart web-1', 'one of them'],
      ['garrison vm restart --tag tier=web --parallel 1', 'one after the other'],
    ],
    operands: { names },
    flags: { ...batch, ...stopping },
    door: 'operate',
    schema: 'garrison/vm-restart/1',
    json: batchLines,
    streams: true,
  },
  'vm kill': {
    brief: 'cut the power of VMs',
    help: `As if the plug was pulled: what the guest has not written yet is lost. ${batchHelp}`,
    examples: [
      ['garrison vm kill web-1', 'one that no longer listens'],
      ["garrison vm kill 'test-*'", 'all that have such a name'],
    ],
    operands: { names },
    flags: batch,
    door: 'operate',
    schema: 'garrison/vm-kill/1',
    json: batchLines,
    streams: true,
  },
  'vm suspend': {
    brief: 'pause VMs, in memory or to the disk',
    help: `Paused in memory a VM stands still and keeps what it has. With --to-disk its memory is written down and it ends; the next start goes on from there. ${batchHelp}`,
    examples: [
      ['garrison vm suspend web-1', 'stands still until it is resumed'],
      ['garrison vm suspend --all --to-disk', 'before the host goes down'],
    ],
    operands: { names },
    flags: { ...batch, 'to-disk': { kind: 'switch', brief: 'write the memory to the disk and end' } },
    door: 'operate',
    schema: 'garrison/vm-suspend/1',
    json: batchLines,
    streams: true,
  },
  'vm resume': {
    brief: 'let paused VMs run on, and wake those that sleep',
    help: `One that was saved to the disk is off: start it. ${batchHelp}`,
    examples: [
      ['garrison vm resume web-1', 'one of them'],
      ['garrison vm resume --all', 'every one'],
    ],
    operands: { names },
    flags: batch,
    door: 'operate',
    schema: 'garrison/vm-resume/1',
    json: batchLines,
    streams: true,
  },
} as const satisfies Record<string, Verb>
