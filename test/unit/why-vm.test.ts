// Why a VM is as it is: its power, what is wanted of it, and what is wrong below it.

import t from 'tap'
import { vmReasons } from '../../agent/verbs/why-vm.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { Assessment, Step } from '../../provisioning/resource.ts'

const assessment = (resource: string, more: Partial<Assessment> = {}): Assessment => ({
  resource,
  needs: [],
  declared: true,
  standing: 'settled',
  summary: 'as it is',
  steps: [],
  findings: [],
  observed: null,
  atMs: 0,
  ...more,
})

const start: Step = {
  id: 'vms.start',
  subject: 'web',
  summary: 'web',
  risk: 'safe',
  because: [{ path: 'vms.machines.web.power', desired: 'running', observed: 'off' }],
  actions: [],
  blocked: {
    code: 'vm.not-mounted',
    message: 'pool images is on /srv, where nothing is mounted',
    remedy: 'Mount it.',
  },
}

const domain = { power: 'off', reason: 'shutdown' }

const vmsWith = (more: Partial<Assessment> = {}, machine: object = { domain }): Assessment =>
  assessment('vms', {
    needs: ['software', 'volumes'],
    observed: {
      machines: [{ name: 'web', ...machine }],
      undeclared: [{ name: 'guest-of-others', uuid: 'u', power: 'paused' }],
    },
    ...more,
  })

const texts = (vms: Assessment, others: readonly Assessment[] = [], name = 'web'): readonly string[] =>
  vmReasons(vms, [...others, vms], name).map(({ text }) => text)

t.test('all is well', async (t) => {
  t.same(texts(vmsWith({}, { domain: { power: 'running', reason: 'booted' } })), [
    'web is running (booted), as it is declared.',
  ])
})

t.test('blocked by what is below it, down to the array', async (t) => {
  const others = [
    assessment('software'),
    assessment('array', {
      standing: 'drifted',
      summary: '1 of 3 members',
      findings: [
        { code: 'array.failed', severity: 'high', text: 'two members are gone', remedy: 'Put them back.' },
      ],
    }),
    assessment('volumes', { needs: ['array'], standing: 'drifted', summary: '0 of 1 mounted' }),
  ]
  const steps = [start, { ...start, subject: 'web.root', id: 'vms.disk' }, { ...start, subject: 'website' }]
  const told = texts(vmsWith({ standing: 'drifted', steps }), others)
  t.equal(told[0], 'web is off (shutdown).')
  t.match(told[1], /^vms\.start web is needed: .*desired running, observed off/)
  t.match(told[2], /^It is blocked: pool images is on \/srv/)
  t.match(told[3], /^vms\.disk web\.root is needed/)
  t.match(told[5], /^volumes is drifted/)
  t.match(told[6], /^array is drifted/)
  t.equal(told[7], 'high: array.failed: two members are gone')
  t.equal(told.length, 8, 'and nothing of website or software')
})

t.test('not known is not off', async (t) => {
  const problem = new HostError('libvirt.unreachable', 'libvirt has not answered for 12 s: gone').report()
  const [only] = vmReasons(vmsWith({ standing: 'unknown', problem, observed: null }), [], 'web')
  t.match(only?.text, /^Nobody can tell what web does, and it may well run: .*12 s/)
  t.match(only?.remedy, /journalctl -u libvirtd/)
})

t.test('not defined, not declared, not there', async (t) => {
  t.match(texts(vmsWith({ steps: [start] }, { domain: null })), [
    'web is declared, and libvirt does not know it.',
    /needed/,
    /blocked/,
  ])
  t.same(texts(vmsWith(), [], 'guest-of-others'), [
    'guest-of-others is paused. It is not declared, so nothing is done to it by itself.',
  ])
  t.throws(() => texts(vmsWith(), [], 'wbe'), { code: 'request.no-such-vm' })
})
