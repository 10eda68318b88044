// The part of the table of verbs that is about long work.

import type { Verb } from './verbs.ts'

/** Every verb about jobs. */
export const jobVerbs = {
  jobs: () =>
    ({
      brief: 'show long work, running and ended',
      help: 'Backups, restores, exports, imports and fetches go on when the terminal that began them has gone. What has ended stays in the list until fifty newer ones have ended.',
      examples: [
        ['garrison jobs', 'what runs, how far it is and what is left'],
        ['garrison jobs --json', 'the same for a script'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      schema: 'garrison/jobs/1',
      json: {
        schema: 'garrison/jobs/1',
        jobs: 'each job, the newest first: id, verb, typed, who, beganMs, endedMs, outcome (running, done, failed, cancelled, interrupted), exit, problem, progress (subject, doing, doneBytes, totalBytes, bytesPerSecond, leftMs)',
      },
    }) as const,
  'jobs follow': () =>
    ({
      brief: 'show what a job has told, and what it goes on to tell',
      help: 'As if it had been begun in this terminal. Ctrl-C ends the following and not the job.',
      examples: [
        ['garrison jobs follow', 'the one that was begun last'],
        ['garrison jobs follow 3f9a2c', 'one of several'],
      ],
      operands: {
        job: {
          kind: 'text',
          placeholder: 'JOB',
          brief: 'its id, as garrison jobs shows it (the newest when left out)',
        },
      },
      flags: {},
      door: 'read',
      schema: 'garrison/jobs-follow/1',
      json: {
        'the lines of the verb': 'with its schema, and progress as in garrison/jobs/1',
      },
      streams: true,
    }) as const,
  'jobs cancel': () =>
    ({
      brief: 'end a job, and take away what is half done',
      help: 'The job is asked to end; garrison jobs shows when it has.',
      examples: [
        ['garrison jobs cancel 3f9a2c', 'end it'],
        ['garrison jobs cancel 3f9a2c --json', 'the same for a script'],
      ],
      operands: {
        job: {
          kind: 'text',
          placeholder: 'JOB',
          brief: 'its id, as garrison jobs shows it',
          required: true,
        },
      },
      flags: {},
      door: 'operate',
      schema: 'garrison/jobs-cancel/1',
      json: { schema: 'garrison/jobs-cancel/1', job: 'the job as in garrison/jobs/1' },
    }) as const,
} satisfies Record<string, () => Verb>

/** What every verb that is a job can be told. */
export const detach = {
  kind: 'switch',
  brief: 'say which job it is and leave at once',
} as const
