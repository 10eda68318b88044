// The daemon as installed: the package in a box with a real systemd, its sandbox, its watchdog, and how it begins and ends.
import t from 'tap'
import { type Armed, undoFolder } from '../../agent/host/undo-saved.ts'
import type { Report } from '../../agent/report/report-schema.ts'
import { guardPath } from '../../provisioning/vms/guard.ts'
import { bootSystemdBox, builtDeb } from './systemd-box.ts'

const unit = 'garrison.service'
const box = await bootSystemdBox(await builtDeb(), (line) => t.comment(line))
t.teardown(() => box.close())

const systemctl = (...args: readonly string[]) => box.run(['/usr/bin/systemctl', ...args])
const isActive = async () => (await box.show(unit, 'ActiveState')).ActiveState === 'active'
const pidOf = async () => Number((await box.show(unit, 'MainPID')).MainPID)

async function report(): Promise<Report> {
  const { stdout } = await box.run(['/usr/bin/garrison', 'report', '--json'], { allowFailure: true })
  return JSON.parse(stdout)
}

/** A report in which everything has been looked at once. */
async function wholeReport(): Promise<Report> {
  let latest: Report | null = null
  await box.until('everything was looked at', async () => {
    latest = await report()
    return latest.ages?.root.atMs !== null && latest.metrics?.['units.failed'] !== undefined
  })
  if (latest === null) throw new Error('no report')
  return latest
}

const errors = async () => {
  const { stdout } = await box.run(['/usr/bin/journalctl', '--no-pager', '--output=cat', `--unit=${unit}`])
  return stdout.split('\n').filter((line) => /"level":[56]0/.test(line))
}

t.test('the package installs, and the daemon runs without document, libvirt and metadata', async (t) => {
  await box.install()
  t.match(await box.show(unit, 'ActiveState', 'NRestarts'), { ActiveState: 'active', NRestarts: '0' })
  const { ExecMainStartTimestampMonotonic, ActiveEnterTimestampMonotonic } = await box.show(
    unit,
    'ExecMainStartTimestampMonotonic',
    'ActiveEnterTimestampMonotonic',
  )
  const readyMs = (Number(ActiveEnterTimestampMonotonic) - Number(ExecMainStartTimestampMonotonic)) / 1000
  t.comment(`ready after ${readyMs} ms`)
  t.ok(readyMs < 5000)
  const { findings, ages, host } = await wholeReport()
  t.ok(host.name)
  const codes = findings.map(({ code }) => code)
  t.match(ages.vms.problem, /libvirt-sock-ro/)
  // What a sandbox or an allow-list forbids would be told as one of these.
  t.notOk(codes.includes('host.unreadable'), JSON.stringify(findings))
  t.notOk(codes.includes('root.silent'), JSON.stringify(findings))
  t.equal(ages.inventory.problem, null, `${ages.inventory.problem}`)
  t.strictSame(await errors(), [])
})

t.test('it has no rights: no root, no capability, and system calls that are filtered', async (t) => {
  const { stdout } = await box.run(['/usr/bin/cat', `/proc/${await pidOf()}/status`])
  const of = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(stdout)?.[1]
  t.notMatch(of('Uid'), /\b0\b/)
  for (const name of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
    t.equal(of(name), '0'.repeat(16), name)
  t.equal(of('NoNewPrivs'), '1')
  t.equal(of('Seccomp'), '2')
  t.comment(`resident ${of('VmRSS')}, of which the executable ${of('RssFile')} and ${of('RssShmem')}`)
  const asUser = ['/usr/sbin/runuser', '-u', 'garrison', '--']
  const denied = await box.run([...asUser, '/usr/bin/touch', '/var/lib/garrison/x'], { allowFailure: true })
  t.match(denied.stderr, /Permission denied/)
})

t.test('it sees libvirt as soon as that is there', async () => {
  await systemctl('start', 'libvirtd.service')
  await box.until('libvirt has answered', async () => (await report()).ages.vms.problem === null)
  await systemctl(
    'stop',
    'libvirtd.service',
    'libvirtd.socket',
    'libvirtd-ro.socket',
    'libvirtd-admin.socket',
  )
})

t.test('stopped, it writes down what it knows; killed, it goes on from what it wrote', async (t) => {
  const before = await report()
  await systemctl('stop', unit)
  t.match(await box.show(unit, 'Result', 'ExecMainStatus'), { Result: 'success', ExecMainStatus: '0' })
  await systemctl('start', 'garrison-report.socket', unit)
  const { run, generation } = await wholeReport()
  t.not(run, before.run)
  t.ok(generation > before.generation, `${generation} after ${before.generation}`)
  await systemctl('kill', '--signal=KILL', unit)
  await box.until('it is there again', async () => (await pidOf()) !== 0 && (await isActive()))
  const after = await wholeReport()
  t.not(after.run, run)
  t.ok(after.generation > generation, `${after.generation} after ${generation}`)
})

t.test('systemd starts it anew when it has not said for too long that it lives', async (t) => {
  await box.run([
    '/bin/sh',
    '-ec',
    'mkdir -p /run/systemd/system/garrison.service.d; printf "[Service]\\nWatchdogSec=3s\\n" > /run/systemd/system/garrison.service.d/test.conf',
  ])
  await systemctl('daemon-reload')
  await systemctl('restart', unit)
  const pid = await pidOf()
  await wholeReport()
  t.equal(await pidOf(), pid, 'it says so often enough')
  // A process that stands still does nothing, as one whose event loop is blocked.
  await systemctl('kill', '--signal=STOP', '--kill-whom=main', unit)
  await box.until('it was started anew', async () => {
    const now = await pidOf()
    return now !== pid && now !== 0 && (await isActive())
  })
  const { stdout } = await box.run(['/usr/bin/journalctl', '--no-pager', '--output=cat', `--unit=${unit}`])
  t.match(stdout, /Watchdog timeout/)
})

/** As an agent leaves it that was killed in the middle: armed, with its timer, and the file at `path` changed. */
async function leaveChange(path: string): Promise<void> {
  const content = Buffer.from('old\n').toString('base64')
  const armed: Armed = {
    ...{ id: 'one', bootId: 'this', summary: 'a change', armedAtMs: Date.now(), deadlineMs: 600_000 },
    files: [{ path, kind: 'file', content, mode: 0o644, uid: 0, gid: 0 }],
    ...{ reload: [], sessions: [] },
  }
  await systemctl('start', 'garrison-network-undo-at-stop.service')
  await box.run(['/usr/bin/systemd-run', '--unit=garrison-network-undo.service', '--on-active=600'])
  await box.run(['/usr/bin/mkdir', '-p', undoFolder])
  for (const [at, text] of [
    [`${undoFolder}/armed.json`, JSON.stringify(armed)],
    [path, 'new\n'],
  ] as const)
    await box.run(['/usr/bin/tee', at], { stdin: text })
}

t.test('the package stays where a change to the network could not be undone', async (t) => {
  await leaveChange('/srv/file')
  // No file can be put back where a folder is.
  await box.run(['/usr/bin/rm', '/srv/file'])
  await box.run(['/usr/bin/mkdir', '/srv/file'])
  const { exit, stderr } = await box.run(['/usr/bin/dpkg', '--remove', 'garrison'], { allowFailure: true })
  t.equal(exit, 1)
  t.match(stderr, /could not be undone, so the package stays/)
  t.ok(await isActive(), 'and goes on')
  await box.run(['/usr/bin/rmdir', '/srv/file'])
  t.equal((await box.run(['/usr/bin/garrison', 'network', 'undo'])).exit, 0)
  await systemctl('stop', 'garrison-network-undo.timer')
})

t.test('the package goes, and the daemon with it, and what nobody confirmed is undone', async (t) => {
  await leaveChange('/srv/file')
  await box.run(['/usr/bin/mkdir', '-p', '/etc/libvirt/hooks/qemu.d'])
  await box.run(['/usr/bin/touch', guardPath])
  await box.run(['/usr/bin/dpkg', '--remove', 'garrison'])
  const hooks = await box.run(['/usr/bin/ls', '/etc/libvirt/hooks/qemu.d'])
  t.equal(hooks.stdout, '', 'libvirt is not left asking what is not there')
  t.equal((await box.run(['/usr/bin/cat', '/srv/file'])).stdout, 'old\n')
  const left = [
    '/usr/bin/systemctl',
    'list-units',
    '--state=active,activating,failed',
    '--no-legend',
    '--plain',
    'garrison-network-undo*',
  ]
  t.equal((await box.run(left)).stdout, '')
  t.match((await box.show(unit, 'ActiveState', 'Result')).ActiveState, /^(inactive|failed)$/)
  await box.run(['/usr/bin/dpkg', '--purge', 'garrison'])
  const { stdout } = await box.run(['/usr/bin/ls', '/var/lib'])
  t.notMatch(stdout, /garrison/)
})
