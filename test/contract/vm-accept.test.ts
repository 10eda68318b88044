// What a person has changed of declared VMs, left until a day or taken back, over a real libvirtd.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import type { JournalLine } from '../../agent/verbs/journal.ts'
import type { Plan } from '../../agent/verbs/plan.ts'
import type { Status } from '../../agent/verbs/status.ts'
import type { AcceptLine } from '../../agent/verbs/vm-accept.ts'
import type { AdoptLine } from '../../agent/verbs/vm-adopt.ts'
import type { RevertLine } from '../../agent/verbs/vm-revert.ts'
import { vmsWorld } from './vms-world.ts'

const world = await vmsWorld()
t.teardown(() => world.stop())
const { ask, root, declare } = world

const until = '2199-12-31'
const told = <Line>(lines: readonly { line: Line; text: string | null; exit: number | null }[]) => ({
  lines: lines.map(({ line }) => line),
  last: lines.at(-1),
  text: lines
    .map(({ text }) => text)
    .join('\n')
    .replace(/\s+/g, ' '),
})
const accept = async (names: readonly string[], more: object = {}) =>
  told(await world.all<AcceptLine>('vm accept', { names, until, path: [], plan: false, ...more }))
const revert = async (names: readonly string[], more: object = {}) =>
  told(await world.all<RevertLine>('vm revert', { names, plan: false, ...more }))
const plan = async () => (await world.answer<Plan>('plan')).line.steps
const findings = async () =>
  (await world.answer<Status>('status', { fresh: true })).line.resources.flatMap((one) => one.findings)
const dropIn = (name: string) => join(root, 'etc/garrison/host.d', `vm-${name}.yaml`)
const journalled = async () =>
  (await world.all<JournalLine>('journal', { follow: false })).flatMap(({ line }) => {
    if (!('entry' in line)) return []
    const { entry } = line
    return entry.kind === 'apply-started'
      ? (entry.request.verb ?? [])
      : entry.kind === 'step-done'
        ? entry.key
        : []
  })
const accepted = (name: string) => parse(readFileSync(dropIn(name), 'utf8')).vms.accepted

function change(name: string): void {
  ask('setvcpus', name, '2', '--maximum', '--config')
  ask('setvcpus', name, '2', '--config')
  ask('setmaxmem', name, '96M', '--config')
  ask('setmem', name, '96M', '--config')
}
const cpusOf = (name: string) => /<vcpu[^>]*>(\d+)</.exec(ask('dumpxml', '--inactive', name))?.[1]

declare({ power: 'off' })
t.match((await world.apply()).line, { outcome: 'settled' })

t.test('drift is left until a day, and told', async (t) => {
  t.match(await accept(['blank', 'clone']), { last: { exit: 0 }, text: /blank is as it is declared/ })
  change('blank')
  change('clone')
  t.same(
    (await plan()).map(({ key }) => key),
    ['vms.redefine blank', 'vms.redefine clone'],
  )
  const shown = await accept(['blank'], { plan: true })
  t.match(shown.last, { exit: 0, line: { event: 'planned', vm: 'blank', file: dropIn('blank'), steps: [] } })
  t.match(shown.text, /vms\.machines\.blank\.cpus: until: 2199-12-31 .*Then nothing would be done/)
  t.notOk(existsSync(dropIn('blank')))

  const done = await accept(['bl*', 'clone'], { reason: 'load test' })
  t.match(done.last, { exit: 0, line: { event: 'accepted', until, why: 'load test' } }, done.text)
  t.match(done.text, /blank is left as it is until 2199-12-31.*clone is left as it is/)
  t.same(accepted('blank'), {
    'vms.machines.blank.cpus': { until, why: 'load test' },
    'vms.machines.blank.memory': { until, why: 'load test' },
  })
  t.same(await plan(), [])
  t.match((await world.apply()).line, { outcome: 'settled', performed: 0 })
  t.equal(cpusOf('blank'), '2')
  t.match(
    (await findings()).filter(({ code }) => code === 'vms.accepted'),
    [
      { subject: 'blank', text: /memory until 2199-12-31 \(load test\), cpus until/ },
      { subject: 'clone', remedy: /garrison vm revert clone/ },
    ],
  )
  t.same((await journalled()).slice(-3), [
    ...['vm accept bl* clone --until 2199-12-31', 'vms.accept blank', 'vms.accept clone'],
  ])

  ask('autostart', 'blank')
  t.match(await plan(), [{ key: 'vms.autostart blank' }], 'other drift is not accepted by it')
  const longer = '2200-01-31'
  t.match((await accept(['blank'], { until: longer })).last, { exit: 0, line: { until: longer } })
  t.match(accepted('blank'), {
    'vms.machines.blank.cpus': { until: longer, why: /^Accepted on \d{4}-\d\d-\d\d, for the test\.$/ },
    'vms.machines.blank.autostart': { until: longer },
  })
  t.same(await plan(), [])
})

t.test('what was accepted is taken back, and what else differs', async (t) => {
  const kept = '# Kept.\nvms:\n  machines:\n    clone:\n      tags:\n        env: prod # why\n'
  writeFileSync(dropIn('clone'), `${kept}${readFileSync(dropIn('clone'), 'utf8').replace('vms:\n', '')}`)
  const shown = await revert(['blank'], { plan: true })
  t.match(shown.last, { exit: 2, line: { event: 'planned', vm: 'blank' } })
  t.match(
    shown.text,
    /would accept no more: .*blank\.cpus.*would be done: vms\.redefine blank.*vms\.autostart/,
  )
  t.equal(cpusOf('blank'), '2')
  const done = await revert(['blank'])
  t.match(done.last, { exit: 0, line: { event: 'finished', outcome: 'settled', performed: 2 } }, done.text)
  t.match(done.text, /vm-blank\.yaml accepts no more: vms\.machines\.blank\.memory/)
  t.notOk(existsSync(dropIn('blank')), 'nothing else was in it')
  t.equal(cpusOf('blank'), '1')
  t.equal(cpusOf('clone'), '2', 'no other VM is touched')
  t.match((await revert(['blank'])).last, { exit: 0, line: { performed: 0 } })

  t.match((await revert(['clone'])).last, { exit: 0, line: { outcome: 'settled' } })
  t.equal(readFileSync(dropIn('clone'), 'utf8'), kept, 'all else in the file stays')
  t.equal(cpusOf('clone'), '1')
  t.same(await plan(), [])

  const xml = "<disk type='file' device='cdrom'><target dev='sdz' bus='sata'/></disk>"
  writeFileSync(join(root, 'cdrom.xml'), xml)
  ask('attach-device', 'blank', join(root, 'cdrom.xml'), '--config')
  const refused = await revert(['blank'])
  t.match(refused.last, {
    exit: 3,
    line: { left: [{ command: 'garrison vm revert blank --allow disruptive' }] },
  })
  t.match((await revert(['blank'], { allow: 'disruptive' })).last, { exit: 0 })
  t.notMatch(ask('dumpxml', 'blank'), /sdz/)
})

t.test('only what is named is accepted, and the rest stays drift', async (t) => {
  change('blank')
  const path = ['cpus']
  t.match((await accept(['blank', 'clone'], { path })).text, /clone is as it is declared in cpus\./)
  t.strictSame(Object.keys(accepted('blank')), ['vms.machines.blank.cpus'])
  t.match(await plan(), [{ because: [{ path: 'vms.machines.blank.memory' }] }])
  t.match((await journalled()).at(-2), 'vm accept blank clone --until 2199-12-31 --path cpus')
  const before = readFileSync(dropIn('blank'), 'utf8')
  t.match(
    (await accept(['blank'], { path: ['memory', 'firmware'] })).text,
    /request\.invalid: nothing differs in firmware; what does: .*vms\.machines\.blank\.memory/,
  )
  t.equal(readFileSync(dropIn('blank'), 'utf8'), before)
  t.match((await accept(['blank'], { path: ['vms.machines.blank.memory'] })).last, { exit: 0 })
  t.same(await plan(), [])
  t.match((await revert(['blank'])).last, { exit: 0, line: { outcome: 'settled' } })
})

t.test('what was accepted is declared, and accepted no more', async (t) => {
  const adopt = async (plan: boolean) => told(await world.all<AdoptLine>('vm adopt', { vm: 'blank', plan }))
  const declared = () => parse(readFileSync(dropIn('blank'), 'utf8')).vms
  change('blank')
  // What no key can say: a disk that is declared, and was taken away.
  ask('detach-disk', 'blank', 'vda', '--config')
  t.match((await accept(['blank'])).last, { exit: 0 })
  const paths = ['cpus', 'memory', 'disks.root'].map((path) => `vms.machines.blank.${path}`)
  t.strictSame(Object.keys(accepted('blank')).sort(), paths.toSorted())
  const own = readFileSync(dropIn('blank'), 'utf8')
  ask('autostart', 'blank')

  const shown = await adopt(true)
  t.match(
    shown.text,
    /not said disks\.root: it is declared, and not there.*would accept no more: .*blank\.cpus/,
  )
  t.equal(readFileSync(dropIn('blank'), 'utf8'), own)
  const done = await adopt(false)
  t.match(done.last, { exit: 0, line: { event: 'declared' } }, done.text)
  t.match(done.text, /vm-blank\.yaml accepts no more: vms\.machines\.blank\.memory/)
  t.match(declared().machines.blank, { cpus: 2, memory: '96MiB', autostart: true })
  t.strictSame(
    Object.keys(declared().accepted),
    ['vms.machines.blank.disks.root'],
    'what cannot be said stays so',
  )
  t.same(await plan(), [])
  ask('setvcpus', 'blank', '1', '--config')
  t.match(await plan(), [{ key: 'vms.redefine blank' }], 'the next change of it is drift')

  rmSync(dropIn('blank'))
  t.match((await revert(['blank'], { allow: 'disruptive' })).last, { exit: 0, line: { outcome: 'settled' } })
})

t.test('what another file accepts is named, and stays', async (t) => {
  mkdirSync(join(root, 'etc/garrison/host.d'), { recursive: true })
  const other = join(root, 'etc/garrison/host.d/zz.yaml')
  const path = 'vms.machines.blank.cpus'
  writeFileSync(other, `vms:\n  accepted:\n    ${path}: {until: ${until}, why: by hand}\n`)
  change('blank')
  const done = await revert(['blank'])
  t.match(
    done.lines.find(({ event }) => event === 'still-accepted'),
    {
      accepted: [{ path, until, where: 'host.d/zz.yaml:3' }],
    },
  )
  t.equal(cpusOf('blank'), '2')
  const refused = await accept(['blank'], { until: '2188-01-01' })
  t.match(refused.text, /request\.invalid: host\.d\/zz\.yaml:3 says 2199-12-31 of vms\.machines\.blank\.cpus/)
  t.notOk(existsSync(dropIn('blank')))
  writeFileSync(other, '')
  t.match((await revert(['blank'])).last, { exit: 0 })
})

t.test('what cannot be is refused, and nothing is written', async (t) => {
  change('blank')
  for (const [names, more, text] of [
    [['nobody'], {}, /request\.no-such-vm/],
    [['blank', 'nobody'], {}, /request\.no-such-vm/],
    [['blank'], { until: 'tomorrow' }, /request\.invalid: --until takes a day/],
    [['blank'], { until: '2027-02-30' }, /request\.invalid/],
    [['blank'], { until: '2020-01-01' }, /request\.invalid: 2020-01-01 is over/],
    [['blank'], { reason: '' }, /request\.invalid/],
    [['blank'], { reason: 'x'.repeat(501) }, /request\.invalid/],
  ] as const)
    t.match((await accept(names, more)).text, text)
  t.notOk(existsSync(dropIn('blank')))
  const xml = join(root, 'wild.xml')
  writeFileSync(
    xml,
    "<domain type='qemu'><name>wild</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>",
  )
  ask('define', xml)
  for (const verb of [accept, revert])
    t.match((await verb(['wild'])).text, /no-such-vm: the document does not declare wild: garrison vm adopt/)
  ask('undefine', 'blank')
  t.match((await accept(['blank'])).text, /request\.no-such-vm: libvirt has no VM blank/)
  t.match((await revert(['blank'])).last, { exit: 0 }, 'its disks are there: it is defined again')
  t.equal(cpusOf('blank'), '1')
})
