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

/** The flag of what is a terminal far away. */
export const escapeKey = {
  kind: 'text',
  placeholder: 'KEY',
  brief: 'another key to leave by: ^A, ^X, …, or none',
  kept: true,
} as const

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
  'vm list': () =>
    ({
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
          choices: [
            'running',
            'blocked',
            'paused',
            'shutting-down',
            'off',
            'crashed',
            'suspended',
            'unknown',
          ],
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
    }) as const,
  'vm show': () =>
    ({
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
    }) as const,
  'vm start': () =>
    ({
      brief: 'start VMs',
      help: `A VM whose memory was saved goes on from there. ${batchHelp}`,
      examples: [
        ['garrison vm start web-1 web-2', 'two of them'],
        ['garrison vm start --tag env=prod --parallel 2', 'all with a tag, two at a time'],
      ],
      operands: { names },
      flags: {
        ...batch,
        paused: { kind: 'switch', brief: 'with processors that stand still until resumed' },
      },
      door: 'operate',
      schema: 'garrison/vm-start/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm stop': () =>
    ({
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
    }) as const,
  'vm restart': () =>
    ({
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
    }) as const,
  'vm kill': () =>
    ({
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
    }) as const,
  'vm suspend': () =>
    ({
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
    }) as const,
  'vm resume': () =>
    ({
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
    }) as const,
  'vm console': () =>
    ({
      brief: 'sit at the serial console of a VM',
      help: 'What is typed goes to the guest, Ctrl-C too; ^] (Ctrl and ]) leaves. The terminal is then as it was. One person at a time has a console; --force takes it. Who had it, and how long, is in the journal; what was said is only in a recording, and what was typed is in none.',
      examples: [
        ['garrison vm console web-1', 'until ^] is pressed'],
        ['garrison vm console web-1 --record ./web-1.cast', 'and keep what is seen, for asciinema play'],
      ],
      operands: { vm: one },
      flags: {
        escape: escapeKey,
        record: {
          kind: 'path',
          placeholder: 'FILE',
          brief: 'keep what is seen in this new file (asciicast v2)',
          kept: true,
        },
        device: { kind: 'text', placeholder: 'NAME', brief: 'another device than the first: serial1, …' },
        force: { kind: 'switch', brief: 'take it from whoever has it' },
      },
      door: 'operate',
      schema: 'garrison/vm-console/1',
      json: {},
      session: true,
    }) as const,
  'vm logs': () =>
    ({
      brief: 'show what QEMU and libvirt wrote about a VM',
      help: 'The last lines of its log below /var/log/libvirt/qemu: how QEMU was started, and why it ended.',
      examples: [
        ['garrison vm logs web-1 --lines 200', 'the last 200 lines'],
        ['garrison vm logs web-1 --follow', 'the last 50, and then whatever comes'],
      ],
      operands: { vm: one },
      flags: {
        follow: { kind: 'switch', brief: 'go on as lines are written, until Ctrl-C' },
        lines: {
          kind: 'text',
          placeholder: 'NUMBER',
          brief: 'how many of the last lines (50 when left out)',
        },
      },
      door: 'read',
      schema: 'garrison/vm-logs/1',
      json: { line: 'line: one line of the log' },
      streams: true,
    }) as const,
  'vm stats': () =>
    ({
      brief: 'show what VMs use, again and again',
      help: 'Processors (100 % is one of the host, whole), memory, and what is read, written, received and sent each second. Processors and NICs are told by the kernel, also while libvirt is silent; disks and memory by QEMU. What is not answered holds up nothing else: the last numbers are shown, with their age.',
      examples: [
        ['garrison vm stats', 'every VM that runs, until Ctrl-C'],
        ["garrison vm stats 'web-*' --once --json", 'one sample of one second, for a script'],
      ],
      operands: { names },
      flags: {
        tag,
        every: { kind: 'text', placeholder: 'TIME', brief: 'how often (2s when left out)' },
        once: { kind: 'switch', brief: 'show it once' },
      },
      door: 'read',
      schema: 'garrison/vm-stats/1',
      json: {
        listed: 'when libvirt last told which VMs there are: atMs, ageMs, stale; null when it has not',
        silence: 'why libvirt, or guests, could not be asked, or null',
        vms: 'each VM: name, uuid, stuckSinceMs (null unless its QEMU does not answer), problem, and power, process, nics, memory, disks: null, or value with atMs, ageMs and stale. Counters are total and perSecond; 1000 of cpuMs each second is one processor',
      },
      streams: true,
    }) as const,
  'vm events': () =>
    ({
      brief: 'show what happens to VMs, as it happens',
      help: 'Starts, stops, pauses, crashes, I/O errors, disks and NICs that come and go, block jobs, the guest agent. What happened while libvirt did not answer is lost, and that is said.',
      examples: [
        ['garrison vm events', 'of every VM, until Ctrl-C'],
        ["garrison vm events 'web-*' --json", 'of some, one object a line'],
      ],
      operands: { names },
      flags: {},
      door: 'read',
      schema: 'garrison/vm-events/1',
      json: {
        event: 'libvirt’s name of the kind of event, or missed',
        atMs: 'when it was heard of, epoch milliseconds',
        vm: 'the VM, with its uuid',
        what: 'what happened',
        detail: 'how or why',
        why: 'of missed: why some may be missing',
      },
      streams: true,
    }) as const,
  'vm set': () =>
    ({
      brief: 'set processors, memory, tags and autostart of VMs',
      help: 'Made for the next start, and at once where the running guest allows it; where not, that is said. Of a VM that the document declares, garrison apply sets it back: change it there.',
      examples: [
        ['garrison vm set web-1 --cpus 4 --memory 8GiB', 'at once if its guest allows it'],
        ["garrison vm set 'web-*' --add-tag env=prod --autostart on", 'of several'],
      ],
      operands: { names },
      flags: {
        cpus: { kind: 'text', placeholder: 'NUMBER', brief: 'virtual CPUs' },
        memory: { kind: 'text', placeholder: 'SIZE', brief: 'memory: 512MiB, 8GiB' },
        autostart: {
          kind: 'choice',
          placeholder: 'ON|OFF',
          brief: 'whether libvirt starts it with the host: on or off',
          choices: ['on', 'off'],
        },
        'add-tag': { kind: 'text', placeholder: 'KEY=VALUE', brief: 'give it this tag', many: true },
        'remove-tag': { kind: 'text', placeholder: 'KEY', brief: 'take this tag away', many: true },
        ...batch,
      },
      door: 'operate',
      schema: 'garrison/vm-set/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm disk attach': () =>
    ({
      brief: 'attach a disk to a VM',
      help: 'At once where the VM runs and takes it, and for its next starts. A disk that another VM has is refused. The format goes by the ending of the name or by --format, never by the content, which a guest may have written.',
      examples: [
        ['garrison vm disk attach web-1 --volume images/data.qcow2 --size 20GiB', 'a new, blank one'],
        ['garrison vm disk attach web-1 --volume isos/debian.iso --cdrom', 'one that is there'],
      ],
      operands: { vm: one },
      flags: {
        volume: { kind: 'text', placeholder: 'POOL/VOLUME', brief: 'a volume of a storage pool' },
        size: { kind: 'text', placeholder: 'SIZE', brief: 'make the volume, blank and so large' },
        path: {
          kind: 'text',
          placeholder: 'PATH',
          brief: 'a file or block device of the host (root alone may)',
          door: 'admin',
        },
        format: {
          kind: 'choice',
          placeholder: 'FORMAT',
          brief: 'qcow2 or raw',
          choices: ['qcow2', 'raw'],
        },
        bus: {
          kind: 'choice',
          placeholder: 'BUS',
          brief: 'virtio (the default), scsi, sata or usb',
          choices: ['virtio', 'scsi', 'sata', 'usb'],
        },
        target: { kind: 'text', placeholder: 'NAME', brief: 'its name on the bus, such as vdb' },
        cache: {
          kind: 'choice',
          placeholder: 'CACHE',
          brief: 'none (the default), writeback, writethrough, directsync or unsafe',
          choices: ['none', 'writeback', 'writethrough', 'directsync', 'unsafe'],
        },
        'read-only': { kind: 'switch', brief: 'the guest may only read it' },
        cdrom: { kind: 'switch', brief: 'as a CD' },
      },
      door: 'operate',
      schema: 'garrison/vm-disk-attach/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm disk detach': () =>
    ({
      brief: 'detach a disk from a VM',
      help: 'What is on it is kept. A running guest is asked to let go of it, and may not.',
      examples: [
        ['garrison vm disk detach web-1 vdb', 'by its name on the bus'],
        ['garrison vm disk detach web-1 /srv/images/data.qcow2 --timeout 1m', 'by where it is'],
      ],
      operands: {
        vm: one,
        disk: {
          kind: 'text',
          placeholder: 'DISK',
          brief: 'its name on the bus, its own name, or where it is',
          required: true,
        },
      },
      flags: {
        timeout: { kind: 'text', placeholder: 'TIME', brief: 'how long to wait for the guest (20s)' },
      },
      door: 'operate',
      schema: 'garrison/vm-disk-detach/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm disk resize': () =>
    ({
      brief: 'make a disk of a VM larger',
      help: 'While the VM runs its guest sees the new size at once; partitions and filesystems on it are the guest’s to grow. A disk is never made smaller.',
      examples: [
        ['garrison vm disk resize web-1 vdb 40GiB', 'to 40 GiB, not by 40 GiB'],
        ['garrison vm disk resize web-1 root 100GiB', 'by the name that the document has for it'],
      ],
      operands: {
        vm: one,
        disk: {
          kind: 'text',
          placeholder: 'DISK',
          brief: 'its name on the bus, its own name, or where it is',
          required: true,
        },
        size: { kind: 'text', placeholder: 'SIZE', brief: 'how large it shall be: 40GiB', required: true },
      },
      flags: {},
      door: 'operate',
      schema: 'garrison/vm-disk-resize/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm nic attach': () =>
    ({
      brief: 'attach a NIC to a VM',
      help: 'At once where the VM runs and takes it, and for its next starts. Without a network it is on the one that is called default.',
      examples: [
        ['garrison vm nic attach web-1 --network lan', 'on a network of libvirt'],
        ['garrison vm nic attach web-1 --bridge br0 --mac 52:54:00:12:34:56', 'on a bridge, as root'],
      ],
      operands: { vm: one },
      flags: {
        network: { kind: 'text', placeholder: 'NETWORK', brief: 'a network of libvirt' },
        bridge: {
          kind: 'text',
          placeholder: 'BRIDGE',
          brief: 'a bridge of the host (root alone may)',
          door: 'admin',
        },
        macvtap: {
          kind: 'text',
          placeholder: 'INTERFACE',
          brief: 'on top of an interface of the host (root alone may)',
          door: 'admin',
        },
        model: {
          kind: 'choice',
          placeholder: 'MODEL',
          brief: 'virtio (the default), e1000e or rtl8139',
          choices: ['virtio', 'e1000e', 'rtl8139'],
        },
        mac: { kind: 'text', placeholder: 'MAC', brief: 'its MAC (one of 52:54:00 when left out)' },
      },
      door: 'operate',
      schema: 'garrison/vm-nic-attach/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm nic detach': () =>
    ({
      brief: 'detach a NIC from a VM',
      help: 'A running guest is asked to let go of it, and may not.',
      examples: [
        ['garrison vm nic detach web-1 52:54:00:12:34:56', 'by its MAC'],
        ['garrison vm nic detach web-1 lan', 'by the network that it alone is on'],
      ],
      operands: {
        vm: one,
        nic: {
          kind: 'text',
          placeholder: 'NIC',
          brief: 'its MAC, its own name, or its network',
          required: true,
        },
      },
      flags: {
        timeout: { kind: 'text', placeholder: 'TIME', brief: 'how long to wait for the guest (20s)' },
      },
      door: 'operate',
      schema: 'garrison/vm-nic-detach/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm snapshot create': () =>
    ({
      brief: 'make a snapshot of VMs',
      help: 'Of a running VM with its memory, inside its qcow2 disks; the VM stands still meanwhile. With --disk-only the disks alone, and what is written from then on goes to new files.',
      examples: [
        ['garrison vm snapshot create web-1 --name before-upgrade', 'one, with a name to go back to'],
        [
          "garrison vm snapshot create 'web-*' --disk-only --quiesce",
          'of several, with their filesystems at rest',
        ],
      ],
      operands: { names },
      flags: {
        ...batch,
        name: { kind: 'text', placeholder: 'NAME', brief: 'its name (the time when left out)' },
        description: { kind: 'text', placeholder: 'TEXT', brief: 'what it is for' },
        'disk-only': { kind: 'switch', brief: 'the disks without the memory' },
        quiesce: { kind: 'switch', brief: 'have the guest agent bring the filesystems to rest' },
      },
      door: 'operate',
      schema: 'garrison/vm-snapshot-create/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm snapshot list': () =>
    ({
      brief: 'show the snapshots of a VM',
      help: 'The oldest first, with what the VM did at that moment and where it is kept.',
      examples: [
        ['garrison vm snapshot list web-1', 'with their age'],
        ['garrison vm snapshot list web-1 --json', 'for a script'],
      ],
      operands: { vm: one },
      flags: {},
      door: 'read',
      schema: 'garrison/vm-snapshots/1',
      json: {
        schema: 'garrison/vm-snapshots/1',
        atMs: 'when it was looked at, epoch milliseconds',
        vm: 'the VM',
        uuid: 'its UUID',
        snapshots: 'each: name, description, parent, madeMs, power, memory, current, files',
      },
    }) as const,
  'vm snapshot revert': () =>
    ({
      brief: 'bring a VM back to a snapshot',
      help: 'What was written since then is lost: root alone may.',
      examples: [
        ['garrison vm snapshot revert web-1 before-upgrade', 'and does what it did then'],
        ['garrison vm snapshot revert web-1 before-upgrade --power running', 'and runs'],
      ],
      operands: {
        vm: one,
        snapshot: { kind: 'text', placeholder: 'SNAPSHOT', brief: 'its name', required: true },
      },
      flags: {
        power: {
          kind: 'choice',
          placeholder: 'POWER',
          brief: 'running or paused, whatever it did then',
          choices: ['running', 'paused'],
        },
      },
      door: 'admin',
      schema: 'garrison/vm-snapshot-revert/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm snapshot delete': () =>
    ({
      brief: 'delete a snapshot of a VM',
      help: 'The VM stays as it is; it can no longer be brought back to then.',
      examples: [
        ['garrison vm snapshot delete web-1 before-upgrade', 'one of them'],
        ['garrison vm snapshot delete web-1 monday --children', 'and all that were made after it'],
      ],
      operands: {
        vm: one,
        snapshot: { kind: 'text', placeholder: 'SNAPSHOT', brief: 'its name', required: true },
      },
      flags: { children: { kind: 'switch', brief: 'and those that were made after it' } },
      door: 'operate',
      schema: 'garrison/vm-snapshot-delete/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm rename': () =>
    ({
      brief: 'give a VM another name',
      help: 'It must be off and not be declared in the document. Its disks stay where they are.',
      examples: [
        ['garrison vm rename web-1 web-old', 'one that is off'],
        ['garrison vm rename 5e0a7b1c-7d3f-4c52-9a51-3a1d0c6f2b10 web-2', 'one whose name cannot be typed'],
      ],
      operands: {
        vm: one,
        name: { kind: 'text', placeholder: 'NAME', brief: 'its new name', required: true },
      },
      flags: {},
      door: 'operate',
      schema: 'garrison/vm-rename/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm delete': () =>
    ({
      brief: 'delete VMs; their disks are kept unless told otherwise',
      help: 'They must be off and not be declared in the document. With --disks their files in storage pools, snapshots and saved memory go too: root alone may. Files that another VM has, and what is in no pool, stay.',
      examples: [
        ['garrison vm delete web-old', 'its definition; its disks are kept'],
        ["garrison vm delete 'test-*' --disks", 'everything of them'],
      ],
      operands: { names },
      flags: { tag, disks: { kind: 'switch', brief: 'their disks too', door: 'admin' } },
      door: 'operate',
      schema: 'garrison/vm-delete/1',
      json: batchLines,
      streams: true,
    }) as const,
  'vm clone': () =>
    ({
      brief: 'make another VM like one that is off',
      help: 'With copies of its disks, and a UUID, MACs and cloud-init seed of its own; where the seed cannot be made anew, that is said. What identifies the guest inside (machine-id, SSH host keys) is copied with its disks, until cloud-init makes it anew. Cut short, the same command goes on.',
      examples: [
        ['garrison vm clone web-1 web-2', 'with its disks'],
        ['garrison vm clone web-1 web-test --json', 'for a script'],
      ],
      operands: {
        vm: one,
        name: { kind: 'text', placeholder: 'NAME', brief: 'the name of the new one', required: true },
      },
      flags: {},
      door: 'operate',
      schema: 'garrison/vm-clone/1',
      json: batchLines,
      streams: true,
    }) as const,
} satisfies Record<string, () => Verb>
