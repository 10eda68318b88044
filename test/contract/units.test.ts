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
    'garrison-network-undo.service',
    'garrison-operate.service',
    'garrison-operate.socket',
    'garrison-read.socket',
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

t.test('the root side is exposed no more than 4.5', async (t) => {
  const { stdout } = await runTool([
    '/usr/bin/systemd-analyze',
    'security',
    '--offline=true',
    '--no-pager',
    join(source, unitFolder, 'garrison-operate.service'),
  ])
  const [, exposure] = /exposure level for garrison-operate\.service: ([0-9.]+)/.exec(stdout) ?? []
  t.comment(`exposure ${exposure}`)
  t.ok(Number(exposure) <= 4.5, `${exposure}`)
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
    ['/run/garrison/operate.sock', 'operate', 'root', 'garrison', '0660', service],
    ['/run/garrison/read.sock', 'read', 'root', 'garrison-read', '0660', service],
  ])
  const { Sockets } = await settingsOf(service)
  t.strictSame(
    Sockets?.split(' ').sort(),
    units.filter((name) => name.endsWith('.socket')),
  )
})

t.test('every door opens at boot once enabled', async (t) => {
  await runTool([
    '/usr/bin/systemctl',
    `--root=${root}`,
    'enable',
    ...units.filter((name) => name.endsWith('.socket')),
  ])
  t.strictSame((await readdir(join(root, 'etc/systemd/system/sockets.target.wants'))).sort(), [
    'garrison-admin.socket',
    'garrison-operate.socket',
    'garrison-read.socket',
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

t.test('sysusers makes the two groups and no user', async (t) => {
  // In a user namespace, so that it needs no root.
  const asRoot = ['/usr/bin/unshare', '--map-root-user', '--']
  await runTool([...asRoot, '/usr/bin/systemd-sysusers', `--root=${root}`, 'garrison.conf'])
  const names = (await readFile(join(root, 'etc/group'), 'utf8')).trim().split('\n')
  t.strictSame(names.map((line) => line.split(':')[0]).sort(), ['garrison', 'garrison-read', 'root'])
  t.equal((await readFile(join(root, 'etc/passwd'), 'utf8')).trim().split('\n').length, 1)
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
