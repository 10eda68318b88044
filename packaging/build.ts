// `npm run package`: builds dist/garrison, and a .deb and an .rpm of it with dpkg-deb and rpmbuild.
import { createHash } from 'node:crypto'
import { globSync } from 'node:fs'
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { manPage } from '../agent/api/man.ts'
import { runTool } from '../test/lab/processes.ts'
import { ensureOrLeave, packageRequirements } from '../test/lab/requirements.ts'
import { buildExecutable } from './executable.ts'
import { grafanaDashboard } from './grafana.ts'
import { thirdPartyLicences } from './licences.ts'

type Family = 'deb' | 'rpm'

/** One installed file: its path, its mode, and the file it is copied from or its content. */
interface Installed {
  path: string
  mode: number
  from?: string
  content?: string | Buffer
}

const root = dirname(import.meta.dirname)
const dist = join(root, 'dist')
// Folders get the modes that they are installed with.
process.umask(0o022)
await mkdir(dist, { recursive: true })
// Of this run alone: what is in dist is replaced whole and at the end, also while another builds or tests.
const work = await mkdtemp(join(dist, 'build-'))
const executable = join(work, 'garrison')
const architecture = { x64: { deb: 'amd64', rpm: 'x86_64' }, arm64: { deb: 'arm64', rpm: 'aarch64' } }[
  process.arch as 'x64' | 'arm64'
]

const progress = (line: string) => console.log(line)
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
const summary = 'Turns a bare metal host into a VM host and keeps it one'
const explanation = [
  'Garrison is the agent of a VM host: from one desired document it installs what',
  'a VM host needs, grows root to its disk, builds an array with its volumes over',
  'the unused drives, and says precisely why it did or refused each thing.',
]

/** Everything the package of a family installs. */
async function installed(family: Family, licences: string): Promise<Installed[]> {
  const units = (await readdir(join(root, 'systemd'), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
  const templates = await readdir(join(import.meta.dirname, 'templates'))
  const completion = async (shell: string) => (await runTool([executable, 'completion', shell])).stdout
  const zsh = family === 'deb' ? 'vendor-completions' : 'site-functions'
  const share = '/usr/share'
  const doc = `${share}/doc/garrison`
  return [
    { path: '/usr/bin/garrison', mode: 0o755, from: executable },
    ...units.map((from) => ({ path: from.slice(join(root, 'systemd').length), mode: 0o644, from })),
    {
      path: `${share}/man/man8/garrison.8.gz`,
      mode: 0o644,
      content: gzipSync(manPage(version), { level: 9 }),
    },
    {
      path: `${share}/bash-completion/completions/garrison`,
      mode: 0o644,
      content: await completion('bash'),
    },
    { path: `${share}/zsh/${zsh}/_garrison`, mode: 0o644, content: await completion('zsh') },
    {
      path: `${share}/fish/vendor_completions.d/garrison.fish`,
      mode: 0o644,
      content: await completion('fish'),
    },
    { path: `${doc}/copyright`, mode: 0o644, from: join(import.meta.dirname, 'debian', 'copyright') },
    { path: `${doc}/LICENSE`, mode: 0o644, from: join(root, 'LICENSE') },
    { path: `${doc}/THIRD-PARTY-LICENCES`, mode: 0o644, content: licences },
    { path: `${doc}/examples/host.yaml`, mode: 0o644, from: join(import.meta.dirname, 'host.yaml') },
    {
      path: `${share}/garrison/grafana-dashboard.json`,
      mode: 0o644,
      content: grafanaDashboard(),
    },
    ...templates.map((name) => ({
      path: `${share}/garrison/templates/${name}`,
      mode: 0o644,
      from: join(import.meta.dirname, 'templates', name),
    })),
  ]
}

/** Folders of its own that the package holds, empty or not. */
const folders = [
  '/etc/garrison',
  '/etc/garrison/host.d',
  '/etc/garrison/templates',
  '/usr/share/garrison',
  '/usr/share/garrison/templates',
  '/usr/share/doc/garrison',
  '/usr/share/doc/garrison/examples',
]

/** Lays the files out below `stage`. */
async function lay(stage: string, files: readonly Installed[]): Promise<void> {
  for (const folder of new Set([...folders, ...files.map((file) => dirname(file.path))])) {
    await mkdir(join(stage, folder), { recursive: true })
  }
  for (const { path, mode, from, content = '' } of files) {
    const to = join(stage, path)
    await (from === undefined ? writeFile(to, content) : copyFile(from, to))
    await chmod(to, mode)
  }
}

async function buildDeb(files: readonly Installed[], env: Record<string, string>): Promise<string> {
  const stage = join(work, 'deb')
  await lay(stage, files)
  const sums: string[] = []
  let sizeBytes = 0
  for (const { path } of files) {
    const content = await readFile(join(stage, path))
    sizeBytes += content.length
    sums.push(`${createHash('md5').update(content).digest('hex')}  ${path.slice(1)}\n`)
  }
  await mkdir(join(stage, 'DEBIAN'))
  await writeFile(join(stage, 'DEBIAN', 'md5sums'), sums.join(''), { mode: 0o644 })
  for (const script of ['postinst', 'prerm', 'postrm']) {
    await copyFile(join(import.meta.dirname, 'debian', script), join(stage, 'DEBIAN', script))
    await chmod(join(stage, 'DEBIAN', script), 0o755)
  }
  const control = [
    'Package: garrison',
    `Version: ${version}`,
    `Architecture: ${architecture.deb}`,
    'Maintainer: The Garrison authors <garrison@localhost.invalid>',
    `Installed-Size: ${Math.ceil(sizeBytes / 1024)}`,
    // What the runtime is linked with, and the systemd whose unit settings are used.
    'Depends: libatomic1, libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 7), systemd (>= 247), udev, util-linux',
    // What the network of the host is asked, changed and guarded with; a host without any of it is still a host.
    'Recommends: iproute2, iputils-ping, nftables',
    'Section: admin',
    'Priority: optional',
    `Description: ${summary}`,
    ...explanation.map((line) => ` ${line}`),
  ]
  await writeFile(join(stage, 'DEBIAN', 'control'), `${control.join('\n')}\n`, { mode: 0o644 })
  const output = join(work, `garrison_${version}_${architecture.deb}.deb`)
  const argv = ['/usr/bin/dpkg-deb', '--root-owner-group', '-Zzstd', '-z9', '--build', stage, output]
  await runTool(argv, { env })
  return output
}

async function buildRpm(files: readonly Installed[], env: Record<string, string>): Promise<string> {
  const stage = join(work, 'rpm')
  await lay(stage, files)
  const contents = join(work, 'rpm-contents')
  const lines = [
    ...folders.map((path) => `%attr(0755, root, root) %dir ${path}`),
    ...files.map(({ path, mode }) => `%attr(0${mode.toString(8)}, root, root) ${path}`),
  ]
  await writeFile(contents, `${lines.join('\n')}\n`)
  const defines = {
    _topdir: join(work, 'rpmbuild'),
    _rpmdir: work,
    _rpmfilename: '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm',
    version,
    summary,
    explanation: explanation.join('\n'),
    stage,
    contents,
  }
  const options = Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`])
  const spec = join(import.meta.dirname, 'garrison.spec')
  await runTool(['/usr/bin/rpmbuild', '-bb', '--target', architecture.rpm, ...options, spec], { env })
  return join(work, `garrison-${version}-1.${architecture.rpm}.rpm`)
}

await ensureOrLeave(progress, packageRequirements)
try {
  const inputs = await buildExecutable(root, work)
  const licences = await thirdPartyLicences(root, inputs)
  // Packages of one commit differ in V8's code caches only, whose hash seed is random: times in them are the commit's.
  const commit = await runTool(['/usr/bin/git', '-C', root, 'log', '-1', '--format=%ct'], {
    allowFailure: true,
  })
  const epoch = commit.exit === 0 ? commit.stdout.trim() : `${Math.floor(Date.now() / 1000)}`
  const env = { SOURCE_DATE_EPOCH: process.env.SOURCE_DATE_EPOCH ?? epoch }
  const built = await Promise.all([
    executable,
    installed('deb', licences).then((files) => buildDeb(files, env)),
    installed('rpm', licences).then((files) => buildRpm(files, env)),
  ])
  const kept = built.map((path) => join(dist, basename(path)))
  for (const [at, path] of built.entries()) await rename(path, kept[at] as string)
  for (const old of globSync(`${dist}/garrison*`)) if (!kept.includes(old)) await rm(old)
  for (const path of kept) progress(`${((await stat(path)).size / 1e6).toFixed(1)} MB  ${path}`)
} finally {
  await rm(work, { recursive: true })
}
