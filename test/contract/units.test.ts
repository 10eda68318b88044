// The systemd files, held against systemd's own tools: verify, security, sysusers, tmpfiles and enable, all offline.
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { runTool } from '../lab/processes.ts'
import { ensureRequirements } from '../lab/requirements.ts'

const source = join(import.meta.dirname, '..', '..', 'systemd')
const unitFolder = 'usr/lib/systemd/system'

await ensureRequirements(
  (line) => t.comment(line),
  [
    { package: 'systemd', path: '/usr/bin/systemd-analyze' },
    { package: 'util-linux', path: '/usr/bin/unshare' },
  ],
)

/** A folder with the files as installed, a garrison that can be executed, and the machine's own units beside. */
async function installedRoot(): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'garrison-units-'))
  t.teardown(() => rm(root, { recursive: true }))
  await cp(`/${unitFolder}`, join(root, unitFolder), { recursive: true, verbatimSymlinks: true })
  await cp(source, root, { recursive: true })
  for (const program of ['usr/bin/garrison', 'usr/sbin/nft']) {
    await mkdir(join(root, dirname(program)))
    await writeFile(join(root, program), '#!/bin/sh\n')
    await chmod(join(root, program), 0o755)
  }
  await mkdir(join(root, 'etc'))
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  await writeFile(join(root, 'etc/group'), 'root:x:0:\n')
  return root
}

const units = (await readdir(join(source, unitFolder))).sort()
const root = await installedRoot()

/** The settings of a unit; what is given more than once keeps its last value. */
async function settingsOf(unit: string): Promise<Record<string, string>> {
  const text = await readFile(join(source, unitFolder, unit), 'utf8')
  return Object.fromEntries([...text.matchAll(/^([A-Za-z]+)=(.*)$/gm)].map(([, key, value]) => [key, value]))
}

t.test('systemd reads every unit without a word', async (t) => {
  t.strictSame(units, [
    'garrison-admin.socket',
    'garrison-firewall.service',
    'garrison-fleet.socket',
    'garrison-network-undo-at-stop.service',
    'garrison-network-undo.service',
    'garrison-operate.service',
    'garrison-operate.socket',
    'garrison-read.socket',
    'garrison-report.socket',
    'garrison-shell.socket',
    'garrison.service',
  ])
  const { stdout, stderr } = await runTool([
    '/usr/bin/systemd-analyze',
    'verify',
    `--root=${root}`,
    '--man=no',
    '--generators=no',
    '--recursive-errors=no',
    ...units.map((unit) => `/${unitFolder}/${unit}`),
  ])
  t.equal(stdout + stderr, '')
})

for (const [unit, most] of [
  ['garrison-operate.service', 4.5],
  ['garrison.service', 2.5],
] as const)
  t.test(`${unit} is exposed no more than ${most}`, async (t) => {
    const { stdout } = await runTool([
      '/usr/bin/systemd-analyze',
      'security',
      '--offline=true',
      '--no-pager',
      join(source, unitFolder, unit),
    ])
    const [, exposure] = /exposure level for \S+: ([0-9.]+)/.exec(stdout) ?? []
    t.comment(`exposure ${exposure}`)
    t.ok(Number(exposure) <= most, `${exposure}`)
  })

t.test('each door is a socket of one service, told apart by name, owner and mode', async (t) => {
  const doors: unknown[] = []
  for (const unit of units.filter((name) => name.endsWith('.socket'))) {
    const { ListenStream, FileDescriptorName, SocketUser, SocketGroup, SocketMode, Service } =
      await settingsOf(unit)
    doors.push([ListenStream, FileDescriptorName, SocketUser, SocketGroup, SocketMode, Service])
  }
  const service = 'garrison-operate.service'
  t.strictSame(doors, [
    ['/run/garrison/admin.sock', 'admin', 'root', 'root', '0600', service],
    ['/run/garrison/fleet.sock', 'fleet', 'root', 'garrison', '0660', 'garrison.service'],
    ['/run/garrison/operate.sock', 'operate', 'root', 'garrison', '0660', service],
    ['/run/garrison/read.sock', 'read', 'root', 'garrison-read', '0660', service],
    ['/run/garrison/report.sock', 'report', 'root', 'garrison-read', '0660', 'garrison.service'],
    ['/run/garrison/shell.sock', 'shell', 'garrison', 'root', '0600', service],
  ])
  t.strictSame((await settingsOf(service)).Sockets?.split(' ').sort(), [
    'garrison-admin.socket',
    'garrison-operate.socket',
    'garrison-read.socket',
    'garrison-shell.socket',
  ])
  t.equal((await settingsOf('garrison.service')).Sockets, 'garrison-report.socket garrison-fleet.socket')
})

t.test(
  'the daemon is no root, says that it lives, and leaves the folder of the root side alone',
  async (t) => {
    t.match(await settingsOf('garrison.service'), {
      Type: 'notify',
      WatchdogSec: '30s',
      Restart: 'always',
      User: 'garrison',
      Group: 'garrison',
      StateDirectory: 'garrison/daemon garrison/fleet',
      CapabilityBoundingSet: '',
    })
  },
)

t.test('every door opens at boot once enabled', async (t) => {
  await runTool([
    '/usr/bin/systemctl',
    `--root=${root}`,
    'enable',
    ...units.filter((name) => name.endsWith('.socket')),
  ])
  t.strictSame((await readdir(join(root, 'etc/systemd/system/sockets.target.wants'))).sort(), [
    'garrison-admin.socket',
    'garrison-fleet.socket',
    'garrison-operate.socket',
    'garrison-read.socket',
    'garrison-report.socket',
    'garrison-shell.socket',
  ])
})

t.test('rules are loaded and changes undone before the network is begun', async (t) => {
  const early = ['garrison-firewall.service', 'garrison-network-undo.service']
  await runTool(['/usr/bin/systemctl', `--root=${root}`, 'enable', ...early])
  t.strictSame((await readdir(join(root, 'etc/systemd/system/sysinit.target.wants'))).sort(), early)
  for (const unit of early) {
    const text = await readFile(join(source, unitFolder, unit), 'utf8')
    t.match(text, /^Before=network-pre\.target$/m)
    t.match(text, /^Wants=network-pre\.target$/m)
    t.match(text, /^DefaultDependencies=no$/m)
  }
})

t.test('sysusers makes the two groups, and a user without a shell who is in both', async (t) => {
  // In a user namespace, so that it needs no root.
  const asRoot = ['/usr/bin/unshare', '--map-root-user', '--']
  await runTool([...asRoot, '/usr/bin/systemd-sysusers', `--root=${root}`, 'garrison.conf'])
  const names = (await readFile(join(root, 'etc/group'), 'utf8')).trim().split('\n')
  t.strictSame(names.map((line) => line.split(':')[0]).sort(), ['garrison', 'garrison-read', 'root'])
  const groups = await readFile(join(root, 'etc/group'), 'utf8')
  const gid = /^garrison:[^:]*:(\d+):/m.exec(groups)?.[1]
  t.match(groups, /^garrison-read:[^:]*:\d+:garrison$/m)
  const users = (await readFile(join(root, 'etc/passwd'), 'utf8')).trim().split('\n')
  t.equal(users.length, 2)
  t.match(users[1], new RegExp(`^garrison:x:\\d+:${gid}:Garrison daemon:/:/usr/sbin/nologin$`))
})

t.test(
  'tmpfiles makes the folder of the sockets, which any user may enter and only root may change',
  async (t) => {
    const asRoot = ['/usr/bin/unshare', '--map-root-user', '--']
    await runTool([...asRoot, '/usr/bin/systemd-tmpfiles', `--root=${root}`, '--create', 'garrison.conf'])
    const { mode } = await stat(join(root, 'run/garrison'))
    t.equal(mode & 0o7777, 0o755)
  },
)
