// The one table of verbs: the command line, the HTTP interface, the man page, the completions and the documents come from it.

import { RISKS } from '../../provisioning/resource.ts'
import { backupVerbs } from './backup-verbs.ts'
import { creationVerbs } from './creation-verbs.ts'
import { fleetVerbs } from './fleet-verbs.ts'
import { instanceVerbs } from './instance-verbs.ts'
import { jobVerbs } from './job-verbs.ts'
import { networkVerbs } from './network-verbs.ts'
import { reportVerbs } from './report-verbs.ts'
import { vmVerbs } from './vm-verbs.ts'

/** Whose socket a verb needs, in rising order; `local` verbs run in the client and are never asked of the root side. */
export const DOORS = ['local', 'read', 'operate', 'admin'] as const

/** One of `DOORS`. */
export type Door = (typeof DOORS)[number]

/** What a process ends with; see EXIT CODES of the man page. */
export const EXIT = { done: 0, error: 1, drift: 2, refused: 3, unknown: 4 } as const

/** One of the values of `EXIT`. */
export type Exit = (typeof EXIT)[keyof typeof EXIT]

/**
 * What may follow a flag, or stand as an operand. A choice can need a higher door than its verb (`doors`), and so can any other
 * field when it is given (`door`). With a `local` field the verb runs in the client; the root side refuses it. A `kept` field is
 * for the client alone and never sent. `many`: it may be given more than once, and an operand takes all words that are left.
 * `untold`: it is KEY=VALUE, and the value may be a secret, so that no list of jobs shows it.
 */
export type Field =
  | { readonly kind: 'switch'; readonly brief: string; readonly door?: Door }
  | {
      readonly kind: 'choice'
      readonly placeholder: string
      readonly brief: string
      readonly choices: readonly string[]
      readonly doors?: Readonly<Record<string, Door>>
      readonly required?: true
    }
  | {
      readonly kind: 'text' | 'path' | 'drive' | 'vm' | 'since'
      readonly placeholder: string
      readonly brief: string
      readonly required?: true
      readonly local?: true
      readonly kept?: true
      readonly many?: true
      readonly untold?: true
      readonly door?: Door
    }

/**
 * One verb. `json` tells the meaning of each field of its `--json` object, or of each kind of line when it streams. A verb that is
 * a `session` carries bytes both ways. `steps`: it performs steps, and the verb `stop` ends it after the one in hand. A `job`
 * goes on when its caller has left, and can be followed again. One of the `daemon` is asked of it alone.
 */
export interface Verb {
  readonly brief: string
  readonly help: string
  readonly examples: readonly (readonly [command: string, does: string])[]
  readonly operands: Readonly<Record<string, Field>>
  readonly flags: Readonly<Record<string, Field>>
  readonly door: Door
  readonly schema: string
  readonly json: Readonly<Record<string, string>>
  readonly streams?: true
  readonly session?: true
  readonly steps?: true
  readonly job?: true
  readonly daemon?: true
  readonly hidden?: true
}

/** Ids of the resources, for `--only` and completion; a test holds them against provisioning/index.ts. */
export const resourceNames = [
  'software',
  'root',
  'firewall',
  'array',
  'volumes',
  'uplinks',
  'vmnets',
  'vms',
] as const

const only = {
  kind: 'choice',
  placeholder: 'RESOURCE',
  brief: 'look at and change this resource alone',
  choices: resourceNames,
} as const

const allow = {
  kind: 'choice',
  placeholder: 'RISK',
  brief: 'perform steps up to this risk: safe (the default), disruptive or destroys-data',
  choices: RISKS,
  doors: { 'destroys-data': 'admin' },
} as const

const desired = {
  kind: 'path',
  placeholder: 'FILE',
  brief: 'plan for this document, in this process, instead of the one in /etc/garrison',
  local: true,
} as const

const templates = {
  kind: 'path',
  placeholder: 'DIR',
  brief: 'look in this folder alone, instead of where this host has its templates',
} as const

const applyLines = {
  started: 'who asked, what is allowed and the id of the apply in the journal',
  assessed: 'the standing of each resource, and how many steps are planned',
  'step-started': 'resource, key, summary, risk and reason of the step that begins',
  'step-confirming': 'resource and key of the step that has changed the network and waits for witnesses',
  'step-done':
    'resource, key and summary of the step, how long it and its actions took (durationMs, actionsMs)',
  'step-failed': 'resource, key, durationMs and the problem',
  finished:
    'outcome (settled, blocked, unknown, failed, stopped, drifted), how many steps were performed, durationMs, what is left and why, problems, findings',
} as const

const VERBS = {
  status: () =>
    ({
      brief: 'show how the host stands, part by part',
      help: 'Says of each resource whether it is settled, drifted or unknown, what is there, and how healthy it is. Needs no document and no root: what could not be read is named with the reason. An observation younger than ten seconds is shown again.',
      examples: [
        ['garrison status', 'how the host stands'],
        ['garrison status --fresh --json', 'look now; one JSON object for a script'],
      ],
      operands: {},
      flags: { fresh: { kind: 'switch', brief: 'look now, even if the last look is seconds old' } },
      door: 'read',
      schema: 'garrison/status/1',
      json: {
        schema: 'garrison/status/1',
        host: 'host name',
        version: 'version of the agent that looked',
        atMs: 'when it looked, epoch milliseconds',
        ageMs: 'how long ago that was',
        standing: 'settled, drifted or unknown: the host as a whole',
        health: 'ok, notice, warning or high: the gravest finding; unknown when a part could not be read',
        applying: 'null, or who applies now and since when (who, sinceMs)',
        document: 'null, or the problem with the desired document',
        resources:
          'each resource: resource, declared, standing, summary, steps (key, summary, risk, blocked), findings, problem',
      },
    }) as const,
  plan: () =>
    ({
      brief: 'show the steps that apply would perform, and why',
      help: 'Plans from the desired document and the host as it is now, and changes nothing. The list is a forecast, its first step a promise: after each step the host is looked at again. Ends with 0 when there is nothing to do, 2 when there is, 3 when a step is blocked, 4 when a part could not be read.',
      examples: [
        ['garrison plan', 'what would be done, why, and what would run'],
        ['garrison plan --desired ./host.yaml', 'what another document would mean for this host'],
      ],
      operands: {},
      flags: { only, desired },
      door: 'read',
      schema: 'garrison/plan/1',
      json: {
        schema: 'garrison/plan/1',
        host: 'host name',
        atMs: 'when it looked, epoch milliseconds',
        steps:
          'in order: resource, key, summary, risk, because (path, desired, observed, why), actions (exactly what would run), after, blocked, waits',
        unknown: 'resources that could not be read: resource and problem',
      },
    }) as const,
  apply: () =>
    ({
      brief: 'perform the plan, one step at a time',
      help: 'Performs the first step that may be performed, looks at the host again, and goes on until nothing is left or nothing further is allowed. Ctrl-C stops after the step in hand and leaves the host sound; a second Ctrl-C leaves at once while the root side ends that step. Run it again after any interruption: it starts from what it finds.',
      examples: [
        ['garrison apply', 'perform every safe step'],
        ['garrison apply --allow disruptive --only array', 'perform what may interrupt, of one resource'],
      ],
      operands: {},
      flags: { allow, only },
      door: 'operate',
      schema: 'garrison/apply/1',
      json: applyLines,
      streams: true,
      steps: true,
    }) as const,
  why: () =>
    ({
      brief: 'say in plain words why something is as it is',
      help: 'Answers from the journal, the current plan and the findings: what is wanted, what is there, what was done, by whom and why, what failed, and what to do next. Without SUBJECT: why the host is not settled or not healthy. why vm NAME network: why a VM reaches the network or does not, and where its traffic stops.',
      examples: [
        ['garrison why drive AWS1A…04', 'why a drive was chosen or refused'],
        ['garrison why vm web-3', 'why a VM runs or does not, down to the drives that it stands on'],
      ],
      operands: {
        subject: {
          kind: 'choice',
          placeholder: 'SUBJECT',
          brief: 'a resource, drive or vm',
          choices: [...resourceNames, 'drive', 'vm'],
        },
        name: {
          kind: 'drive',
          placeholder: 'NAME',
          brief:
            'a part of the resource such as a volume, the serial or name of the drive, or the name of the VM',
        },
        part: {
          kind: 'choice',
          placeholder: 'PART',
          brief: 'what of the VM: its network',
          choices: ['network'],
        },
      },
      flags: {},
      door: 'read',
      schema: 'garrison/why/1',
      json: {
        schema: 'garrison/why/1',
        subject: 'what was asked about',
        atMs: 'when the host was looked at, epoch milliseconds',
        reasons: 'in order: text, and atMs where it is from the journal',
        next: 'what to do next: command, and what it does',
      },
    }) as const,
  drives: () =>
    ({
      brief: 'show every drive and its verdict',
      help: 'A drive is used only when it is proven to be blank and free; every reason against it is named. Serials are shortened in the table; garrison drives show and --json give them whole.',
      examples: [
        ['garrison drives', 'every drive with its verdict'],
        ['garrison drives --fresh --json', 'look now; whole serials and every reason, for a script'],
      ],
      operands: {},
      flags: { fresh: { kind: 'switch', brief: 'look now, even if the last look is seconds old' } },
      door: 'read',
      schema: 'garrison/drives/1',
      json: {
        schema: 'garrison/drives/1',
        host: 'host name',
        atMs: 'when it looked, epoch milliseconds',
        ageMs: 'how long ago that was',
        drives:
          'each drive: name, path, model, serial, sizeBytes, verdict (chosen, member, refused), reasons (code, text, remedy)',
      },
    }) as const,
  'drives show': () =>
    ({
      brief: 'show everything that is known of one drive',
      help: 'Names every reason for and against the drive, not only the first.',
      examples: [
        ['garrison drives show nvme3n1', 'by its name of today'],
        ['garrison drives show AWS1A…04', 'by its serial, also shortened as the table shows it'],
      ],
      operands: {
        drive: { kind: 'drive', placeholder: 'DRIVE', brief: 'serial or name', required: true },
      },
      flags: {},
      door: 'read',
      schema: 'garrison/drive/1',
      json: {
        schema: 'garrison/drive/1',
        atMs: 'when it looked, epoch milliseconds',
        drive: 'as in garrison/drives/1, with every fact that was observed',
      },
    }) as const,
  'drives replace': () =>
    ({
      brief: 'put a new drive in the place of a failed one',
      help: 'Performs what the kernel needs for it, as apply does: a failed member is taken out and the new drive takes its place; a member that still works is copied first, so that the array stays redundant, which needs --allow disruptive. Refused unless the new drive is blank, free and large enough. Once the copy is whole, the same command takes the old drive out.',
      examples: [
        ['garrison drives replace AWS1A…03 AWS1A…09', 'a failed drive by a new one'],
        ['garrison drives replace nvme2n1 nvme4n1 --allow disruptive', 'a drive that still works'],
      ],
      operands: {
        old: {
          kind: 'drive',
          placeholder: 'OLD',
          brief: 'serial or name of the member; its whole serial when it is gone',
          required: true,
        },
        new: { kind: 'drive', placeholder: 'NEW', brief: 'serial or name of the new drive', required: true },
      },
      flags: {
        allow: {
          ...allow,
          choices: ['safe', 'disruptive'],
          doors: {},
          brief: 'safe (the default) or disruptive',
        },
      },
      door: 'operate',
      schema: 'garrison/replace/1',
      json: applyLines,
      streams: true,
      steps: true,
    }) as const,
  journal: () =>
    ({
      brief: 'show what was done to the host, by whom and why',
      help: 'Prints one line per entry, oldest first; --json gives each entry whole, with the arguments that ran, how long they took and the last lines of their errors. Damaged lines are named and skipped.',
      examples: [
        ['garrison journal --since 2h', 'the last two hours'],
        ['garrison journal --follow', 'what happened last, and then whatever happens'],
      ],
      operands: {},
      flags: {
        follow: { kind: 'switch', brief: 'go on printing as entries are written, until Ctrl-C' },
        since: {
          kind: 'since',
          placeholder: 'WHEN',
          brief: 'only entries since then: 90s, 30m, 2h, 7d, or a date such as 2026-11-20T21:00',
        },
      },
      door: 'read',
      schema: 'garrison/journal/1',
      json: {
        entry: 'one entry: apply, atMs, kind and what belongs to that kind',
        damaged: 'a line that could not be read: file, line and why',
      },
      streams: true,
    }) as const,
  check: () =>
    ({
      brief: 'check a desired document without touching anything',
      help: 'Names every mistake with file, line and column, and for an unknown key the nearest known one. Without FILE: the document of this host, /etc/garrison/host.yaml with its drop-ins.',
      examples: [
        ['garrison check ./host.yaml', 'before it is copied to a host'],
        ['garrison check --json', 'the document of this host; mistakes as JSON'],
      ],
      operands: { file: { kind: 'path', placeholder: 'FILE', brief: 'the document' } },
      flags: {},
      door: 'local',
      schema: 'garrison/check/1',
      json: {
        schema: 'garrison/check/1',
        file: 'the document',
        valid: 'true when there is no mistake',
        mistakes: 'file, line, column and text of each',
        declared: 'the resources that the document speaks of',
      },
    }) as const,
  schema: () =>
    ({
      brief: 'print the JSON Schema of the desired document, or of a report',
      help: 'Every key with its meaning, its default and its limits. Editors with a YAML language server check and complete host.yaml from it. That of a report is for who reads garrison report --json.',
      examples: [
        ['garrison schema > garrison.schema.json', 'for an editor'],
        ['garrison schema report --json', 'that of a report, on one line'],
      ],
      operands: {
        of: {
          kind: 'choice',
          placeholder: 'OF',
          brief: 'document (the default) or report',
          choices: ['document', 'report'],
        },
      },
      flags: {},
      door: 'local',
      schema: 'garrison/schema/1',
      json: { schema: 'garrison/schema/1', document: 'the JSON Schema' },
    }) as const,
  'template list': () =>
    ({
      brief: 'show the templates that VMs can be made from',
      help: 'Those that ship are in /usr/share/garrison/templates, your own belong in /etc/garrison/templates. One of your own hides every shipped one of its name. Files that are no valid template are named with their mistakes.',
      examples: [
        ['garrison template list', 'every template with its version and what it is for'],
        ['garrison template list --templates ./templates --json', 'those in a folder, for a script'],
      ],
      operands: {},
      flags: { templates },
      door: 'local',
      schema: 'garrison/templates/1',
      json: {
        schema: 'garrison/templates/1',
        templates: 'each template: name, version, description, extends, file; the newest version first',
        broken: 'each file that is no valid template: file, mistakes (file, line, column, text)',
      },
    }) as const,
  'template show': () =>
    ({
      brief: 'show what a template takes, and how a VM is declared with it',
      help: 'Lists every parameter with its type, limits and default, and prints a declaration that can be copied into host.yaml. Of several versions the newest is shown.',
      examples: [
        ['garrison template show linux-server', 'its parameters, and a VM declared with it'],
        ['garrison template show database --json', 'the same for a script'],
      ],
      operands: {
        name: { kind: 'text', placeholder: 'NAME', brief: 'the template', required: true },
      },
      flags: { templates },
      door: 'local',
      schema: 'garrison/template/1',
      json: {
        schema: 'garrison/template/1',
        name: 'its name',
        version: 'its version',
        versions: 'every version that is there, the newest first',
        description: 'what it is for',
        file: 'where it is',
        base: 'null, or name and version of the template that it extends',
        parameters: 'by name: type, description, limits, and default or example',
        example: 'a document that declares a VM with it',
      },
    }) as const,
  'template check': () =>
    ({
      brief: 'check a template without touching anything',
      help: 'Names every mistake with file, line and column. The template is tried with its defaults and examples, on the template that it extends. Ends with 1 when there is a mistake.',
      examples: [
        ['garrison template check ./web.yaml', 'before it is copied to /etc/garrison/templates'],
        ['garrison template check ./web.yaml --templates .', 'on a template in this folder'],
      ],
      operands: {
        file: { kind: 'path', placeholder: 'FILE', brief: 'the template', required: true },
      },
      flags: { templates },
      door: 'local',
      schema: 'garrison/template-check/1',
      json: {
        schema: 'garrison/template-check/1',
        file: 'the template',
        valid: 'true when there is no mistake',
        mistakes: 'file, line, column and text of each',
        name: 'its name, when it could be read',
        version: 'its version, when it could be read',
      },
    }) as const,
  'template new': () =>
    ({
      brief: 'begin a template of your own',
      help: 'Writes a small template that is valid as it is, named as its file. A file that is there is never written over. Change it, try it with garrison template check, and copy it to /etc/garrison/templates.',
      examples: [
        ['garrison template new ./web.yaml', 'a template that stands by itself'],
        ['garrison template new ./web.yaml --extends linux-server', 'one that stands on another'],
      ],
      operands: {
        file: {
          kind: 'path',
          placeholder: 'FILE',
          brief: 'the file to make: NAME.yaml',
          required: true,
        },
      },
      flags: {
        extends: { kind: 'text', placeholder: 'NAME', brief: 'the template that it stands on' },
        templates,
      },
      door: 'local',
      schema: 'garrison/template-new/1',
      json: {
        schema: 'garrison/template-new/1',
        file: 'the file that was made',
        name: 'the name of the template',
        extends: 'the template that it stands on, or null',
      },
    }) as const,
  'vm take': () =>
    ({
      brief: 'make a VM of a host that is gone this host’s',
      help: 'Records beside the disks of a declared VM that it belongs to this host from now on; garrison apply then defines and starts it. The present owner must be named, as garrison why vm tells it; nobody, when disks are there without a record. Make sure first that the other host can never start the VM again: when both run it, both write to its disks, and so the risk is destroys-data.',
      examples: [
        ['garrison vm take web-3 --from i-0123456789abcdef0', 'what would be done, and what it needs'],
        ['garrison vm take web-3 --from nobody --allow destroys-data', 'disks that came without a record'],
      ],
      operands: { vm: { kind: 'vm', placeholder: 'VM', brief: 'its name in the document', required: true } },
      flags: {
        from: {
          kind: 'text',
          placeholder: 'HOST',
          brief: 'whose it is: an instance-id, a machine-id, or nobody',
          required: true,
        },
        allow,
      },
      door: 'operate',
      schema: 'garrison/vm-take/1',
      json: applyLines,
      streams: true,
      steps: true,
    }) as const,
  ...vmVerbs,
  ...creationVerbs,
  ...backupVerbs,
  ...jobVerbs,
  ...networkVerbs,
  ...reportVerbs,
  ...fleetVerbs,
  ...instanceVerbs,
  record: () =>
    ({
      brief: 'write what this host answers into a folder',
      help: 'Observes once and writes every query with its answer into DIR, which must not exist yet. As root it sees everything; as anybody else the refusals are recorded too. Read the files before you send them: they name serials, mounts and packages.',
      examples: [
        ['garrison record ./transcripts', 'record what this user may see'],
        ['sudo garrison record /root/transcripts', 'record everything'],
      ],
      operands: {
        dir: { kind: 'path', placeholder: 'DIR', brief: 'the folder to make', required: true },
      },
      flags: {},
      door: 'local',
      schema: 'garrison/record/1',
      json: {
        schema: 'garrison/record/1',
        dir: 'the folder',
        queries: 'how many answers it holds',
        refused: 'how many of them are errors',
      },
    }) as const,
  completion: () =>
    ({
      brief: 'print the completion script of a shell',
      help: 'The packages install these scripts already; this is for shells that look elsewhere.',
      examples: [
        ['source <(garrison completion bash)', 'in this shell'],
        ['garrison completion fish > ~/.config/fish/completions/garrison.fish', 'for every fish to come'],
      ],
      operands: {
        shell: {
          kind: 'choice',
          placeholder: 'SHELL',
          brief: 'bash, zsh or fish',
          choices: ['bash', 'zsh', 'fish'],
          required: true,
        },
      },
      flags: {},
      door: 'local',
      schema: 'garrison/completion/1',
      json: { schema: 'garrison/completion/1', shell: 'the shell', script: 'its script' },
    }) as const,
  version: () =>
    ({
      brief: 'print the version',
      help: 'The version of this executable, of the runtime in it, and the architecture.',
      examples: [
        ['garrison version', 'for a report'],
        ['garrison version --json', 'for a script'],
      ],
      operands: {},
      flags: {},
      door: 'local',
      schema: 'garrison/version/1',
      json: {
        schema: 'garrison/version/1',
        version: 'version of Garrison',
        runtime: 'version of Node in it',
        arch: 'architecture',
      },
    }) as const,
  stop: () =>
    ({
      brief: 'stop the running apply after the step in hand',
      help: 'What the client sends at the first Ctrl-C.',
      examples: [],
      operands: {},
      flags: {},
      door: 'operate',
      schema: 'garrison/stop/1',
      json: { schema: 'garrison/stop/1', stopped: 'true when an apply was running' },
      hidden: true,
    }) as const,
  fetch: () =>
    ({
      brief: 'fetch one file, in a unit of its own',
      help: 'Started by the root side, which itself may not speak to the network. What is to be fetched is a fetch action as JSON on standard input.',
      examples: [],
      operands: {
        path: { kind: 'path', placeholder: 'PATH', brief: 'the file to make', required: true },
      },
      flags: {},
      door: 'local',
      schema: 'garrison/fetch/1',
      json: { schema: 'garrison/fetch/1', path: 'the file' },
      hidden: true,
    }) as const,
  'daemon settings': () =>
    ({
      brief: 'tell what the desired document says to the daemon',
      help: 'Started by the daemon, so that what reads the document takes no memory there for long.',
      examples: [],
      operands: {},
      flags: { root: { kind: 'path', placeholder: 'DIR', brief: 'read the document from DIR/etc' } },
      door: 'local',
      schema: 'garrison/daemon-settings/1',
      json: {
        schema: 'garrison/daemon-settings/1',
        settings:
          'the parts of the document, with their defaults: fleet, and cloudwatch, which is null when there is none',
      },
      hidden: true,
    }) as const,
  inventory: () =>
    ({
      brief: 'tell what this host is made of',
      help: 'Started by the daemon, so that what reads it takes no memory there for long.',
      examples: [],
      operands: {},
      flags: {},
      door: 'local',
      schema: 'garrison/inventory/1',
      json: { schema: 'garrison/inventory/1', inventory: 'as in garrison/report/1' },
      hidden: true,
    }) as const,
  daemon: () =>
    ({
      brief: 'be the daemon: look, judge, remember and tell',
      help: 'Started by garrison.service; goes on until it is told to stop.',
      examples: [],
      operands: {},
      flags: {
        sockets: { kind: 'path', placeholder: 'DIR', brief: 'make its socket in this folder' },
        root: {
          kind: 'path',
          placeholder: 'DIR',
          brief: 'find the sockets of libvirt and of the root side in DIR/run, keep the history in DIR/var',
        },
      },
      door: 'local',
      schema: 'garrison/daemon/1',
      json: {},
      hidden: true,
    }) as const,
  operate: () =>
    ({
      brief: 'be the root side: serve the sockets that systemd passes',
      help: 'Started by garrison-operate.socket; leaves when idle.',
      examples: [],
      operands: {},
      flags: {
        sockets: { kind: 'path', placeholder: 'DIR', brief: 'make the three sockets in this folder' },
        root: {
          kind: 'path',
          placeholder: 'DIR',
          brief: 'read the document from DIR/etc, keep the journal in DIR/var',
        },
        idle: { kind: 'text', placeholder: 'SECONDS', brief: 'leave after so long without a caller' },
      },
      door: 'local',
      schema: 'garrison/operate/1',
      json: {},
      hidden: true,
    }) as const,
} satisfies Record<string, () => Verb>

/** The name of a verb. */
export type VerbName = keyof typeof VERBS

type Given<F> = F extends { readonly choices: readonly (infer Choice)[] } ? Choice : string
type Value<F> = F extends { readonly kind: 'switch' }
  ? boolean
  : F extends { readonly many: true }
    ? readonly string[]
    : F extends { readonly required: true }
      ? Given<F>
      : Given<F> | undefined
type Told<N extends VerbName> = ReturnType<(typeof VERBS)[N]>
type Fields<N extends VerbName> = Told<N>['operands'] & Told<N>['flags']

/** The checked arguments of a verb, by the names of its operands and flags. */
export type Args<N extends VerbName> = { readonly [K in keyof Fields<N>]: Value<Fields<N>[K]> }

/** Every verb's name as typed. A name of several words is a verb under another, or under a word that is none by itself. */
export const verbNames = Object.keys(VERBS) as readonly VerbName[]

const asked = new Map<VerbName, Verb>()

/** What the table tells of a verb. Made when it is first asked for: a start that needs one of them does not wait for all. */
export function verbOf(name: VerbName): Verb {
  const verb = asked.get(name) ?? VERBS[name]()
  asked.set(name, verb)
  return verb
}

/** Whether a word, or several with single spaces between them, are the name of a verb. */
export const isVerb = (name: string): name is VerbName => Object.hasOwn(VERBS, name)
