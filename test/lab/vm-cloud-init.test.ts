// One VM through its whole life, with a real system in it: a small Debian with cloud-init, emulated (TCG), from a template that ships.

import { createHash } from 'node:crypto'
import { cpSync, createReadStream, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { parseCommandLine } from '../../agent/api/arguments.ts'
import { chance } from '../../agent/node-libvirt/test/chance.ts'
import { partsOf } from '../../agent/operate.ts'
import { vms } from '../../provisioning/vms/index.ts'
import { inContainer } from '../contract/container-host.ts'
import { serveParts, start } from '../contract/doors.ts'
import { vmsWorld } from '../contract/vms-world.ts'
import { cloudImage } from './cloud-image.ts'

t.setTimeout(3_600_000)
/** What a guest has to do may take that long on a machine that does much else. */
const patienceMs = 900_000
const began = performance.now()
const told = (what: string) => t.comment(`${what} after ${Math.round((performance.now() - began) / 1000)} s`)

const image = await cloudImage()
const world = await vmsWorld()
t.teardown(() => world.stop())
const { root, ask, libvirtd } = world
cpSync(join(import.meta.dirname, '../../packaging/templates'), join(root, 'usr/share/garrison/templates'), {
  recursive: true,
})
mkdirSync(join(root, 'doors'))
const parts = partsOf(root)
const doors = await serveParts(join(root, 'doors'), {
  ...parts,
  reader: inContainer(parts.reader),
  resources: [vms],
})
t.teardown(async () => {
  await doors.close()
  for (const use of ['control', 'monitor'] as const) (await parts.libvirt(use)).close()
})

async function until(what: string, check: () => unknown): Promise<void> {
  for (const end = Date.now() + patienceMs; !(await check()); await sleep(100))
    if (Date.now() > end) throw new Error(`${what} has not come about`)
}

/** Asks root's door; fails with all that was said unless it went well. */
async function garrison(...args: readonly string[]) {
  const { exit, lines } = await doors.json('admin', ...args)
  if (exit !== 0)
    throw new Error(
      `${args.join(' ')}: exit ${exit}\n${lines.map((line) => JSON.stringify(line)).join('\n')}`,
    )
  return lines
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const bytes of createReadStream(path)) hash.update(bytes)
  return hash.digest('hex')
}

const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpa nobody'
const checksum = `sha256:${await sha256(image)}`

const declaration = {
  accelerator: 'tcg',
  // libvirt 9 makes no snapshot with memory of a VM that boots by UEFI.
  firmware: 'bios',
  // What it offers more is only slower to emulate.
  cpuModel: 'Westmere',
  'nics.lan.addresses': '[192.0.2.7/24]',
  'cloudInit.hostname': 'seeded',
  'cloudInit.userData': JSON.stringify({
    users: ['default', { name: 'visitor', lock_passwd: false, shell: '/bin/bash' }],
    chpasswd: { expire: false, users: [{ name: 'visitor', password: 'welcome', type: 'text' }] },
    // One is enough for a guest that lives for minutes, and takes the least time to make.
    ssh_genkeytypes: ['ed25519'],
    final_message: 'All of the seed is done.',
  }),
}
const parameters = { image, checksum, sshKey: key, cpus: 1, memory: '512MiB', disk: '4GiB' }
const words = (flag: string, values: object) =>
  Object.entries(values).flatMap(([name, value]) => [flag, `${name}=${value}`])

/** A person at a console: what was said so far, and a way to type. */
function sit(vm: string) {
  const child = start([
    'vm',
    'console',
    vm,
    '--escape',
    'none',
    '--force',
    '--socket',
    doors.socket('operate'),
  ])
  let said = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  let complaint = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint += text
  })
  const type = (text: string) => child.stdin?.write(text)
  const hears = async (what: RegExp): Promise<string> => {
    try {
      await until(`${what} at the console of ${vm}`, () => what.test(said))
    } catch (error) {
      throw new Error(`${(error as Error).message} ${complaint}\n${said.slice(-3000)}`)
    }
    const heard = said
    said = ''
    return heard
  }
  return {
    type,
    hears,
    /** Logs in when nobody is logged in. */
    async login() {
      // Whoever asks for the name may not be there yet, and messages come behind the question.
      const typing = setInterval(() => type('\n'), 3000)
      await hears(/login: $/).finally(() => clearInterval(typing))
      type('visitor\n')
      await hears(/Password: /)
      type('welcome\n')
      await hears(/visitor@seeded:~\$ /)
    },
    /** Runs a command line and returns what it wrote. */
    async run(command: string): Promise<string> {
      type(`${command}; echo "=$?="\n`)
      const heard = await hears(/=\d+=\r?\n[^\n]*\$ $/)
      const [, exit] = /=(\d+)=/.exec(heard.replace(/.*echo "=\$\?="/, '')) ?? []
      if (exit !== '0') throw new Error(`${command}: ${heard}`)
      return heard
    },
    leave: () => child.kill('SIGTERM'),
  }
}

/** The last line of a batch: what became of the one VM. */
const made = (lines: Awaited<ReturnType<typeof garrison>>) => lines.find(({ event }) => event === 'done')

const seed = Number(process.env.GARRISON_SEED ?? Math.floor(Date.now() / 86_400_000))
const { below } = chance(seed)
/** So long after its first line the agent is killed; in a full run once for each, else once at any moment. */
const moments = (): readonly number[] =>
  process.env.GARRISON_LAB_FULL === '1' ? [0, 30, 100, 300, 800, 2000] : [below(800)]

/** Begins it in a process of its own, which is killed at a moment. */
async function cut(momentMs: number, ...args: readonly string[]): Promise<void> {
  const { verb, values } = parseCommandLine(args)
  let isDying = false
  await world.begin(verb ?? '', values, (_, agent) => {
    if (!isDying) setTimeout(() => agent.kill('SIGKILL'), momentMs)
    isDying = true
  })
}

/** Whether there is a snapshot of that name. */
const hasSnapshot = (name: string) => ask('snapshot-list', 'web', '--name').split('\n').includes(name)

t.test('a real VM, the agent killed in all that is done to it', async (t) => {
  t.comment(`GARRISON_SEED=${seed}`)
  const network = join(libvirtd.folder, 'network.xml')
  writeFileSync(network, "<network><name>default</name><bridge name='gvmbr0' stp='off' delay='0'/></network>")
  ask('net-define', network)
  ask('net-start', 'default')
  const dropIn = join(root, 'etc/garrison/host.d/vm-web.yaml')
  const isThereOnce = (what: string) => t.equal(world.emulators('web').length, 1, `${what}: it runs once`)

  writeFileSync(
    join(root, 'etc/garrison/host.yaml'),
    `version: 1\nvms: {pools: {images: {path: ${world.pool}}}}\n`,
  )
  const create = ['vm', 'create', 'web', '--template', 'linux-server']
  create.push(...words('--with', parameters), ...words('--set', declaration))
  for (const moment of moments()) {
    await cut(moment, ...create)
    t.ok(world.emulators('web').length <= 1)
  }
  await garrison(...(existsSync(dropIn) ? ['apply'] : create))
  isThereOnce('created')
  told('created')
  const first = sit('web')
  const boot = await first.hears(/All of the seed is done\./)
  told('cloud-init is done')
  await first.login()
  t.match(await first.run('cloud-init status --wait'), /status: done/)
  t.match(await first.run('hostname'), /^seeded/m, 'the host name of the seed')
  t.match(await first.run('ip -brief address'), /192\.0\.2\.7\/24/, 'the address of the seed')
  t.match(await first.run('df --output=size -BM / | tail -1'), /[34]\d{3}M/, 'root has grown to its disk')
  t.match(boot, /Authorized keys from .home.debian/, 'the key of the seed')
  first.leave()

  for (const moment of moments()) {
    await cut(moment, 'vm', 'snapshot', 'create', 'web', '--name', 'before')
    // libvirt goes on with what it was asked for; then it is there, and is not made again.
    const again = await doors.json('admin', 'vm', 'snapshot', 'create', 'web', '--name', 'before')
    t.ok(again.exit === 0 || /already exists/.test(JSON.stringify(again.lines)), 'made once')
    t.ok(hasSnapshot('before'))
    const before = sit('web')
    await before.run('echo lost > mark; sync')
    before.leave()
    await cut(moment, 'vm', 'snapshot', 'revert', 'web', 'before')
    await garrison('vm', 'snapshot', 'revert', 'web', 'before')
    const second = sit('web')
    await second.run('! test -e mark')
    second.leave()
    await cut(moment, 'vm', 'snapshot', 'delete', 'web', 'before')
    if (hasSnapshot('before')) await garrison('vm', 'snapshot', 'delete', 'web', 'before')
    t.notOk(hasSnapshot('before'))
  }
  isThereOnce('at the snapshot')
  told('back at the snapshot')

  const place = join(libvirtd.folder, 'backups')
  mkdirSync(place, { mode: 0o711 })
  const backup = ['vm', 'backup', 'web', '--to', place]
  for (const moment of moments()) await cut(moment, ...backup, '--init', '--full')
  const whole = made(await garrison(...backup, '--init', '--full'))
  t.match(whole?.backup.disks[0], { target: 'vda', kind: 'full' })
  const third = sit('web')
  await third.run('echo kept > mark; sync')
  third.leave()
  for (const moment of moments()) await cut(moment, ...backup, '--freeze')
  const change = made(await garrison(...backup, '--freeze'))
  t.match(change?.backup, { consistency: 'frozen' }, 'the guest agent answers')
  t.match(change?.backup.disks[0], { target: 'vda', kind: 'incremental' })
  t.ok(change?.backup.disks[0].fileBytes < whole?.backup.disks[0].fileBytes / 4)
  await garrison('vm', 'verify', place, 'web')
  isThereOnce('backed up')
  told('backed up twice')

  const stop = ['vm', 'stop', 'web', '--timeout', '300s']
  await cut(below(800), ...stop)
  await garrison(...stop)
  told('shut down')
  rmSync(dropIn)
  const disk = join(world.pool, 'web/root.qcow2')
  await cut(below(100), 'vm', 'delete', 'web')
  if (ask('list', '--all', '--name').trim() !== '') await garrison('vm', 'delete', 'web')
  t.ok(existsSync(disk), 'its disks are kept')

  const restore = ['vm', 'restore', 'web', '--from', place, '--overwrite']
  for (const moment of moments()) await cut(moment, ...restore)
  await garrison(...restore)
  told('restored')
  await cut(below(300), 'vm', 'start', 'web')
  await garrison('vm', 'start', 'web')
  isThereOnce('started')
  const fourth = sit('web')
  await fourth.hears(/seeded login: /)
  await fourth.login()
  t.match(await fourth.run('cat mark'), /kept/, 'the last change is in it')
  t.match(await fourth.run('ip -brief address'), /192\.0\.2\.7\/24/, 'it has the address of the seed')
  fourth.leave()
  told('and booted')

  await garrison('vm', 'kill', 'web')
  for (const moment of moments())
    if (ask('list', '--all', '--name').trim() !== '') await cut(moment / 8, 'vm', 'delete', 'web', '--disks')
  if (ask('list', '--all', '--name').trim() !== '') await garrison('vm', 'delete', 'web', '--disks')
  t.equal(ask('list', '--all', '--name').trim(), '')
  t.same(
    readdirSync(join(world.pool, 'web')).filter((name) => /qcow2|raw/.test(name)),
    [],
    'no disk is left',
  )
  told('deleted')
})
