// Parsers of what package tools and os-release say, against answers of real machines.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { dpkgQuery, parseAptCachePolicy, parseDpkgQuery } from '../../provisioning/software/dpkg.ts'
import { parseOsRelease } from '../../provisioning/software/os-release.ts'
import { parseDnfRepoquery, parseRpmQuery } from '../../provisioning/software/rpm.ts'
import { distributionOf } from '../../provisioning/software/sets.ts'

const capture = (name: string): string =>
  readFileSync(new URL(`../../../shared/captures/packages/${name}`, import.meta.url), 'utf8')

t.test('os-release of each distribution', async (t) => {
  const of = (name: string) => parseOsRelease(capture(`os-release-${name}.txt`))
  t.same(of('debian12'), { id: 'debian', version: '12', name: 'Debian GNU/Linux 12 (bookworm)' })
  t.same(distributionOf(of('debian12')), { distribution: 'debian-12', family: 'apt' })
  t.same(distributionOf(of('ubuntu-24.04')), { distribution: 'ubuntu-24.04', family: 'apt' })
  for (const name of ['rocky-9.4', 'rhel96', 'alma96'])
    t.same(distributionOf(of(name)), { distribution: 'el-9', family: 'dnf' }, name)
  for (const name of ['rhel10', 'al2', 'facter-comment']) t.equal(distributionOf(of(name)), null, name)
  t.same(distributionOf(parseOsRelease('ID="amzn"\nVERSION_ID="2023"\n')), {
    distribution: 'amazon-2023',
    family: 'dnf',
  })
  t.equal(of('facter-comment').version, '8.6', 'comments between')
})

t.test('os-release: quotes, escapes, nothing', async (t) => {
  t.same(parseOsRelease(`ID='x'\nVERSION_ID=\nPRETTY_NAME="The \\"X\\" \\$5"\n`), {
    id: 'x',
    version: '',
    name: 'The "X" $5',
  })
  t.equal(parseOsRelease('BUILD_ID=7\nID=arch\n').name, 'arch')
  t.throws(() => parseOsRelease(''), { code: 'host.unexpected-answer' })
})

t.test('dpkg-query tells every way in which a package can be', async (t) => {
  t.match(dpkgQuery()[2], /db:Status-Eflag/)
  const packages = parseDpkgQuery(
    [
      'mdadm\tinstall\tok\tinstalled',
      'lvm2\thold\tok\tinstalled',
      'acl\tdeinstall\tok\tconfig-files',
      'cockpit\tinstall\tok\thalf-configured',
      'acpi\tunknown\treinstreq\thalf-installed',
      'man-db\tinstall\tok\ttriggers-pending',
      'libc6\tinstall\tok\tinstalled',
      'libc6\tinstall\tok\tunpacked',
      'libgcc\tinstall\tok\tunpacked',
      'libgcc\tinstall\tok\tinstalled',
      '',
    ].join('\n'),
  )
  const of = (name: string) => packages.get(name)
  t.same(of('mdadm'), { name: 'mdadm', held: false, condition: 'installed' })
  t.same(of('lvm2'), { name: 'lvm2', held: true, condition: 'installed' })
  t.equal(of('acl')?.condition, 'config-files')
  t.equal(of('cockpit')?.condition, 'half-configured')
  t.equal(of('acpi')?.condition, 'reinstall-required')
  t.equal(of('man-db')?.condition, 'triggers-pending')
  t.equal(of('libc6')?.condition, 'unpacked', 'the worse of two architectures, whichever comes last')
  t.equal(of('libgcc')?.condition, 'unpacked')
  t.equal(of('nano'), undefined)
  t.throws(() => parseDpkgQuery('mdadm install ok installed'), { code: 'host.unexpected-answer' })
})

t.test('apt-cache policy: with a candidate, without one, unknown', async (t) => {
  const stdout = `mdadm:
  Installed: (none)
  Candidate: 4.2-5
  Version table:
     4.2-5 500
        500 file:/archive bookworm/main amd64 Packages
mail-transport-agent:
  Installed: (none)
  Candidate: (none)
  Version table:
libstdc++6:
  Installed: 12.2.0-14+deb12u1
  Candidate: 12.2.0-14+deb12u1
  Version table:
`
  t.same([...parseAptCachePolicy(stdout)], ['mdadm', 'libstdc++6'])
  t.same([...parseAptCachePolicy('')], [])
})

t.test('rpm -q: what is not told is not taken for absent', async (t) => {
  const stdout = 'mdadm\npackage cockpit is not installed\n'
  t.same([...parseRpmQuery(['mdadm', 'cockpit'], { stdout, stderr: '' })], ['mdadm'])
  t.throws(
    () =>
      parseRpmQuery(['mdadm', 'lvm2'], {
        stdout: 'mdadm\n',
        stderr: 'error: rpmdb: damaged header #12 retrieved -- skipping.',
      }),
    { code: 'host.unexpected-answer', message: /lvm2.*damaged header/ },
  )
})

t.test('dnf repoquery: banner, duplicates, no metadata', async (t) => {
  const stdout = 'Amazon Linux 2023 repository banner\nmdadm\n\nmdadm\nlvm2\n'
  t.same([...(parseDnfRepoquery(['mdadm', 'lvm2', 'cockpit'], { exit: 0, stdout }) ?? [])], ['mdadm', 'lvm2'])
  t.equal(parseDnfRepoquery(['mdadm'], { exit: 1, stdout: '' }), null)
})
