// The .deb, the .rpm and the executable as built, held against dpkg-deb's, rpm's and the shell's own reading of them.
import { createHash } from 'node:crypto'
import { existsSync, globSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { runTool } from '../lab/processes.ts'

const root = join(import.meta.dirname, '..', '..')
const dist = join(root, 'dist')
const { version, dependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
const executable = join(dist, 'garrison')

if (!existsSync(executable)) await runTool([process.execPath, join(root, 'packaging', 'build.ts')])
const [deb = '', ...otherDebs] = globSync(`${dist}/garrison_*.deb`)
const [rpm = '', ...otherRpms] = globSync(`${dist}/garrison-*.rpm`)

const tree = await mkdtemp(join(tmpdir(), 'garrison-package-'))
t.teardown(() => rm(tree, { recursive: true }))
await runTool(['/usr/bin/dpkg-deb', '--raw-extract', deb, tree])

const shared = [
  '-rwxr-xr-x /usr/bin/garrison',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-admin.socket',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-firewall.service',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-fleet.socket',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-network-undo-at-stop.service',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-network-undo.service',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-operate.service',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-operate.socket',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-read.socket',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-report.socket',
  '-rw-r--r-- /usr/lib/systemd/system/garrison-shell.socket',
  '-rw-r--r-- /usr/lib/systemd/system/garrison.service',
  '-rw-r--r-- /usr/lib/sysusers.d/garrison.conf',
  '-rw-r--r-- /usr/lib/tmpfiles.d/garrison.conf',
  '-rw-r--r-- /usr/share/bash-completion/completions/garrison',
  '-rw-r--r-- /usr/share/doc/garrison/LICENSE',
  '-rw-r--r-- /usr/share/doc/garrison/THIRD-PARTY-LICENCES',
  '-rw-r--r-- /usr/share/doc/garrison/copyright',
  '-rw-r--r-- /usr/share/doc/garrison/examples/host.yaml',
  '-rw-r--r-- /usr/share/fish/vendor_completions.d/garrison.fish',
  '-rw-r--r-- /usr/share/garrison/grafana-dashboard.json',
  '-rw-r--r-- /usr/share/garrison/templates/appliance.yaml',
  '-rw-r--r-- /usr/share/garrison/templates/database.yaml',
  '-rw-r--r-- /usr/share/garrison/templates/linux-server.yaml',
  '-rw-r--r-- /usr/share/garrison/templates/windows-server.yaml',
  '-rw-r--r-- /usr/share/man/man8/garrison.8.gz',
]
const ownFolders = [
  '/etc/garrison',
  '/etc/garrison/host.d',
  '/etc/garrison/templates',
  '/usr/share/garrison',
  '/usr/share/garrison/templates',
]

const sorted = (lines: readonly string[]) => [...lines].sort()

t.test('the .deb holds exactly these files, all of root', async (t) => {
  t.strictSame(otherDebs, [])
  const { stdout } = await runTool(['/usr/bin/dpkg-deb', '--contents', deb])
  const entries = stdout
    .trim()
    .split('\n')
    .map((line) => {
      const [, mode, owner, path = ''] = /^(\S+) (\S+) +\d+ \S+ \S+ \.(\S*)$/.exec(line) ?? []
      return { mode, owner, path: path.replace(/\/$/, '') }
    })
  t.strictSame([...new Set(entries.map((entry) => entry.owner))], ['root/root'])
  t.strictSame(
    [...new Set(entries.filter((entry) => entry.mode?.startsWith('d')).map((entry) => entry.mode))],
    ['drwxr-xr-x'],
  )
  t.strictSame(
    sorted(
      entries.filter((entry) => !entry.mode?.startsWith('d')).map((entry) => `${entry.mode} ${entry.path}`),
    ),
    sorted([...shared, '-rw-r--r-- /usr/share/zsh/vendor-completions/_garrison']),
  )
  for (const folder of ownFolders)
    t.ok(
      entries.some((entry) => entry.path === folder),
      folder,
    )
})

t.test('the .deb says what it is, what it needs, and sums that are right', async (t) => {
  const { stdout } = await runTool(['/usr/bin/dpkg-deb', '--field', deb])
  const fields = Object.fromEntries(
    [...stdout.matchAll(/^([A-Z][A-Za-z-]*): (.*)$/gm)].map(([, key, value]) => [key, value]),
  )
  t.match(fields, {
    Package: 'garrison',
    Version: version,
    Architecture: process.arch === 'x64' ? 'amd64' : 'arm64',
    Section: 'admin',
    Priority: 'optional',
  })
  const needed = fields.Depends.split(', ').map((one: string) => one.split(' ')[0])
  for (const one of ['libatomic1', 'libc6', 'libgcc-s1', 'libstdc++6', 'systemd'])
    t.ok(needed.includes(one), one)
  const sums = (await readFile(join(tree, 'DEBIAN', 'md5sums'), 'utf8')).trim().split('\n')
  t.equal(sums.length, shared.length + 1)
  for (const line of sums) {
    const [sum, path = ''] = line.split('  ')
    t.equal(
      createHash('md5')
        .update(await readFile(join(tree, path)))
        .digest('hex'),
      sum,
      path,
    )
  }
  t.equal(existsSync(join(tree, 'DEBIAN', 'conffiles')), false)
})

t.test('the .rpm holds exactly these files, all of root, with good digests', async (t) => {
  t.strictSame(otherRpms, [])
  const format = '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]'
  const { stdout } = await runTool(['/usr/bin/rpm', '--query', '--package', `--queryformat=${format}`, rpm])
  const entries = stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [string, string, string])
  t.strictSame([...new Set(entries.map(([, owner]) => owner))], ['root/root'])
  t.strictSame(
    sorted(entries.map(([mode, , path]) => `${mode} ${path}`)),
    sorted([
      ...shared,
      '-rw-r--r-- /usr/share/zsh/site-functions/_garrison',
      ...[...ownFolders, '/usr/share/doc/garrison', '/usr/share/doc/garrison/examples'].map(
        (path) => `drwxr-xr-x ${path}`,
      ),
    ]),
  )
  t.match((await runTool(['/usr/bin/rpm', '--checksig', rpm])).stdout, /digests OK/)
})

t.test('the .rpm needs what the runtime is linked with', async (t) => {
  const { stdout } = await runTool(['/usr/bin/rpm', '--query', '--package', '--requires', rpm])
  const needed = stdout.trim().split('\n')
  for (const library of ['libatomic.so.1', 'libc.so.6', 'libgcc_s.so.1', 'libstdc++.so.6'])
    t.ok(needed.includes(`${library}()(64bit)`), library)
  t.ok(needed.includes('systemd >= 247'))
})

t.test('maintainer scripts parse, and do nothing to a running system in an image build', async (t) => {
  const { stdout } = await runTool(['/usr/bin/rpm', '--query', '--package', '--scripts', rpm])
  const scriptlets = stdout.split(/^(?:post|pre)(?:un)?install scriptlet \(using \/bin\/sh\):$/m).slice(1)
  t.equal(scriptlets.length, 3)
  const scripts = await Promise.all(
    ['postinst', 'prerm', 'postrm'].map((name) => readFile(join(tree, 'DEBIAN', name), 'utf8')),
  )
  for (const script of [...scripts, ...scriptlets]) {
    await runTool(['/bin/sh', '-n'], { stdin: script })
    t.match(script, /^\s*(#!\/bin\/sh\n)?set -e\n/)
    t.match(script, /-d \/run\/systemd\/system/)
    // The daemon has nothing in hand; and a unit that does not start leaves no package half installed.
    t.notMatch(
      script,
      /systemctl(?! try-restart garrison\.service \|\|)[^\n]*restart|mdadm|lvremove|vgremove|wipefs|\/etc\/garrison/,
    )
    for (const [line] of script.matchAll(/^.*(?:invoke|systemctl) start.*$/gm)) t.match(line, / \|\| /)
  }
})

t.test('the executable is this version and does not obey NODE_OPTIONS', async (t) => {
  const env = { NODE_OPTIONS: '--require=/nonexistent.cjs' }
  const { stdout } = await runTool([executable, 'version'], { env })
  t.match(stdout, version)
})

t.test('the example is a valid desired document', async (t) => {
  const { stdout } = await runTool([
    executable,
    'check',
    '--json',
    join(tree, 'usr/share/doc/garrison/examples/host.yaml'),
  ])
  t.ok(JSON.parse(stdout))
})

t.test('completions and the man page are of this version', async (t) => {
  const share = join(tree, 'usr/share')
  await runTool(['/bin/bash', '-n', join(share, 'bash-completion/completions/garrison')])
  for (const path of ['zsh/vendor-completions/_garrison', 'fish/vendor_completions.d/garrison.fish'])
    t.match(await readFile(join(share, path), 'utf8'), 'apply')
  const page = gunzipSync(await readFile(join(share, 'man/man8/garrison.8.gz'))).toString()
  t.match(page, /^\.TH "?GARRISON"? "?8"?/im)
  t.match(page, version)
})

t.test('licences name the runtime and every package that the code imports', async (t) => {
  const text = await readFile(join(tree, 'usr/share/doc/garrison/THIRD-PARTY-LICENCES'), 'utf8')
  t.match(text, `Node.js ${process.version}`)
  const sources = globSync(`${root}/{agent,provisioning}/**/*.ts`)
  const code = (await Promise.all(sources.map((path) => readFile(path, 'utf8')))).join('\n')
  const imported = Object.keys(dependencies).filter((name) => code.includes(` from '${name}'`))
  t.ok(imported.length > 0)
  for (const name of imported) t.ok(text.includes(`${name} ${dependencies[name]} (`), name)
})

t.test('nothing tells where it was built', async (t) => {
  const text = (await readdir(tree, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
  for (const path of text) t.notOk((await readFile(path)).includes(`${root}/`), path)
})
