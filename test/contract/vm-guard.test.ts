// The guard of VMs on shared storage: libvirt asks it before each start, its own at boot among them, and starts none of another host.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type Connection, connectOpen, LibvirtError, VIR } from '../../agent/node-libvirt/index.ts'
import { element, printXml } from '../../provisioning/libvirt/xml.ts'
import { guardPath, guardText } from '../../provisioning/vms/guard.ts'
import { startLibvirtd } from './libvirtd.ts'

const here = readFileSync('/etc/machine-id', 'utf8').trim()
const elsewhere = 'i-0123456789abcdef0'

const libvirtd = await startLibvirtd()
t.teardown(() => libvirtd.stop())

// As it is written on a host, but for where the executable is.
const hook = join(libvirtd.folder, 'conf', guardPath.slice('/etc/libvirt/'.length))
const program = join(import.meta.dirname, '../../dist/garrison')
if (!existsSync(program)) throw new Error(`${program} is not there: npm run package`)
mkdirSync(join(hook, '..'), { recursive: true })
const putGuard = () => writeFileSync(hook, guardText.replace('/usr/bin/garrison', program), { mode: 0o755 })
putGuard()

/** libvirt looks for hooks when it begins; what it has started by itself since the boot it remembers in a file that a boot takes away. */
async function boot(): Promise<void> {
  await libvirtd.signal('SIGKILL')
  rmSync(join(libvirtd.folder, 'run/qemu/autostarted'), { force: true })
  await libvirtd.start()
}
await boot()

async function withLibvirt<Result>(use: (connection: Connection) => Promise<Result>): Promise<Result> {
  const connection = await connectOpen('qemu:///system', { socketPath: libvirtd.socketPath })
  try {
    return await use(connection)
  } finally {
    connection.close()
  }
}

const folderOf = (disk: string) => join(libvirtd.folder, 'pool', disk)

/** Writes the record of an epoch; `text` instead of one when it is to be damaged. */
function record(disk: string, epoch: number, host: string, text?: string): void {
  const owner = {
    schema: 'garrison.owner/1',
    vm: disk,
    epoch,
    host,
    uuid: `of ${disk}`,
  }
  writeFileSync(
    join(folderOf(disk), `owner-${String(epoch).padStart(10, '0')}.json`),
    text ?? JSON.stringify(owner),
  )
}

/** Defines a VM that runs nothing, with the disks of these folders. */
function define(name: string, ...disks: readonly string[]) {
  const devices = disks.map((disk, at) => {
    const path = join(folderOf(disk), 'root.raw')
    mkdirSync(folderOf(disk), { recursive: true })
    writeFileSync(path, Buffer.alloc(2 ** 20))
    return element('disk', { type: 'file', device: 'disk' }, [
      element('driver', { name: 'qemu', type: 'raw' }, []),
      element('source', { file: path }, []),
      element('target', { dev: `vd${'abc'[at]}`, bus: 'virtio' }, []),
    ])
  })
  const xml = printXml(
    element('domain', { type: 'qemu' }, [
      element('name', {}, [name]),
      element('memory', { unit: 'MiB' }, ['16']),
      element('os', {}, [element('type', { arch: 'x86_64', machine: 'pc' }, ['hvm'])]),
      element('devices', {}, devices),
    ]),
  )
  return withLibvirt((connection) => connection.domainDefineXMLFlags({ xml }))
}

const isOn = (name: string) =>
  withLibvirt(async (connection) => {
    const { state } = await connection.domainGetState({ dom: await connection.domainLookupByName({ name }) })
    return state !== VIR.DOMAIN_SHUTOFF
  })

/** Starts it, paused; answers why not, on one line, or null. */
const start = (name: string) =>
  withLibvirt(async (connection) => {
    try {
      const dom = await connection.domainLookupByName({ name })
      await connection.domainCreateWithFlags({ dom, flags: VIR.DOMAIN_START_PAUSED })
      return null
    } catch (error) {
      if (LibvirtError.is(error, 'VIR_ERR_HOOK_SCRIPT_FAILED')) return error.message.replace(/\s+/g, ' ')
      throw error
    }
  })

const kill = (name: string) =>
  withLibvirt(async (connection) =>
    connection.domainDestroy({ dom: await connection.domainLookupByName({ name }) }),
  )

t.test('a VM is started here as long as no record names another host', async (t) => {
  await define('web', 'web')
  t.equal(await start('web'), null, 'without any record')
  await kill('web')
  record('web', 1, here)
  t.equal(await start('web'), null, 'with one of this host')
  await kill('web')
  record('web', 2, elsewhere)
  const refusal = await start('web')
  t.match(refusal, `web belongs to ${elsewhere}, says ${folderOf('web')}`)
  t.match(refusal, 'garrison vm take', 'with what can be done')
  t.notOk(await isOn('web'))
  record('web', 3, here)
  t.equal(await start('web'), null, 'taken back')
  await kill('web')
  record('web', 4, '', '{"schema":')
  t.match(await start('web'), `the record of the owner of web in ${folderOf('web')} cannot be read`)
})

t.test('libvirt starts none of another host at boot, and the others', async (t) => {
  for (const name of ['ours', 'theirs']) {
    const dom = await define(name, name)
    await withLibvirt((connection) => connection.domainSetAutostart({ dom, autostart: true }))
  }
  record('ours', 1, here)
  record('theirs', 1, here)
  record('theirs', 2, elsewhere)
  await boot()
  for (const end = Date.now() + 30_000; !(await isOn('ours')); await sleep(100)) if (Date.now() > end) break
  t.ok(await isOn('ours'))
  // They are started one after the other: the second is judged when a third is on.
  await define('later', 'later')
  t.equal(await start('later'), null)
  await sleep(2000)
  t.notOk(await isOn('theirs'))

  record('ours', 2, elsewhere)
  await libvirtd.signal('SIGKILL')
  await libvirtd.start()
  const suspended = withLibvirt(async (connection) =>
    connection.domainSuspend({ dom: await connection.domainLookupByName({ name: 'ours' }) }),
  )
  await t.resolves(suspended, 'one that runs is not ended by it when libvirt begins anew')
  await kill('ours')
})

t.test('a VM that was given the disks of other VMs', async (t) => {
  await define('rescue', 'web', 'theirs')
  record('web', 6, here)
  t.match(await start('rescue'), `rescue belongs to ${elsewhere}`)
  record('theirs', 3, here)
  t.equal(await start('rescue'), null, 'which is of this host')
  await kill('rescue')
})

t.test('names that look like flags, words and paths', async (t) => {
  const names = ['--help', '--json', '-x', 'libvirt-hook', "a' $(b)"]
  for (const [at, name] of names.entries()) {
    const disk = `hostile-${at}`
    await define(name, disk)
    record(disk, 1, elsewhere)
    t.type(await start(name), 'string', name)
    t.notOk(await isOn(name))
    record(disk, 2, here)
    t.equal(await start(name), null, name)
    await kill(name)
  }
})

t.test('where it is in the way it can be removed', async (t) => {
  record('web', 7, elsewhere)
  t.match(await start('web'), elsewhere)
  rmSync(hook)
  t.equal(await start('web'), null)
  await kill('web')
  putGuard()
})
