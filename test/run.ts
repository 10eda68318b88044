// Runs everything that CI runs, one stage after the other, and ends with the line `N passed, N failed`.
//
//   node test/run.ts [--full] [STAGE …]     --full: the long enumerations whole instead of a seeded sample

import { execFileSync, spawn } from 'node:child_process'
import { createWriteStream, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { ensureOrLeave, packageRequirements, requirements } from './lab/requirements.ts'
import { sample, seed } from './lab/sample.ts'

/** Coverage in per cent of statements below which the run fails; the lab runs the executable and is not counted. */
const coverageAtLeast = 80

/** What unit and contract tests run beside what the lab and the package want. */
const tools = [
  { package: 'busybox', path: '/usr/bin/busybox' },
  { package: 'dosfstools', path: '/usr/sbin/mkfs.vfat' },
  { package: 'dnsmasq-base', path: '/usr/sbin/dnsmasq' },
  { package: 'fdisk', path: '/usr/sbin/sfdisk' },
  { package: 'groff-base', path: '/usr/bin/groff' },
  { package: 'iproute2', path: '/usr/sbin/ip' },
  { package: 'iputils-ping', path: '/usr/bin/ping' },
  { package: 'libvirt-clients', path: '/usr/bin/virsh' },
  { package: 'libvirt-daemon-system', path: '/usr/sbin/libvirtd' },
  { package: 'libxml2-utils', path: '/usr/bin/xmllint' },
  { package: 'mount', path: '/usr/sbin/losetup' },
  { package: 'mtools', path: '/usr/bin/mcopy' },
  { package: 'nftables', path: '/usr/sbin/nft' },
  { package: 'openssl', path: '/usr/bin/openssl' },
  // Firmware for guests that boot by UEFI.
  { package: 'ovmf', path: '/usr/share/OVMF/OVMF_CODE_4M.fd' },
  { package: 'python3-yaml', path: '/usr/lib/python3/dist-packages/yaml/__init__.py' },
  // moto, which stands for the APIs of AWS, is installed into a venv.
  { package: 'python3-venv', path: '/usr/share/python-wheels' },
  { package: 'strace', path: '/usr/bin/strace' },
  { package: 'syslinux', path: '/usr/bin/syslinux' },
  { package: 'syslinux-common', path: '/usr/lib/syslinux/mbr/mbr.bin' },
  { package: 'systemd', path: '/usr/bin/systemd-socket-activate' },
  { package: 'systemd-container', path: '/usr/bin/systemd-nspawn' },
  { package: 'xorriso', path: '/usr/bin/xorriso' },
]

const outputFolder = 'dist/test'

interface Tally {
  passed: number
  failed: number
}

/** The first lines of what each failed test said, for the end of the run: where a log is long, that is what is read. */
const failures: string[][] = []
const mostLines = 16
const legible = (line: string) => line.replaceAll(/(\\0|\0)+/g, '…').slice(0, 200)

interface Stage {
  readonly name: string
  readonly argv: readonly string[]
  /** TAP is counted test by test; anything else is one test that passes when it exits with 0. */
  readonly tap?: true
  /** What else the start of the stage says. */
  readonly note?: string
}

const full = process.argv.includes('--full')
const asked = process.argv.slice(2).filter((word) => !word.startsWith('--'))

const tapRun = (files: readonly string[], options: readonly string[]): readonly string[] => [
  'tap',
  'run',
  '--reporter=tap',
  '--allow-incomplete-coverage',
  ...options,
  '--',
  ...files,
]

const testsIn = (folder: string): readonly string[] => globSync(`${folder}/**/*.test.ts`).sort()

const wholeJob = 'test/lab/bare-host.test.ts'
const otherScenarios = testsIn('test/lab').filter((file) => file !== wholeJob)
/** Of the scenarios in the lab's emulated guests one, beside the whole job: two of them may take longer than that does. */
const drawnScenarios = full ? otherScenarios : sample(otherScenarios, 1)

const stages: readonly Stage[] = [
  { name: 'types', argv: ['tsc', '--noEmit'] },
  { name: 'format', argv: ['biome', 'check', '--error-on-warnings'] },
  { name: 'unused', argv: ['knip'] },
  { name: 'tap', argv: ['tap', 'build'] },
  { name: 'package', argv: ['node', 'packaging/build.ts'] },
  {
    name: 'tests',
    argv: tapRun(
      // The long ones first.
      [
        'test/contract',
        'test/unit',
        'test/plan',
        'test/observe',
        'test/rules',
        'agent/node-libvirt/test',
      ].flatMap(testsIn),
      ['--jobs=2', '--timeout=900'],
    ),
    tap: true,
  },
  {
    name: 'lab',
    note: `seed ${seed}: the whole job and ${drawnScenarios.length} of ${otherScenarios.length} others: ${drawnScenarios.join(', ')}`,
    argv: tapRun([wholeJob, ...drawnScenarios], ['--jobs=2', '--timeout=30000', '--disable-coverage']),
    tap: true,
  },
]

async function run(stage: Stage): Promise<Tally> {
  const { name, argv } = stage
  const [program = '', ...args] = argv
  const tally: Tally = { passed: 0, failed: 0 }
  const file = `${outputFolder}/${name}.txt`
  const whole = createWriteStream(file)
  const startedMs = performance.now()
  process.stdout.write(`# ${name}: ${argv.slice(0, 3).join(' ')}${argv.length > 3 ? ' …' : ''}\n`)
  if (stage.note) console.log(`# ${stage.note}`)
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      PATH: `${process.cwd()}/node_modules/.bin:${process.env.PATH}`,
      ...(full && {
        GARRISON_LAB_FULL: '1',
        GARRISON_FUZZ: '1000000',
        LIBVIRT_FUZZ: '1000000',
        PEERS_FUZZ: '1000000',
        LIBVIRT_FLOOD_MS: '120000',
      }),
    },
  })
  const exited = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(signal ? 1 : (code ?? 1)))
  })
  child.stderr.on('data', (chunk: Buffer) => {
    whole.write(chunk)
    process.stderr.write(chunk)
  })
  let coverage: number | null = null
  let diagnosing = false
  for await (const line of createInterface({ input: child.stdout })) {
    whole.write(`${line}\n`)
    if (!stage.tap) {
      console.log(line)
      continue
    }
    const [, indent = '', not] = /^( *)(not )?ok \d+/.exec(line) ?? []
    const skipped = / # (SKIP|TODO)\b/i.test(line)
    if (/^ *(not )?ok \d+/.test(line)) {
      diagnosing = not !== undefined || skipped
      if (diagnosing) failures.push([])
    }
    const said = failures.at(-1)
    if (diagnosing && said !== undefined && said.length < mostLines) said.push(legible(line))
    if (diagnosing || (indent === '' && /^(not )?ok /.test(line)) || line.startsWith('    #'))
      console.log(line)
    const [, total, failed] = /^# \{ total: (\d+)(?:.*?fail: (\d+))?.*\}/.exec(line) ?? []
    if (total !== undefined) {
      tally.failed += Number(failed ?? 0)
      tally.passed += Number(total) - Number(failed ?? 0)
    }
    if (skipped) tally.failed += 1
    const [, statements] = /^All files +\| +([0-9.]+)/.exec(line) ?? []
    if (statements !== undefined) coverage = Number(statements)
  }
  const exit = await exited
  whole.end()
  if (!stage.tap) tally[exit === 0 ? 'passed' : 'failed'] += 1
  else if (tally.passed + tally.failed === 0 || (exit !== 0 && tally.failed === 0)) tally.failed += 1
  if (coverage !== null) {
    console.log(`# coverage: ${coverage} % of statements, at least ${coverageAtLeast} % wanted`)
    tally[coverage >= coverageAtLeast ? 'passed' : 'failed'] += 1
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  console.log(
    `# ${name}: ${tally.passed} passed, ${tally.failed} failed in ${seconds} s (whole output: ${file})`,
  )
  return tally
}

/** Puts the result of a full run in the place of the last one in docs/proof.md. */
function keepResult({ passed, failed }: Tally): void {
  const page = 'docs/proof.md'
  const commit = execFileSync('/usr/bin/git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim()
  const line = `Last full run: ${new Date().toISOString().slice(0, 10)}, commit ${commit}: ${passed} passed, ${failed} failed.`
  writeFileSync(page, readFileSync(page, 'utf8').replace(/^Last full run: .*$/m, line))
}

mkdirSync(outputFolder, { recursive: true })
const unknown = asked.filter((name) => !stages.some((stage) => stage.name === name))
if (unknown.length > 0)
  throw new Error(`no such stage: ${unknown.join(', ')}; there are ${stages.map((s) => s.name).join(', ')}`)
await ensureOrLeave(console.log, [...packageRequirements, ...requirements, ...tools])
const total: Tally = { passed: 0, failed: 0 }
const chosen = stages.filter(({ name }) => asked.length === 0 || asked.includes(name))
if (process.getuid?.() !== 0 && chosen.some(({ name }) => name === 'tests')) {
  const others = stages.flatMap(({ name }) => (name === 'tests' ? [] : name))
  console.error(
    `The stage tests makes network namespaces, containers and mounts, which only root can: sudo npm test\n` +
      `The others run as you are: npm test -- ${others.join(' ')}`,
  )
  process.exit(1)
}
for (const stage of stages) {
  // What runs under tap cannot start before it is built.
  if (!chosen.includes(stage) && !(stage.name === 'tap' && chosen.some(({ tap }) => tap))) continue
  const { passed, failed } = await run(stage)
  total.passed += passed
  total.failed += failed
}
if (full) keepResult(total)
for (const lines of failures) console.log(lines.join('\n'))
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 ? 0 : 1
