// The verbs about drives over made-up hosts: verdicts, one drive, why, and what a replacement asks of an apply.

import t from 'tap'
import type { ApplyEvent, AskedApply, Context, View } from '../../agent/api/context.ts'
import type { ApplyLine } from '../../agent/verbs/apply.ts'
import * as drives from '../../agent/verbs/drives.ts'
import * as replace from '../../agent/verbs/drives-replace.ts'
import * as show from '../../agent/verbs/drives-show.ts'
import * as why from '../../agent/verbs/why.ts'
import type { ArrayObserved } from '../../provisioning/array/index.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Assessment, stepKey } from '../../provisioning/resource.ts'
import { drive, host, memberDrive, rootDrive, runningArray, wanting } from './array-host.ts'

const piped = { colour: false, live: false, nowMs: 0 }

const assessment = (observed: ArrayObserved | null, more: Partial<Assessment> = {}): Assessment => ({
  resource: 'array',
  needs: [],
  declared: true,
  standing: 'settled',
  summary: 'as it is',
  steps: [],
  findings: [],
  observed,
  atMs: 0,
  ...more,
})

/** A context that shows one host; an apply answers with `events` and is remembered. */
function contextOf(array: Assessment, events: readonly ApplyEvent[] = []) {
  const asked: AskedApply[] = []
  const view: View = { atMs: 0, assessments: [array], desired: wanting(), document: null }
  const context: Partial<Context> = {
    hostname: 'h',
    version: '0',
    clock: () => 0,
    signal: new AbortController().signal,
    look: async () => view,
    async *apply(one) {
      asked.push(one)
      yield* events
    },
    stop: () => false,
    applying: async () => null,
  }
  return { context: context as Context, asked }
}

const lvm = drive(4, {
  probe: {
    ...(drive(4).probe as NonNullable<ReturnType<typeof drive>['probe']>),
    signatures: [{ type: 'LVM2_member', offset: 512, uuid: null, label: null }],
  },
})
const bare = host({ drives: [rootDrive, drive(1), drive(2), drive(3), lvm] })

t.test('every drive has its verdict', async (t) => {
  const { context } = contextOf(assessment(bare))
  const answer = await drives.run(context, { fresh: false })
  t.same(
    answer.drives.map(({ name, verdict }) => `${name} ${verdict}`),
    ['nvme0n1 refused', 'nvme1n1 chosen', 'nvme2n1 chosen', 'nvme3n1 chosen', 'nvme4n1 refused'],
  )
  const page = drives.render(answer, piped)
  t.match(page, /^nvme4n1 {2}\S+ {2}AWS0004 {2}1\.7 TiB {2}refused: .*LVM/m)
  t.match(page, /^nvme1n1 .* chosen: blank, unused, same size$/m)
})

t.test('one drive tells every reason', async (t) => {
  const { context } = contextOf(assessment(bare))
  const answer = await show.run(context, { drive: 'AWS0004' })
  t.equal(answer.drive.observed.path, '/dev/nvme4n1')
  const page = show.render(answer, piped)
  t.match(page, /^nvme4n1 {2}refused\n {2}refused {5}drive\.signature: /)
  t.match(page, /\n {2}serial {6}AWS0004\n/)
  await t.rejects(show.run(context, { drive: 'AWS9' }), { code: 'request.no-such-drive' })
})

t.test('why a drive', async (t) => {
  const { context } = contextOf(assessment(bare))
  const { reasons } = await why.run(context, { subject: 'drive', name: 'nvme4n1', part: undefined })
  t.match(
    reasons[0]?.text,
    /^nvme4n1 \(Amazon EC2 NVMe Instance Storage, serial AWS0004\) is refused, for it has .*LVM.* \(drive\.signature\)\.$/,
  )
  const chosen = await why.run(context, { subject: 'drive', name: 'nvme1n1', part: undefined })
  t.match(chosen.reasons[0]?.text, /is chosen: blank, unused, same size\.$/)
  await t.rejects(why.run(context, { subject: 'drive', name: undefined, part: undefined }), {
    code: 'request.invalid',
  })
})

t.test('an array that could not be read is an error, not a host without drives', async (t) => {
  const problem = new HostError('host.denied', 'not allowed').report()
  const { context } = contextOf(assessment(null, { standing: 'unknown', problem }))
  await t.rejects(drives.run(context, { fresh: false }), { code: 'host.denied', message: 'not allowed' })
})

const running = runningArray([1, 2, 3])
const withFailed = host({
  drives: [rootDrive, memberDrive(1), memberDrive(2), memberDrive(3), drive(4)],
  arrays: [
    {
      ...running,
      members: running.members.map((member) =>
        member.slot === 1 ? { ...member, condition: 'faulty' as const } : member,
      ),
    },
  ],
})

t.test('a replacement is an apply of the array with a plan of its own', async (t) => {
  for (const [older, newer] of [
    ['AWS0002', 'AWS0004'],
    ['nvme2n1', '/dev/nvme4n1'],
    ['AWS…2', 'AWS…4'],
  ] as const) {
    const { context, asked } = contextOf(assessment(withFailed))
    for await (const _ of replace.run(context, { old: older, new: newer, allow: undefined }))
      t.fail('no lines')
    t.match(asked, [{ allow: 'safe', only: 'array', instead: { id: 'array', needs: [] } }])
    const steps = asked[0]?.instead?.plan(withFailed, wanting()) ?? []
    t.same(steps.map(stepKey), ['array.replace AWS0004'], `${older} by ${newer}`)
    t.same(
      steps.map(({ blocked }) => blocked),
      [undefined],
    )
  }
})

t.test('a member that is gone is known by its serial; a new drive must be there', async (t) => {
  const { context, asked } = contextOf(assessment(withFailed))
  for await (const _ of replace.run(context, { old: 'GONE1', new: 'AWS0004', allow: 'safe' }))
    t.fail('no lines')
  t.match(asked[0]?.instead?.plan(withFailed, wanting()), [{ blocked: { code: 'array.replace-impossible' } }])
  const missing = replace.run(context, { old: 'AWS0002', new: 'AWS9', allow: 'safe' })
  await t.rejects(missing.next(), { code: 'request.no-such-drive' })
})

t.test(
  'what is not allowed names the whole command; a copy in the making says what comes after',
  async (t) => {
    const steps = [
      {
        id: 'array.replace',
        subject: 'AWS0004',
        summary: 's',
        risk: 'disruptive' as const,
        because: [],
        actions: [],
      },
    ]
    const finding = { code: 'array.resyncing', severity: 'warning' as const, text: 'copies', remedy: 'Wait.' }
    const one = assessment(withFailed, { steps, findings: [finding] })
    const { context } = contextOf(one, [
      {
        event: 'finished',
        outcome: 'blocked',
        performed: 0,
        durationMs: 1,
        problems: [],
        left: [{ resource: 'array', key: 'array.replace AWS0004', reason: 'risk', text: 'is disruptive' }],
        assessments: [one],
      },
    ])
    const lines: ApplyLine[] = []
    for await (const line of replace.run(context, { old: 'AWS0002', new: 'AWS0004', allow: undefined }))
      lines.push(line)
    const page = lines.map((line) => replace.render(line, piped)).join('\n')
    t.match(page.replace(/\s+/g, ' '), 'garrison drives replace AWS0002 AWS0004 --allow disruptive')
    t.match(page.replace(/\s+/g, ' '), 'When the copy is whole, the same command takes the old drive out')
  },
)
