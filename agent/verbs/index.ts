// Which module is which verb. Each is loaded when it is asked for, so that a start costs only what its verb needs.

import type { AnswerModule, LocalModule, SessionModule, StreamModule } from '../api/context.ts'
import type { VerbName } from '../api/verbs.ts'
import type { DaemonContext } from './daemon-context.ts'

const local = {
  check: () => import('./check.ts'),
  schema: () => import('./schema.ts'),
  record: () => import('./record.ts'),
  completion: () => import('./completion.ts'),
  fetch: () => import('./fetch.ts'),
  'network measure': () => import('./network-measure.ts'),
  'network restore': () => import('./network-restore.ts'),
  'cloudwatch setup': () => import('./cloudwatch-setup.ts'),
  inventory: () => import('./inventory.ts'),
  iam: () => import('./iam.ts'),
  'ec2-call': () => import('./ec2-call.ts'),
  'daemon settings': () => import('./daemon-settings.ts'),
  'fleet init': () => import('./fleet-init.ts'),
  'fleet invite': () => import('./fleet-invite.ts'),
  'fleet join': () => import('./fleet-join.ts'),
  'fleet revoke': () => import('./fleet-revoke.ts'),
  'fleet request': () => import('./fleet-request.ts'),
  'fleet sign': () => import('./fleet-sign.ts'),
  'fleet accept': () => import('./fleet-accept.ts'),
  'template list': () => import('./template-list.ts'),
  'template show': () => import('./template-show.ts'),
  'template check': () => import('./template-check.ts'),
  'template new': () => import('./template-new.ts'),
  version: () => import('./version.ts'),
}

const served = {
  status: () => import('./status.ts'),
  plan: () => import('./plan.ts'),
  apply: () => import('./apply.ts'),
  why: () => import('./why.ts'),
  drives: () => import('./drives.ts'),
  'drives show': () => import('./drives-show.ts'),
  'drives replace': () => import('./drives-replace.ts'),
  journal: () => import('./journal.ts'),
  instance: () => import('./instance.ts'),
  stop: () => import('./stop.ts'),
  'images list': () => import('./images-list.ts'),
  'images fetch': () => import('./images-fetch.ts'),
  'images remove': () => import('./images-remove.ts'),
  'vm create': () => import('./vm-create.ts'),
  'vm adopt': () => import('./vm-adopt.ts'),
  'vm accept': () => import('./vm-accept.ts'),
  'vm revert': () => import('./vm-revert.ts'),
  'vm export': () => import('./vm-export.ts'),
  'vm import': () => import('./vm-import.ts'),
  'network show': () => import('./network-show.ts'),
  'network pending': () => import('./network-pending.ts'),
  'network probe': () => import('./network-probe.ts'),
  'network confirm': () => import('./network-confirm.ts'),
  'network undo': () => import('./network-undo.ts'),
  'vm backup': () => import('./vm-backup.ts'),
  'vm restore': () => import('./vm-restore.ts'),
  'vm backups': () => import('./vm-backups.ts'),
  'vm verify': () => import('./vm-verify.ts'),
  'vm untrack': () => import('./vm-untrack.ts'),
  jobs: () => import('./jobs.ts'),
  'jobs follow': () => import('./jobs-follow.ts'),
  'jobs cancel': () => import('./jobs-cancel.ts'),
  'vm list': () => import('./vm-list.ts'),
  'vm show': () => import('./vm-show.ts'),
  'vm start': () => import('./vm-start.ts'),
  'vm stop': () => import('./vm-stop.ts'),
  'vm restart': () => import('./vm-restart.ts'),
  'vm take': () => import('./vm-take.ts'),
  'vm kill': () => import('./vm-kill.ts'),
  'vm suspend': () => import('./vm-suspend.ts'),
  'vm resume': () => import('./vm-resume.ts'),
  'vm console': () => import('./vm-console.ts'),
  'vm logs': () => import('./vm-logs.ts'),
  'vm stats': () => import('./vm-stats.ts'),
  'vm events': () => import('./vm-events.ts'),
  'vm set': () => import('./vm-set.ts'),
  'vm disk attach': () => import('./vm-disk-attach.ts'),
  'vm disk detach': () => import('./vm-disk-detach.ts'),
  'vm disk resize': () => import('./vm-disk-resize.ts'),
  'vm nic attach': () => import('./vm-nic-attach.ts'),
  'vm nic detach': () => import('./vm-nic-detach.ts'),
  'vm snapshot create': () => import('./vm-snapshot-create.ts'),
  'vm snapshot list': () => import('./vm-snapshot-list.ts'),
  'vm snapshot revert': () => import('./vm-snapshot-revert.ts'),
  'vm snapshot delete': () => import('./vm-snapshot-delete.ts'),
  'vm rename': () => import('./vm-rename.ts'),
  'vm delete': () => import('./vm-delete.ts'),
  'vm clone': () => import('./vm-clone.ts'),
  shell: () => import('./shell.ts'),
}

const ofDaemon = {
  report: () => import('./report.ts'),
  history: () => import('./history.ts'),
  'fleet status': () => import('./fleet-status.ts'),
  'fleet watch': () => import('./fleet-watch.ts'),
  'fleet report': () => import('./fleet-report.ts'),
  'fleet peers': () => import('./fleet-peers.ts'),
  cloudwatch: () => import('./cloudwatch.ts'),
  'cloudwatch cost': () => import('./cloudwatch-cost.ts'),
}

/** A verb that runs where the host can be read: in the operate process, or in the client on a host without one. */
export type ServedModule = AnswerModule<VerbName> | StreamModule<VerbName> | SessionModule<VerbName>

/** A verb that the daemon answers. */
export type DaemonModule =
  | AnswerModule<VerbName, unknown, DaemonContext>
  | StreamModule<VerbName, unknown, DaemonContext>

/** Loads a verb that the daemon answers; null for any other. */
export const loadOfDaemon = async (name: VerbName): Promise<DaemonModule | null> =>
  name in ofDaemon ? ((await ofDaemon[name as keyof typeof ofDaemon]()) as DaemonModule) : null

/** Loads a verb that is served; null for one that is not. */
export const loadServed = async (name: VerbName): Promise<ServedModule | null> =>
  name in served ? ((await served[name as keyof typeof served]()) as ServedModule) : null

/** Loads a verb that runs in the client; null for one that is served. */
export const loadLocal = async (name: VerbName): Promise<LocalModule<VerbName> | null> =>
  name in local ? ((await local[name as keyof typeof local]()) as LocalModule<VerbName>) : null
