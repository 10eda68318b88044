// The part of the table of verbs that is about backups of VMs.

import { detach } from './job-verbs.ts'
import type { Verb } from './verbs.ts'

const progressLine =
  'subject, doing, doneBytes, totalBytes, bytesPerSecond and leftMs, each null where it cannot be known'

const jobLine = 'the id of the job, for garrison jobs follow and garrison jobs cancel'

const where = {
  kind: 'path',
  placeholder: 'DIR',
  brief: 'the folder for backups, an absolute path',
  required: true,
} as const

const inventoryLines = {
  vm: 'vm, uuid, backups (id, atMs, consistency, why, disks, leftOut, verifiedMs, damage), begun (the id of one that is unfinished, or null)',
  unreadable: 'vm and the problem, when its manifest cannot be read',
  finished: 'how many backups, how many of them damaged, how many manifests unreadable, durationMs',
} as const

/** Every verb about backups. */
export const backupVerbs = {
  'vm backup': () =>
    ({
      brief: 'back VMs up into a folder: whole, or what has changed',
      help: 'Disks of a VM that runs are copied as they are at one moment. The next backups hold what has changed since; after 14 of them one is whole again. Each is read back from the drive before it counts. Cut short, the same command goes on. Nothing is removed that another stands on, nor the last sound one.',
      examples: [
        ['garrison vm backup web-1 --to /srv/backup', 'one VM, or what has changed of it'],
        ['garrison vm backup --tag env=prod --to /srv/backup --keep 14 --detach', 'all with a tag'],
      ],
      operands: {
        names: {
          kind: 'vm',
          placeholder: 'VM',
          brief: "names, UUIDs, or patterns such as 'web-*'",
          many: true,
        },
      },
      flags: {
        to: where,
        tag: {
          kind: 'text',
          placeholder: 'KEY=VALUE',
          brief: 'only those with this tag',
          many: true,
        },
        all: { kind: 'switch', brief: 'every VM of this host' },
        full: { kind: 'switch', brief: 'copy all' },
        keep: { kind: 'text', placeholder: 'NUMBER', brief: 'remove all but the newest so many' },
        'keep-for': {
          kind: 'text',
          placeholder: 'TIME',
          brief: 'remove those older than 12h, 30d, …; not what --keep keeps',
        },
        freeze: { kind: 'switch', brief: 'have the guest agent freeze filesystems for the moment' },
        init: {
          kind: 'switch',
          brief: 'make the folder one for backups',
          door: 'admin',
        },
        detach,
      },
      door: 'operate',
      schema: 'garrison/vm-backup/1',
      json: {
        job: jobLine,
        selected: 'vms: the names of those that are meant',
        begun: 'vm and uuid of the one that is begun',
        progress: progressLine,
        done: 'vm, uuid, changed, text, durationMs, and the backup: id, atMs, consistency, why, disks (target, kind, on, file, fileBytes, virtualBytes, sha256), leftOut; resumed, removed',
        failed: 'vm, uuid, durationMs and the problem',
        finished: 'how many are done, failed, unknown and left, durationMs',
      },
      streams: true,
      job: true,
    }) as const,
  'vm restore': () =>
    ({
      brief: 'restore a VM from a backup',
      help: 'A VM that libvirt no longer has comes back as it was; with --as another VM is made, with a UUID, MACs and cloud-init seed of its own; with --overwrite the disks of one that is off are replaced, once the new ones are whole. All that is needed is checked before anything is written. Cut short, the same command goes on. It does not start the VM.',
      examples: [
        ['garrison vm restore web-1 --from /srv/backup', 'a VM that was lost, as it was last'],
        [
          'garrison vm restore web-1 --from /srv/backup --at 20261120T210012Z --as old',
          'an older backup, as a VM beside it',
        ],
      ],
      operands: {
        vm: {
          kind: 'vm',
          placeholder: 'VM',
          brief: 'the name that it had when it was backed up',
          required: true,
        },
      },
      flags: {
        from: where,
        at: { kind: 'text', placeholder: 'ID', brief: 'which backup (the newest when left out)' },
        as: { kind: 'text', placeholder: 'NAME', brief: 'make another VM of it' },
        folder: {
          kind: 'path',
          placeholder: 'DIR',
          brief: 'where its disks are made (beside the old ones when left out)',
          door: 'admin',
        },
        overwrite: { kind: 'switch', brief: 'replace disks that are there', door: 'admin' },
        detach,
      },
      door: 'operate',
      schema: 'garrison/vm-restore/1',
      json: {
        job: jobLine,
        begun: 'vm, place, at',
        progress: progressLine,
        done: 'vm, uuid, backup (its id), atMs, disks (target, path), seed (what became of the cloud-init seed of another VM, or null), defined, resumed, durationMs',
      },
      streams: true,
      job: true,
    }) as const,
  'vm untrack': () =>
    ({
      brief: 'forget what has changed on VMs since their last backup',
      help: 'libvirt keeps a record of it from one backup to the next. While it does, a VM cannot be renamed, nor reverted to a snapshot, nor be given one while it is off. The next backup is whole again.',
      examples: [
        ['garrison vm untrack web-1', 'before it is reverted to a snapshot'],
        ['garrison vm untrack --all', 'of every VM'],
      ],
      operands: {
        names: {
          kind: 'vm',
          placeholder: 'VM',
          brief: "names, UUIDs, or patterns such as 'web-*'",
          many: true,
        },
      },
      flags: {
        tag: {
          kind: 'text',
          placeholder: 'KEY=VALUE',
          brief: 'only those with this tag',
          many: true,
        },
        all: { kind: 'switch', brief: 'every VM of this host' },
      },
      door: 'operate',
      schema: 'garrison/vm-untrack/1',
      json: {
        selected: 'vms: the names of those that are meant',
        begun: 'vm and uuid of the one that is begun',
        done: 'vm, uuid, changed (false when nothing was kept), text, durationMs',
        failed: 'vm, uuid, durationMs and the problem',
        finished: 'how many are done, unchanged, failed, unknown and left, durationMs',
      },
      streams: true,
    }) as const,
  'vm backups': () =>
    ({
      brief: 'show the backups that are in a folder',
      help: 'One line for each backup: what it stands on, how large it is, and when its images were last read. Ends with 1 when one is known to be damaged, and with 4 when a manifest cannot be read.',
      examples: [
        ['garrison vm backups /srv/backup', 'every backup of every VM'],
        ['garrison vm backups /srv/backup web-1 --json', 'those of one VM, for a script'],
      ],
      operands: { dir: where, vm: { kind: 'vm', placeholder: 'VM', brief: 'only those of this VM' } },
      flags: {},
      door: 'read',
      schema: 'garrison/vm-backups/1',
      json: inventoryLines,
      streams: true,
    }) as const,
  'vm verify': () =>
    ({
      brief: 'read every image of the backups in a folder again',
      help: 'Each is compared with what it was when it was made. One that is damaged is marked: it is not restored from, nothing further is made to stand on it, and the next backup of that VM is whole. Ends with 1 when one is damaged.',
      examples: [
        ['garrison vm verify /srv/backup', 'every backup of every VM'],
        [
          'garrison vm verify /srv/backup web-1 --detach',
          'those of one VM; garrison jobs shows how far it is',
        ],
      ],
      operands: { dir: where, vm: { kind: 'vm', placeholder: 'VM', brief: 'only those of this VM' } },
      flags: { detach },
      door: 'operate',
      schema: 'garrison/vm-verify/1',
      json: { job: jobLine, progress: progressLine, ...inventoryLines },
      streams: true,
      job: true,
    }) as const,
} satisfies Record<string, () => Verb>
