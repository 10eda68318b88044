// The part of the table of verbs that is about the network.

import type { Verb } from './verbs.ts'

/** Every verb about the network. */
export const networkVerbs = {
  'network pending': {
    brief: 'show the change to the network that waits to be confirmed',
    help: 'Says what was changed, which files and commands undo it, and when. Also what became of the change before. Ends with 2 while one is pending, and with 1 when one could not be undone whole.',
    examples: [
      ['garrison network pending', 'what is pending, and until when'],
      ['garrison network pending --json', 'the same for a script'],
    ],
    operands: {},
    flags: {},
    door: 'read',
    schema: 'garrison/network-pending/1',
    json: {
      schema: 'garrison/network-pending/1',
      pending:
        'null, or the change: summary, armedAtMs, undoneAtMs, files, reload (what is run once they are back)',
      undoing: 'null, or the change that is being undone or could not be undone whole',
      last: 'null, or what became of the last one: summary, outcome (confirmed, undone), by, atMs, problems',
    },
  },
  'network confirm': {
    brief: 'keep the change to the network that is pending',
    help: 'Type it from a new session, so that it is proof that the host can be reached. The undo is disarmed, and an apply that waits goes on. Refused when nothing is pending.',
    examples: [
      ['garrison network confirm', 'keep it'],
      ['ssh host garrison network confirm --json', 'from elsewhere, which proves that ssh works'],
    ],
    operands: {},
    flags: {},
    door: 'operate',
    schema: 'garrison/network-confirm/1',
    json: { schema: 'garrison/network-confirm/1', last: 'as in garrison/network-pending/1' },
  },
  'network undo': {
    brief: 'undo the change to the network that is pending, now',
    help: 'What the deadline would do, at once. Also goes on with an undoing that could not be finished.',
    examples: [
      ['garrison network undo', 'put the old configuration back'],
      ['garrison network undo --json', 'the same for a script'],
    ],
    operands: {},
    flags: {},
    door: 'operate',
    schema: 'garrison/network-undo/1',
    json: { schema: 'garrison/network-undo/1', last: 'as in garrison/network-pending/1' },
  },
  'network restore': {
    brief: 'undo a change that nobody confirmed',
    help: 'Started by systemd: when the deadline of a change has passed, and at boot before the network is begun.',
    examples: [],
    operands: {
      folder: { kind: 'path', placeholder: 'DIR', brief: 'where the change is kept' },
    },
    flags: {},
    door: 'local',
    schema: 'garrison/network-restore/1',
    json: { schema: 'garrison/network-restore/1', last: 'as in garrison/network-pending/1, or null' },
    hidden: true,
  },
} as const satisfies Record<string, Verb>
