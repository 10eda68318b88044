// The parser of `systemctl show`, and what counts as trouble of a unit.

import t from 'tap'
import { unitTrouble } from '../../provisioning/software/plan.ts'
import { parseSystemctlShow, systemctlShow, type Unit } from '../../provisioning/systemd/systemctl.ts'

const block = (id: string, load: string, active: string, sub: string, file: string): string =>
  `Id=${id}\nLoadState=${load}\nActiveState=${active}\nSubState=${sub}\nUnitFileState=${file}\n`

t.test('one block for each unit asked for, by position', async (t) => {
  const units = ['libvirtd.service', 'cockpit.socket', 'nosuch.service']
  t.same(systemctlShow(units).slice(-3), units)
  const stdout = [
    // An alias answers under its own name.
    block('virtqemud.service', 'loaded', 'active', 'running', 'enabled'),
    block('cockpit.socket', 'masked', 'inactive', 'dead', 'masked'),
    block('nosuch.service', 'not-found', 'inactive', 'dead', ''),
  ].join('\n')
  t.same(parseSystemctlShow(units, stdout), [
    { load: 'loaded', active: 'active', sub: 'running', file: 'enabled' },
    { load: 'masked', active: 'inactive', sub: 'dead', file: 'masked' },
    { load: 'not-found', active: 'inactive', sub: 'dead', file: '' },
  ])
  t.throws(() => parseSystemctlShow(units, block('a', 'loaded', 'active', 'running', 'enabled')), {
    code: 'host.unexpected-answer',
  })
  t.throws(() => parseSystemctlShow(['a'], 'Id=a\n'), { code: 'host.unexpected-answer' })
})

t.test('trouble of a unit', async (t) => {
  const of = (unit: Partial<Unit>, leavesWhenIdle?: true) =>
    unitTrouble({
      unit: 'x.socket',
      package: 'x',
      load: 'loaded',
      active: 'active',
      sub: 'listening',
      file: 'enabled',
      ...unit,
      ...(leavesWhenIdle && { leavesWhenIdle }),
    })
  t.equal(of({}), null)
  t.equal(of({ file: 'static' }), null)
  t.equal(of({ load: 'masked', file: 'masked', active: 'inactive' }), 'masked')
  t.equal(of({ file: 'masked-runtime' }), 'masked')
  t.equal(of({ load: 'not-found', file: '', active: 'inactive' }), 'missing')
  t.equal(of({ active: 'failed' }), 'failed')
  t.equal(of({ file: 'disabled' }), 'disabled')
  t.equal(of({ file: 'enabled-runtime' }), 'disabled', 'not at the next boot')
  t.equal(of({ active: 'inactive' }), 'stopped')
  t.equal(of({ active: 'inactive' }, true), null, 'its socket starts it')
  t.equal(of({ active: 'failed' }, true), 'failed')
})
