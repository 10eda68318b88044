// The verbs about VMs against real guests of QEMU: a boot sector that sends back what its serial port gets, and disks of a pool.

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { connectOpen } from '../../agent/node-libvirt/index.ts'
import type { VmSample } from '../../agent/report/sample.ts'
import { ended, linesOf, openDoors, start } from './doors.ts'
import { startLibvirtd } from './libvirtd.ts'

t.setTimeout(600_000)
const libvirtd = await startLibvirtd({ network: true })
t.teardown(() => libvirtd.stop())
const { folder, socketPath } = libvirtd
const uri = 'qemu:///system'
const connection = await connectOpen(uri, { socketPath, reconnect: { leastMs: 20, mostMs: 200 } })
const doors = await openDoors(libvirtd, uri)
t.teardown(async () => {
  connection.close()
  await doors.close()
})
const { garrison, json } = doors
const images = join(folder, 'images')
const main = join(import.meta.dirname, '../../agent/main.ts')

/** 16-bit code: wait until the first serial port has a byte, send it back, again. */
const echoing = Buffer.from('bafd03eca80174fbbaf803eceeebf1', 'hex')
const boot = Buffer.alloc(2 ** 20)
echoing.copy(boot)
boot.writeUInt16LE(0xaa55, 510)
mkdirSync(images)
writeFileSync(join(images, 'boot.img'), boot)

const qemuImg = (...args: readonly string[]) =>
  execFileSync('/usr/bin/qemu-img', [...args], { encoding: 'utf8' })

/** Defines a guest with a qcow2 of its own, in a folder of its own or beside the others. */
async function define(name: string, { own = false } = {}): Promise<void> {
  const place = own ? join(images, name) : images
  mkdirSync(place, { recursive: true })
  const disk = join(place, own ? 'root.qcow2' : `${name}.qcow2`)
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', join(images, 'boot.img'), disk)
  await connection.domainDefineXMLFlags({
    xml: `<domain type='qemu'><name>${name}</name>
      <memory unit='MiB'>64</memory><vcpu current='1'>2</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
      <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/>
          <target dev='hda' bus='ide'/></disk>
        <serial type='pty'><target port='0'/></serial><console type='pty'><target type='serial' port='0'/></console>
        <memballoon model='virtio'/></devices></domain>`,
  })
}

const vmOf = async (name: string) => {
  const { lines } = await json('read', 'vm', 'list')
  return lines[0].vms.find((vm: { name: string }) => vm.name === name)
}
const shown = async (name: string) => (await json('read', 'vm', 'show', name)).lines[0]

async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 30_000; !(await check()); await sleep(50))
    if (Date.now() > end) throw new Error(`${what} has not come about in 30 s`)
}

t.before(async () => {
  const pool = await connection.storagePoolDefineXML({
    xml: `<pool type='dir'><name>images</name><target><path>${images}</path></target></pool>`,
  })
  await connection.storagePoolCreate({ pool })
  const net = await connection.networkDefineXML({
    xml: "<network><name>lan</name><bridge name='gvmbr0' stp='off' delay='0'/></network>",
  })
  await connection.networkCreate({ net })
  for (const name of ['g1', 'g2', 'g3']) await define(name)
})

t.test('power and age', async (t) => {
  const started = await garrison('operate', 'vm', 'start', 'g1', 'g2')
  t.equal(started.exit, 0, started.stderr + started.stdout)
  const { runningSinceMs, power, id } = await vmOf('g1')
  t.equal(power, 'running')
  t.ok(id > 0)
  t.ok(Math.abs(Date.now() - runningSinceMs) < 120_000, 'since when it runs is known')
  t.equal((await json('read', 'vm', 'list', '--younger', '1h')).lines[0].vms.length, 2)
  t.equal((await json('read', 'vm', 'list', '--older', '1h')).lines[0].vms.length, 0)
  t.equal((await json('operate', 'vm', 'suspend', 'g2')).exit, 0)
  t.match(await vmOf('g2'), { power: 'paused', reason: 'user' })
  t.equal((await json('operate', 'vm', 'resume', 'g2')).exit, 0)
  const deaf = await json('operate', 'vm', 'stop', 'g2', '--timeout', '1s')
  t.equal(deaf.exit, 1)
  t.match(deaf.lines[2].problem, { code: 'vm.deadline', remedy: /garrison vm kill g2/ })
  t.equal((await vmOf('g2')).power, 'running', 'a guest that does not listen goes on')
  const forced = await json('operate', 'vm', 'stop', 'g2', '--timeout', '1s', '--kill')
  t.match(forced.lines[2], { event: 'done', text: 'killed, for it did not shut down' })
  t.equal((await vmOf('g2')).power, 'off')
})

/** What this host is called in records of owners. */
const here = readFileSync('/etc/machine-id', 'utf8').trim()

t.test('what may not be started is not', async (t) => {
  await define('g4', { own: true })
  const record = (host: string) =>
    writeFileSync(
      join(images, 'g4/owner-0000000001.json'),
      JSON.stringify({ schema: 'garrison.owner/1', vm: 'g4', epoch: 1, host, uuid: 'x' }),
    )
  record('i-1')
  const elsewhere = await json('operate', 'vm', 'start', 'g4')
  t.match(elsewhere.lines[2].problem, { code: 'vm.owned-elsewhere', message: /belongs to i-1/ })
  record(here)
  t.equal((await json('operate', 'vm', 'start', 'g4')).exit, 0)
  await json('operate', 'vm', 'kill', 'g4')
  execFileSync('/usr/bin/mv', [join(images, 'g4/root.qcow2'), join(images, 'g4/away')])
  const missing = await json('operate', 'vm', 'start', 'g4')
  t.match(missing.lines[2].problem, { code: 'vm.disk-missing' })
  execFileSync('/usr/bin/mv', [join(images, 'g4/away'), join(images, 'g4/root.qcow2')])
})

t.test('stats and logs', async (t) => {
  const { lines } = await json('read', 'vm', 'stats', '--once')
  t.match(lines[0], { silence: null, vms: [{ name: 'g1', power: { value: { power: 'running' } } }] })
  const [{ process: qemu, memory, disks }] = lines[0].vms
  t.ok(qemu.value.counters.perSecond.cpuMs > 50, 'the boot sector spins')
  t.ok(qemu.value.residentBytes > 2 ** 20)
  t.equal(memory.value.currentBytes, 64 * 2 ** 20)
  t.equal(disks.value[0].counters.perSecond.reads, 0)
  for (const { ageMs, stale } of [qemu, memory, disks])
    t.match({ ageMs, stale }, { ageMs: Number, stale: false })
  const page = await garrison('read', 'vm', 'stats', 'g1', '--once')
  t.match(page.stdout, /^name +cpu +memory +read +written +received +sent\ng1 +\d+(\.\d)? % +64\.?0?MiB/)
  const logs = await json('read', 'vm', 'logs', 'g1', '--lines', '3')
  t.ok(logs.lines.length > 0 && logs.lines.length <= 3)
  const whole = await garrison('read', 'vm', 'logs', 'g1')
  t.match(whole.stdout, /-name guest=g1/)
  const child = start(['vm', 'logs', 'g1', '--follow', '--lines', '1', '--socket', doors.socket('read')])
  const done = ended(child)
  let said = ''
  child.stdout?.on('data', (bytes) => {
    said += bytes
  })
  await until('the last line', () => said.length > 0)
  const log = join(folder, 'log/qemu/g1.log')
  writeFileSync(log, 'half a ', { flag: 'a' })
  writeFileSync(log, 'line \u001b[2J\n', { flag: 'a' })
  await until('the new line', () => said.includes('half a line \\x1b[2J\n'))
  child.kill('SIGINT')
  t.equal((await done).exit, 0)
})

t.test('stats wait for nobody who hangs', async (t) => {
  t.equal((await json('operate', 'vm', 'start', 'g3')).exit, 0)
  const pid = Number(readFileSync(join(folder, 'run/qemu/g3.pid'), 'utf8'))
  const child = start([
    'vm',
    'stats',
    'g1',
    'g3',
    '--every',
    '1s',
    '--json',
    '--socket',
    doors.socket('read'),
  ])
  const done = ended(child)
  const seen: { atMs: number; silence: string | null; vms: VmSample[] }[] = []
  createInterface({ input: child.stdout as Readable }).on('line', (line) => seen.push(JSON.parse(line)))
  const last = () => seen.at(-1)
  const vm = (name: string) => last()?.vms.find((one) => one.name === name)
  const hasRates = (name: string) => typeof vm(name)?.disks?.value[0]?.counters.perSecond?.reads === 'number'
  await until('rates of both', () => hasRates('g1') && hasRates('g3'))

  process.kill(pid, 'SIGSTOP')
  const stoppedMs = Date.now()
  await until('a verdict', () => (vm('g3')?.stuckSinceMs ?? null) !== null)
  const fromRound = seen.length
  await until('four more rounds', () => seen.length >= fromRound + 4)
  t.ok(vm('g3')?.disks?.stale, 'its numbers are old')
  t.ok((vm('g3')?.disks?.ageMs ?? 0) > 1000)
  t.ok(vm('g3')?.disks?.value[0]?.counters.total.reads, 'and none of them has become zero')
  t.notOk(vm('g3')?.process?.stale, 'the kernel still tells')
  t.notOk(vm('g1')?.disks?.stale, 'the others are asked all the time')
  t.equal(last()?.silence, null)
  const page = await garrison('read', 'vm', 'stats', 'g3', '--once')
  t.match(page.stdout, /^g3 .*not told: memory disks$/m, 'another question holds it')
  process.kill(pid, 'SIGCONT')

  await libvirtd.signal('SIGSTOP')
  await until('silence', () => typeof last()?.silence === 'string')
  await until('old disks', () => vm('g1')?.disks?.stale === true)
  t.ok((vm('g1')?.process?.value.counters.perSecond?.cpuMs ?? 0) > 0, 'the kernel tells all the same')
  t.notOk(vm('g1')?.process?.stale)
  await libvirtd.signal('SIGCONT')
  await until('an answer', () => last()?.silence === null)
  const gapMs = seen.slice(1).map(({ atMs }, at) => atMs - (seen[at]?.atMs ?? 0))
  t.comment(`rounds ${gapMs.join(' ')} ms apart, over ${Date.now() - stoppedMs} ms`)
  child.kill('SIGINT')
  t.equal((await done).exit, 0)
  await json('operate', 'vm', 'kill', 'g3')
})

t.test('set, at once where the guest allows it', async (t) => {
  const { lines } = await json(
    'operate',
    'vm',
    'set',
    'g1',
    '--cpus',
    '2',
    '--memory',
    '48MiB',
    '--add-tag',
    'env=prod',
  )
  t.match(lines[2], { event: 'done', changed: true }, lines[2].problem?.message)
  t.match(lines[2].text, /^2 processors at once; memory 48 MiB at once; tag env=prod$/)
  t.match(await vmOf('g1'), { tags: { env: 'prod' }, cpus: 2 })
  const more = await json('operate', 'vm', 'set', 'g1', '--cpus', '4', '--memory', '128MiB')
  t.match(
    more.lines[2].text,
    /^4 processors from its next start on \(not at once: .*\); memory 128 MiB from its next start on \(/,
  )
  t.equal((await json('operate', 'vm', 'set', '--tag', 'env=prod', '--remove-tag', 'env')).exit, 0)
  t.same((await vmOf('g1')).tags, {})
  t.equal((await json('operate', 'vm', 'restart', 'g1', '--timeout', '1s', '--kill')).exit, 0)
  t.match(await vmOf('g1'), { power: 'running', cpus: 4, memoryBytes: 128 * 2 ** 20 })
})

t.test('disks', async (t) => {
  const made = await garrison(
    ...([
      'operate',
      'vm',
      'disk',
      'attach',
      'g1',
      '--volume',
      'images/data.qcow2',
      '--size',
      '8MiB',
    ] as const),
  )
  t.equal(made.exit, 0, made.stderr + made.stdout)
  t.match(made.stdout, /is\s+vda\s+at\s+once/)
  t.match((await shown('g1')).model.disks.at(-1), { target: 'vda', bus: 'virtio', format: 'qcow2' })
  t.match((await shown('g1')).disks.vda, { capacityBytes: 8 * 2 ** 20 })
  const taken = await json('operate', 'vm', 'disk', 'attach', 'g2', '--volume', 'images/data.qcow2')
  t.match(taken.lines[2].problem, { code: 'vm.disk-in-use', message: /is a disk of g1/ })
  const grown = await json('operate', 'vm', 'disk', 'resize', 'g1', 'vda', '16MiB')
  t.match(grown.lines[2], { event: 'done', changed: true })
  t.equal((await shown('g1')).disks.vda.capacityBytes, 16 * 2 ** 20)
  t.match((await json('operate', 'vm', 'disk', 'resize', 'g1', 'vda', '8MiB')).lines[2].problem, {
    code: 'vm.disk-shrink',
  })
  const kept = await json('operate', 'vm', 'disk', 'detach', 'g1', 'vda', '--timeout', '1s')
  t.match(
    kept.lines[2].problem,
    { code: 'vm.deadline', message: /has not let go of vda/ },
    'no guest, no consent',
  )
  await json('operate', 'vm', 'restart', 'g1', '--timeout', '1s', '--kill')
  t.equal((await shown('g1')).model.disks.length, 1, 'from its next start on it is gone')
  t.ok(existsSync(join(images, 'data.qcow2')), 'what is on it is kept')

  t.equal((await json('operate', 'vm', 'disk', 'attach', 'g2', '--volume', 'images/data.qcow2')).exit, 0)
  t.equal((await json('operate', 'vm', 'disk', 'resize', 'g2', 'vda', '32MiB')).exit, 0, 'one that is off')
  t.match(qemuImg('info', join(images, 'data.qcow2')), /32 MiB/)
  t.equal((await json('operate', 'vm', 'disk', 'detach', 'g2', join(images, 'data.qcow2'))).exit, 0)
  t.match((await json('operate', 'vm', 'disk', 'detach', 'g2', 'vdq')).lines[2].problem, {
    code: 'request.no-such-part',
  })
  for (const [args, code] of [
    [['--path', '/etc/shadow', '--format', 'raw'], 'door.refused'],
    [['--volume', 'images/../../etc/shadow'], 'request.invalid'],
    [['--volume', 'images/..'], 'request.invalid'],
    [['--volume', 'images/data'], 'request.invalid'],
    [['--volume', 'images/data.qcow2', '--path', '/x'], 'door.refused'],
    [[], 'request.invalid'],
  ] as const)
    t.equal(
      (await json('operate', 'vm', 'disk', 'attach', 'g2', ...args)).lines[0].code,
      code,
      args.join(' '),
    )
  t.match(
    (await json('operate', 'vm', 'disk', 'attach', 'g2', '--volume', 'images/no.qcow2')).lines[2].problem,
    {
      code: 'request.no-such-part',
    },
  )
  const byPath = await json(
    'admin',
    'vm',
    'disk',
    'attach',
    'g2',
    '--path',
    join(images, 'data.qcow2'),
    '--read-only',
  )
  t.equal(byPath.exit, 0, 'root may name a path')
  await json('operate', 'vm', 'disk', 'detach', 'g2', 'vda')
})

t.test('NICs', async (t) => {
  const { lines } = await json('operate', 'vm', 'nic', 'attach', 'g1', '--network', 'lan')
  t.match(lines[2], { event: 'done', text: /^NIC 52:54:00:.* on network lan at once$/ })
  const [nic] = (await shown('g1')).model.nics
  t.match(nic, { source: { kind: 'network', at: 'lan' }, model: 'virtio' })
  t.same((await vmOf('g1')).networks, ['lan'])
  t.match((await json('operate', 'vm', 'nic', 'detach', 'g1', 'lan', '--timeout', '1s')).lines[2].problem, {
    code: 'vm.deadline',
  })
  const off = await json(
    'operate',
    'vm',
    'nic',
    'attach',
    'g2',
    '--network',
    'lan',
    '--mac',
    '52:54:00:AA:bb:01',
  )
  t.equal(off.exit, 0)
  t.equal((await json('operate', 'vm', 'nic', 'detach', 'g2', '52:54:00:aa:bb:01')).exit, 0)
  t.equal(
    (await json('operate', 'vm', 'nic', 'attach', 'g2', '--bridge', 'gvmbr0')).lines[0].code,
    'door.refused',
  )
  t.equal(
    (await json('operate', 'vm', 'nic', 'attach', 'g2', '--mac', 'ff:ff')).lines[0].code,
    'request.invalid',
  )
  t.match((await json('operate', 'vm', 'nic', 'detach', 'g2', 'lan')).lines[2].problem, {
    code: 'request.no-such-part',
  })
})

t.test('snapshots with memory', async (t) => {
  t.equal((await json('operate', 'vm', 'snapshot', 'create', 'g1', '--name', 's1')).exit, 0)
  t.match((await json('read', 'vm', 'snapshot', 'list', 'g1')).lines[0].snapshots, [
    { name: 's1', power: 'running', memory: true, current: true },
  ])
  const { lines } = await json('operate', 'vm', 'kill', 'g1')
  t.equal(lines.at(-1).done, 1)
  const refused = await json('operate', 'vm', 'delete', 'g1')
  t.equal(refused.exit, 1, 'libvirt keeps what has snapshots')
  const back = await json('admin', 'vm', 'snapshot', 'revert', 'g1', 's1')
  t.equal(back.exit, 0, JSON.stringify(back.lines))
  t.equal((await vmOf('g1')).power, 'running')
  t.equal((await json('operate', 'vm', 'snapshot', 'delete', 'g1', 's1')).exit, 0)
})

t.test('clone, rename and delete with disks', async (t) => {
  t.equal((await json('operate', 'vm', 'clone', 'g2', 'c2')).exit, 0)
  t.ok(existsSync(join(images, 'c2-hda.qcow2')))
  t.equal((await json('operate', 'vm', 'clone', 'g4', 'c4')).exit, 0)
  t.match(JSON.parse(readFileSync(join(images, 'c4/owner-0000000001.json'), 'utf8')), {
    vm: 'c4',
    host: here,
  })
  t.equal((await json('operate', 'vm', 'start', 'c2', 'c4')).exit, 0, 'clones boot')
  t.match((await json('operate', 'vm', 'clone', 'c4', 'c5')).lines[2].problem, { code: 'vm.wrong-power' })
  await json('operate', 'vm', 'kill', 'c2', 'c4')
  t.equal((await json('operate', 'vm', 'rename', 'c4', 'd4')).exit, 0)
  t.equal((await json('operate', 'vm', 'start', 'd4')).exit, 0, 'whose it is was recorded anew')
  await json('operate', 'vm', 'kill', 'd4')
  const shared = statSync(join(images, 'c2-hda.qcow2')).ino
  const gone = await json('admin', 'vm', 'delete', 'c2', 'd4', '--disks')
  t.equal(gone.exit, 0, JSON.stringify(gone.lines))
  t.ok(shared > 0)
  t.notOk(existsSync(join(images, 'c2-hda.qcow2')))
  t.notOk(existsSync(join(images, 'c4/root.qcow2')))
  t.ok(existsSync(join(images, 'g2.qcow2')), 'that of the first is kept')
  t.equal(await vmOf('c2'), undefined)
})

/** A console on a terminal of its own (script(1)); `type` is what the keyboard sends. */
function onTerminal(t: Test, ...args: readonly string[]) {
  const place = t.testdir({})
  const words = [process.execPath, main, 'vm', 'console', ...args, '--socket', doors.socket('operate')]
  const line = words.map((word) => `'${word}'`).join(' ')
  writeFileSync(
    join(place, 'run'),
    `stty -g > ${place}/before\nsh -c 'echo $$ > ${place}/pid; exec "$@"' sh ${line}\necho "exit $?"\nstty -g > ${place}/after\n`,
  )
  const child = spawn('/usr/bin/script', ['-q', '-c', `sh ${place}/run`, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH, TERM: 'xterm', USER: 'alice' },
  })
  // Whatever becomes of the test, nobody is left at a console.
  t.teardown(() => child.kill())
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const closed = new Promise((resolve) => child.once('close', resolve))
  const file = (name: string) => readFileSync(join(place, name), 'utf8').trim()
  return {
    place,
    said: () => said,
    type: (text: string) => child.stdin.write(text),
    pid: () => Number(file('pid')),
    /** Waits for the end; whether the terminal is as it was, and what the command ended with. */
    async left() {
      await closed
      return {
        restored: file('before') === file('after'),
        exit: Number(/exit (\d+)/.exec(said)?.[1] ?? Number.NaN),
      }
    },
  }
}

t.test('console', async (t) => {
  t.equal((await json('operate', 'vm', 'start', 'g2')).exit, 0)
  await sleep(3000)
  t.test('echoes, records, and leaves by its key', async (t) => {
    const cast = join(t.testdir({}), 'g2.cast')
    const seat = onTerminal(t, 'g2', '--record', cast)
    await until('the greeting', () => seat.said().includes('At g2; ^] leaves.'))
    seat.type('grüße\u0003\u001a')
    await until('the echo', () => seat.said().includes('grüße\u0003\u001a'))
    seat.type('\u001d')
    t.same(await seat.left(), { restored: true, exit: 0 })
    const [header, ...events] = linesOf(readFileSync(cast, 'utf8'))
    t.match(header, { version: 2, title: 'garrison vm console g2' })
    t.equal(events.map(([, kind, text]) => (kind === 'o' ? text : '')).join(''), 'grüße\u0003\u001a')
    t.ok(events.every(([seconds]) => typeof seconds === 'number' && seconds >= 0))
    t.equal(statSync(cast).mode & 0o777, 0o600)
    const again = await garrison('operate', 'vm', 'console', 'g2', '--record', cast)
    t.equal(again.exit, 1)
    t.match(again.stderr, /file\.exists/)
  })
  t.test('leaves by another key, and ^] is the guest’s', async (t) => {
    const seat = onTerminal(t, 'g2', '--escape', '^A')
    await until('the greeting', () => seat.said().includes('At g2; ^A leaves.'))
    seat.type('a\u001db')
    await until('the echo', () => seat.said().includes('a\u001db'))
    seat.type('\u0001')
    t.same(await seat.left(), { restored: true, exit: 0 })
  })
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const)
    t.test(`gives the terminal back at ${signal}`, async (t) => {
      const seat = onTerminal(t, 'g2')
      await until('the greeting', () => seat.said().includes('leaves.'))
      process.kill(seat.pid(), signal)
      t.match(await seat.left(), { restored: true, exit: 1 })
    })
  t.test('gives the terminal back when the VM ends', async (t) => {
    await json('operate', 'vm', 'start', 'g3')
    const seat = onTerminal(t, 'g3')
    await until('the greeting', () => seat.said().includes('leaves.'))
    await json('operate', 'vm', 'kill', 'g3')
    t.same(await seat.left(), { restored: true, exit: 0 })
    t.match(seat.said(), /The console of g3 has ended/)
  })
  t.test('is one person’s at a time, and can be taken', async (t) => {
    const seat = onTerminal(t, 'g2')
    await until('the greeting', () => seat.said().includes('leaves.'))
    const second = await garrison('operate', 'vm', 'console', 'g2')
    t.equal(second.exit, 1)
    t.match(second.stderr, /libvirt\.refused: .*[Aa]ctive console session/)
    const other = onTerminal(t, 'g2', '--force')
    await until('the greeting', () => other.said().includes('leaves.'))
    t.same(await seat.left(), { restored: true, exit: 0 })
    other.type('\u001d')
    t.same(await other.left(), { restored: true, exit: 0 })
  })
  t.test('carries a pipe, whole and in order', async (t) => {
    // The guest takes a byte at a time from an emulated UART.
    const text = Array.from({ length: 400 }, (_, index) => `${index} `).join('')
    const child = start(['vm', 'console', 'g2', '--escape', 'none', '--socket', doors.socket('operate')])
    const done = ended(child)
    let said = ''
    child.stdout?.on('data', (bytes) => {
      said += bytes
    })
    for (let at = 0; at < text.length; at += 64) {
      child.stdin?.write(text.slice(at, at + 64))
      await until('its echo', () => said.length >= Math.min(at + 64, text.length))
    }
    child.stdin?.end()
    const { exit, stdout } = await done
    t.equal(exit, 0)
    t.equal(stdout, text)
  })
  t.test('is refused where it must be', async (t) => {
    t.equal((await garrison('read', 'vm', 'console', 'g2')).exit, 3)
    t.match((await garrison('operate', 'vm', 'console', 'nobody')).stderr, /request\.no-such-vm/)
    t.match((await garrison('operate', 'vm', 'console', 'g3')).stderr, /vm\.wrong-power: g3 is off/)
    t.match((await garrison('operate', 'vm', 'console', 'g2', '--escape', 'x')).stderr, /request\.invalid/)
    t.match((await json('operate', 'vm', 'console', 'g2')).lines[0], {
      code: 'request.invalid',
      message: /HTTP upgrade/,
    })
    for (const [request, status] of [
      [
        'GET /v1/vm/list HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: garrison-session\r\n\r\n',
        400,
      ],
      ['GET /v1/vm/console HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n', 400],
      [
        'GET /v1/vm/console?args=%7B HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: garrison-session\r\n\r\n',
        400,
      ],
      [
        'GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: garrison-session\r\n\r\n',
        404,
      ],
    ] as const) {
      const raw = connect(doors.socket('admin'))
      let answer = ''
      raw.on('data', (bytes) => {
        answer += bytes
      })
      raw.write(request)
      await new Promise((resolve) => raw.once('close', resolve))
      t.match(answer, `HTTP/1.1 ${status} `, request)
    }
  })
  t.test('is in the journal', async (t) => {
    const { stdout } = await garrison('read', 'journal')
    t.match(stdout, /asked {5}vm console g2, for operate\.sock, says alice/)
    t.match(stdout, /begin {5}vms\.console g2: open its console/)
    t.match(stdout, /done {6}vms\.console g2 in/)
  })
})

t.test('a libvirt that does not answer', async (t) => {
  await json('operate', 'vm', 'kill', 'g1')
  await libvirtd.signal('SIGKILL')
  const list = await garrison('read', 'vm', 'list')
  t.equal(list.exit, 4)
  t.match(list.stderr, /libvirt\.unreachable: libvirt has not answered for \d+/)
  t.equal(list.stdout, '', 'unknown is not off')
  t.equal((await garrison('read', 'vm', 'show', 'g2')).exit, 4)
  t.equal((await garrison('operate', 'vm', 'kill', '--all')).exit, 4)
  await libvirtd.start()
  await until('libvirt', async () => (await garrison('read', 'vm', 'list')).exit === 0)
  t.equal((await vmOf('g2')).power, 'running', 'the guest has not noticed')
  await json('operate', 'vm', 'kill', 'g2')
})
