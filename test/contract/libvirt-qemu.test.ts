// node-libvirt against real guests of QEMU: 32 MiB, no operating system but a boot sector that sends back what its serial port gets.

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import {
  connectOpen,
  type Domain,
  domainListGetStats,
  LibvirtConnectionError,
  LibvirtError,
  VIR,
} from '../../agent/node-libvirt/index.ts'
import { type Libvirtd, startLibvirtd } from './libvirtd.ts'

const mebibyte = 1024 * 1024

/** 16-bit code: wait until the first serial port has a byte, send it back, again. */
const echoing = Buffer.from('bafd03eca80174fbbaf803eceeebf1', 'hex')

const bootDisk = (): Buffer => {
  const disk = Buffer.alloc(mebibyte)
  echoing.copy(disk)
  disk.writeUInt16LE(0xaa55, 510)
  return disk
}

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
  } catch (error) {
    if (error instanceof LibvirtError) return error.codeName
    if (error instanceof LibvirtConnectionError) return error.reason
    throw error
  }
  return 'no error'
}

/** Waits until `check` answers something. */
async function until<T>(what: string, check: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(20)) {
    const found = await check()
    if (found !== undefined && found !== false) return found
  }
  throw new Error(`${what} has not come`)
}

const libvirtd = await startLibvirtd({ hostUuid: '11111111-2222-4333-8444-555555555555' })
t.teardown(() => libvirtd.stop())
const { folder, socketPath } = libvirtd
writeFileSync(join(folder, 'boot.img'), bootDisk())
const connection = await connectOpen('qemu:///system', {
  socketPath,
  reconnect: { leastMs: 20, mostMs: 200 },
  keepalive: { intervalMs: 1000, count: 5 },
})
t.teardown(() => connection.close())

const heard: { readonly kind: string; readonly event: Readonly<Record<string, unknown>> }[] = []
for (const kind of [
  'lifecycle',
  'reboot',
  'blockJob2',
  'jobCompleted',
  'deviceAdded',
  'agentLifecycle',
  'metadataChange',
] as const)
  await connection.connectDomainEventRegisterAny(kind, (event) => heard.push({ kind, event: { ...event } }))
const eventOf = (kind: string, part: Readonly<Record<string, unknown>>) =>
  until(`an event ${kind} ${JSON.stringify(part)}`, () =>
    heard.find(
      (one) => one.kind === kind && Object.entries(part).every(([name, value]) => one.event[name] === value),
    ),
  )

const guestXml = (name: string, disks = '') =>
  `<domain type='qemu'><name>${name}</name>
  <memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${folder}/boot.img'/>
      <target dev='hda' bus='ide'/><readonly/></disk>${disks}
    <serial type='pty'><target port='0'/></serial><console type='pty'><target type='serial' port='0'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <video><model type='vga'/></video><memballoon model='virtio'/>
  </devices></domain>`.replace('<readonly/>', '<shareable/>')

const define = (name: string, disks?: string): Promise<Domain> =>
  connection.domainDefineXMLFlags({ xml: guestXml(name, disks) })

t.test('the host', { timeout: 120_000 }, async (t) => {
  t.equal(await connection.connectGetType(), 'QEMU')
  t.match(await connection.connectGetDomainCapabilities({ virttype: 'qemu' }), /<domain>qemu<\/domain>/)
  const { nparams } = await connection.nodeGetMemoryStats({ cellNum: -1 })
  const { params } = await connection.nodeGetMemoryStats({ cellNum: -1, nparams })
  t.ok(Number(params.total) > 0)
  const cpus = await connection.nodeGetCPUStats({
    cpuNum: -1,
    nparams: (await connection.nodeGetCPUStats({ cpuNum: -1 })).nparams,
  })
  t.ok(Number(cpus.params.idle) > 0)
  t.ok((await connection.nodeGetCPUMap()).online > 0)
  t.equal((await connection.nodeGetFreePages({ pages: [4], startCell: 0, cellCount: 1 })).length, 1)
  t.ok((await connection.connectListAllInterfaces()).some(({ name }) => name === 'lo'))
  t.ok((await connection.connectListAllNodeDevices()).some(({ name }) => name === 'computer'))
  const usage = '<secret ephemeral="yes"><usage type="volume"><volume>/x</volume></usage></secret>'
  const told: string[] = []
  const subscriptions = [
    await connection.connectSecretEventRegisterAny('lifecycle', ({ event }) => told.push(`secret ${event}`)),
    await connection.connectSecretEventRegisterAny('valueChanged', ({ secret: of }) => told.push(of.usageID)),
  ]
  const secret = await connection.secretDefineXML({ xml: usage })
  await connection.secretSetValue({ secret, value: Buffer.from([0, 1, 255]) })
  t.same(await connection.secretGetValue({ secret }), Buffer.from([0, 1, 255]))
  t.same(
    await connection.secretLookupByUsage({ usageType: VIR.SECRET_USAGE_TYPE_VOLUME, usageID: '/x' }),
    secret,
  )
  await connection.secretUndefine({ secret })
  await until('the last event', () => told.length === 3 || undefined)
  for (const subscription of subscriptions) await subscription.deregister()
  t.same(told, ['secret 0', '/x', 'secret 1'])
  const net = await connection.networkDefineXML({
    xml: '<network><name>n</name><bridge name="nbr7"/></network>',
  })
  t.same(
    (await connection.connectListAllNetworks()).map(({ name }) => name),
    ['n'],
  )
  t.same(await connection.networkGetDHCPLeases({ net }), [])
  await connection.networkUndefine({ net })
})

t.test('volumes, and their bytes there and back', { timeout: 60_000 }, async (t) => {
  const pool = await connection.storagePoolDefineXML({
    xml: `<pool type='dir'><name>p</name><target><path>${folder}/pool</path></target></pool>`,
  })
  await connection.storagePoolBuild({ pool })
  await connection.storagePoolCreate({ pool })
  const raw = (name: string) =>
    connection.storageVolCreateXML({
      pool,
      xml: `<volume><name>${name}</name><capacity>${12 * mebibyte}</capacity><target><format type='raw'/></target></volume>`,
    })
  const vol = await raw('raw.img')
  const bytes = Buffer.alloc(12 * mebibyte)
  for (let index = 0; index < bytes.length; index += 4)
    bytes.writeUInt32LE((index * 2_654_435_761) >>> 0, index)
  await pipeline(Readable.from([bytes]), await connection.storageVolUpload({ vol, length: bytes.length }))
  t.ok(readFileSync(join(folder, 'pool/raw.img')).equals(bytes), 'all is in place when it is said to be')
  t.ok((await buffer(await connection.storageVolDownload({ vol }))).equals(bytes))
  const part = await buffer(await connection.storageVolDownload({ vol, offset: mebibyte, length: 1000 }))
  t.ok(part.equals(bytes.subarray(mebibyte, mebibyte + 1000)))

  const tooMuch = await connection.storageVolUpload({ vol, length: 100 })
  t.match(await codeOf(pipeline(Readable.from([bytes]), tooMuch)), /^VIR_ERR_/, 'more than was announced')
  const cut = await connection.storageVolDownload({ vol })
  await once(cut, 'readable')
  cut.destroy()
  await once(cut, 'close')
  t.equal(
    await codeOf(connection.storageVolDownload({ vol: { ...vol, name: 'no', key: 'no' } })),
    'VIR_ERR_NO_STORAGE_VOL',
  )
  t.match(await connection.storageVolGetInfo({ vol }), {
    type: VIR.STORAGE_VOL_FILE,
    capacity: 12 * mebibyte,
  })
  await connection.storageVolResize({ vol, capacity: 13 * mebibyte })
  const copy = await connection.storageVolCreateXMLFrom({
    pool,
    xml: '<volume><name>copy.img</name><capacity>0</capacity><target><format type="raw"/></target></volume>',
    clonevol: vol,
  })
  t.match(copy, { pool: 'p', name: 'copy.img' })
  await connection.storageVolDelete({ vol: copy })
  await connection.storageVolCreateXML({
    pool,
    xml: `<volume><name>a.qcow2</name><capacity>${16 * mebibyte}</capacity>
      <target><format type='qcow2'/><compat>1.1</compat></target></volume>`,
  })
  t.equal((await connection.storagePoolListAllVolumes({ pool })).length, 2)
})

t.test('one guest through its life', { timeout: 180_000 }, async (t) => {
  const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
    <source file='${folder}/pool/a.qcow2'/><target dev='vda' bus='virtio'/></disk>`
  const dom = await define('life', disk)
  t.match(await connection.domainGetState({ dom }), { state: VIR.DOMAIN_SHUTOFF })
  const { id } = await connection.domainCreateWithFlags({ dom, flags: VIR.DOMAIN_START_PAUSED })
  t.ok(id > 0)
  t.same(await connection.domainGetState({ dom }), {
    state: VIR.DOMAIN_PAUSED,
    reason: VIR.DOMAIN_PAUSED_USER,
  })
  await connection.domainResume({ dom })
  await eventOf('lifecycle', { event: VIR.DOMAIN_EVENT_RESUMED })

  await t.test('its console, both ways', async (t) => {
    const pty = await connection.domainOpenConsole({ dom })
    let got = ''
    pty.on('data', (chunk: Buffer) => {
      got += chunk.toString()
    })
    await until('an echo', async () => {
      if (!got.includes('x')) pty.write('x')
      return got.includes('x') || undefined
    })
    got = ''
    pty.write('hello, guest\n')
    t.ok(await until('the text', () => got.includes('hello, guest\n') || undefined))
    t.equal(await codeOf(connection.domainOpenConsole({ dom })), 'VIR_ERR_OPERATION_FAILED', 'one at a time')
    const taken = new Promise((resolve) => pty.once('error', resolve))
    const other = await connection.domainOpenConsole({ dom, flags: VIR.DOMAIN_CONSOLE_FORCE })
    t.match(await taken, { codeName: 'VIR_ERR_RPC' }, 'which another may take over')
    other.end()
    other.resume()
    await finished(other)
  })

  await t.test('what it is and has', async (t) => {
    t.match(await connection.domainGetInfo({ dom }), {
      state: VIR.DOMAIN_RUNNING,
      memory: 32_768,
      nrVirtCpu: 1,
    })
    t.match(await connection.domainGetXMLDesc({ dom, flags: VIR.DOMAIN_XML_INACTIVE }), /<name>life<\/name>/)
    t.ok((await connection.domainMemoryStats({ dom })).length > 0)
    t.match(await connection.domainGetBlockInfo({ dom, path: 'vda' }), { capacity: 16 * mebibyte })
    t.match(await connection.domainBlockStatsFlags({ dom, path: 'hda' }), { rd_bytes: Number })
    t.match(await connection.domainGetControlInfo({ dom }), { state: 0 })
    t.match(await connection.domainGetVcpus({ dom, maxinfo: 4, maplen: 1 }), { info: [{ number: 0 }] })
    const { records } = await domainListGetStats(connection, [dom], {
      stats: VIR.DOMAIN_STATS_STATE | VIR.DOMAIN_STATS_BLOCK,
    })
    t.match(records, [{ params: { 'state.state': VIR.DOMAIN_RUNNING, 'block.count': 2 } }])
    const picture = await buffer(await connection.domainScreenshot({ dom }))
    t.ok(picture.length > 1000)
    t.match(
      await connection.qemuDomainMonitorCommand({ dom, cmd: '{"execute":"query-status"}' }),
      /"running":true/,
    )
    t.equal(
      await codeOf(connection.qemuDomainAgentCommand({ dom, cmd: '{"execute":"guest-ping"}', timeout: 1 })),
      'VIR_ERR_AGENT_UNRESPONSIVE',
    )
    t.equal(await codeOf(connection.domainFSFreeze({ dom })), 'VIR_ERR_AGENT_UNRESPONSIVE')
  })

  await t.test('changes while it runs', async (t) => {
    const live = VIR.DOMAIN_AFFECT_LIVE | VIR.DOMAIN_AFFECT_CONFIG
    const xml = "<interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>"
    await connection.domainAttachDeviceFlags({ dom, xml, flags: live })
    await eventOf('deviceAdded', { devAlias: 'net0' })
    t.match(await connection.domainGetXMLDesc({ dom }), /52:54:00:00:00:01/)
    await connection.domainDetachDeviceFlags({ dom, xml, flags: VIR.DOMAIN_AFFECT_CONFIG })
    t.notMatch(
      await connection.domainGetXMLDesc({ dom, flags: VIR.DOMAIN_XML_INACTIVE }),
      /52:54:00:00:00:01/,
    )
    await connection.domainSetMemoryFlags({ dom, memory: 16_384, flags: VIR.DOMAIN_AFFECT_LIVE })
    await connection.domainSetVcpusFlags({
      dom,
      nvcpus: 3,
      flags: VIR.DOMAIN_VCPU_MAXIMUM | VIR.DOMAIN_AFFECT_CONFIG,
    })
    t.equal(
      await connection.domainGetVcpusFlags({
        dom,
        flags: VIR.DOMAIN_VCPU_MAXIMUM | VIR.DOMAIN_AFFECT_CONFIG,
      }),
      3,
    )
    await connection.domainSetMetadata({
      dom,
      type: VIR.DOMAIN_METADATA_ELEMENT,
      metadata: '<tags>a &amp; b</tags>',
      key: 'g',
      uri: 'urn:g',
      flags: live,
    })
    await eventOf('metadataChange', { nsuri: 'urn:g' })
    t.match(
      await connection.domainGetMetadata({ dom, type: VIR.DOMAIN_METADATA_ELEMENT, uri: 'urn:g' }),
      /a &amp; b/,
    )
    const monitor = await connection.qemuConnectDomainMonitorEventRegister(
      (event) => heard.push({ kind: 'monitor', event: { ...event } }),
      { dom, event: 'RESET' },
    )
    await connection.domainReset({ dom })
    await eventOf('reboot', {})
    t.match(await eventOf('monitor', { event: 'RESET' }), { event: { details: /guest/ } })
    await monitor.deregister()
  })

  await t.test('jobs on its disk', async (t) => {
    await connection.domainBlockResize({
      dom,
      disk: 'vda',
      size: 32 * mebibyte,
      flags: VIR.DOMAIN_BLOCK_RESIZE_BYTES,
    })
    t.match(await connection.domainGetBlockInfo({ dom, path: 'vda' }), { capacity: 32 * mebibyte })
    const xml = `<domainsnapshot><name>s</name><disks><disk name='hda' snapshot='no'/>
      <disk name='vda' snapshot='external'/></disks></domainsnapshot>`
    await connection.domainSnapshotCreateXML({
      dom,
      xml,
      flags: VIR.DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR.DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
    })
    await connection.domainBlockCommit({ dom, disk: 'vda', flags: VIR.DOMAIN_BLOCK_COMMIT_ACTIVE })
    await eventOf('blockJob2', { dst: 'vda', status: VIR.DOMAIN_BLOCK_JOB_READY })
    const job = await connection.domainGetBlockJobInfo({ dom, path: 'vda' })
    t.match(job, { found: true, type: VIR.DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT })
    t.equal(job.cur, job.end)
    await connection.domainBlockJobAbort({ dom, path: 'vda', flags: VIR.DOMAIN_BLOCK_JOB_ABORT_PIVOT })
    t.match(await connection.domainGetBlockJobInfo({ dom, path: 'vda' }), { found: false })

    const destxml = `<disk type='file'><source file='${folder}/copy.qcow2'/><driver type='qcow2'/></disk>`
    await connection.domainBlockCopy({
      dom,
      path: 'vda',
      destxml,
      params: [{ field: 'bandwidth', type: 'ullong', value: 1_000_000_000 }],
      flags: VIR.DOMAIN_BLOCK_COPY_TRANSIENT_JOB,
    })
    await connection.domainBlockJobSetSpeed({ dom, path: 'vda', bandwidth: 500 })
    await connection.domainBlockJobAbort({ dom, path: 'vda' })
    t.ok(existsSync(join(folder, 'copy.qcow2')))

    const of = (name: string) => `<domaincheckpoint><name>${name}</name><disks>
      <disk name='vda' checkpoint='bitmap'/><disk name='hda' checkpoint='no'/></disks></domaincheckpoint>`
    const first = await connection.domainCheckpointCreateXML({ dom, xml: of('c1') })
    heard.length = 0
    await connection.domainBackupBegin({
      dom,
      backupXML: `<domainbackup><incremental>c1</incremental><disks><disk name='vda' type='file'>
        <driver type='qcow2'/><target file='${folder}/backup.qcow2'/></disk><disk name='hda' backup='no'/></disks></domainbackup>`,
      checkpointXML: of('c2'),
    })
    await eventOf('jobCompleted', {})
    t.match(await connection.domainGetJobStats({ dom, flags: VIR.DOMAIN_JOB_STATS_COMPLETED }), {
      params: { success: true, operation: VIR.DOMAIN_JOB_OPERATION_BACKUP },
    })
    t.same((await connection.domainListAllCheckpoints({ dom })).map(({ name }) => name).sort(), ['c1', 'c2'])
    t.match(await connection.domainCheckpointLookupByName({ dom, name: 'c2' }), { name: 'c2' })
    t.equal(
      (await connection.domainCheckpointGetParent({ checkpoint: { name: 'c2', dom } })).name,
      first.name,
    )
    for (const name of ['c1', 'c2']) await connection.domainCheckpointDelete({ checkpoint: { name, dom } })
  })

  await t.test('saved and there again, then gone', async (t) => {
    await connection.domainManagedSave({ dom })
    t.equal(await connection.domainHasManagedSaveImage({ dom }), true)
    t.match(await connection.domainGetState({ dom }), {
      state: VIR.DOMAIN_SHUTOFF,
      reason: VIR.DOMAIN_SHUTOFF_SAVED,
    })
    await connection.domainCreateWithFlags({ dom })
    t.match(await connection.domainGetState({ dom }), {
      state: VIR.DOMAIN_RUNNING,
      reason: VIR.DOMAIN_RUNNING_RESTORED,
    })
    const to = join(folder, 'saved')
    await connection.domainSaveFlags({ dom, to, flags: VIR.DOMAIN_SAVE_PAUSED })
    t.match(await connection.domainSaveImageGetXMLDesc({ file: to }), /<name>life<\/name>/)
    await connection.domainRestoreFlags({ from: to })
    t.match(await connection.domainGetState({ dom }), { state: VIR.DOMAIN_PAUSED })
    await connection.domainDestroyFlags({ dom })
    await eventOf('lifecycle', {
      event: VIR.DOMAIN_EVENT_STOPPED,
      detail: VIR.DOMAIN_EVENT_STOPPED_DESTROYED,
    })
    await connection.domainUndefineFlags({ dom })
    t.equal(await codeOf(connection.domainGetState({ dom })), 'VIR_ERR_NO_DOMAIN')
  })
})

t.test('the examples of the README run as they are', { timeout: 120_000 }, async (t) => {
  const pool = await connection.storagePoolDefineXML({
    xml: `<pool type='dir'><name>images</name><target><path>${folder}/images</path></target></pool>`,
  })
  await connection.storagePoolBuild({ pool })
  await connection.storagePoolCreate({ pool })
  writeFileSync(join(folder, 'disk.img'), bootDisk())
  const dom = await define('web')
  await connection.domainCreate({ dom })
  const readme = readFileSync(join(import.meta.dirname, '../../agent/node-libvirt/README.md'), 'utf8')
  const examples = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, text = '']) => text)
  t.equal(examples.length, 5)
  const client = join(import.meta.dirname, '../../agent/node-libvirt/index.ts')
  for (const [index, text] of examples.entries()) {
    const file = join(folder, `example-${index}.ts`)
    const here = text
      .replaceAll("'/tmp/", `'${folder}/`)
      .replace("'node-libvirt'", `'${client}'`)
      .replace("'qemu:///system'", `'qemu+unix:///system?socket=${socketPath}'`)
    writeFileSync(file, here)
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
      encoding: 'utf8',
      timeout: 30_000,
    })
    t.equal(status, 0, `example ${index}: ${stderr}`)
    t.not(stdout, '', `example ${index}`)
  }
  t.ok(readFileSync(join(folder, 'copy.img')).equals(bootDisk()))
  await connection.domainDestroy({ dom })
  await connection.domainUndefineFlags({ dom })
})

t.test('a running guest migrates to another libvirtd', { timeout: 120_000 }, async (t) => {
  const other: Libvirtd = await startLibvirtd({
    hostUuid: '66666666-7777-4888-9999-aaaaaaaaaaaa',
    like: libvirtd,
  })
  try {
    const there = await connectOpen('qemu:///system', { socketPath: other.socketPath, reconnect: false })
    const dom = await define('traveller')
    await connection.domainCreate({ dom })
    const flags =
      VIR.MIGRATE_LIVE |
      VIR.MIGRATE_PEER2PEER |
      VIR.MIGRATE_UNSAFE |
      VIR.MIGRATE_PERSIST_DEST |
      VIR.MIGRATE_UNDEFINE_SOURCE
    await connection.domainMigratePerform3Params({
      dom,
      dconnuri: `qemu+unix:///system?socket=${other.socketPath}`,
      params: [{ field: 'migrate_uri', type: 'string', value: 'tcp://127.0.0.1' }],
      flags,
    })
    t.equal(await codeOf(connection.domainGetState({ dom })), 'VIR_ERR_NO_DOMAIN')
    const arrived = await there.domainLookupByUUID({ uuid: dom.uuid })
    t.same(await there.domainGetState({ dom: arrived }), {
      state: VIR.DOMAIN_RUNNING,
      reason: VIR.DOMAIN_RUNNING_MIGRATED,
    })
    await there.domainDestroy({ dom: arrived })
    there.close()
  } finally {
    await other.stop()
  }
})

t.test(
  'libvirtd killed and stopped: guests live on, and are there again',
  { timeout: 120_000 },
  async (t) => {
    const doms = await Promise.all(['k1', 'k2', 'k3'].map((name) => define(name)))
    for (const dom of doms) await connection.domainCreateWithFlags({ dom, flags: VIR.DOMAIN_START_PAUSED })
    const pids = doms.map(({ name }) => Number(readFileSync(join(folder, `run/qemu/${name}.pid`), 'utf8')))
    for (let round = 0; round < 2; round++) {
      const again = once(connection, 'readAgain')
      const calls = doms.map((dom) =>
        codeOf(connection.domainSave({ dom, to: join(folder, 'never') }, { deadlineMs: 20_000 })),
      )
      await sleep(round * 40)
      await libvirtd.signal('SIGKILL')
      for (const code of await Promise.all(calls)) t.ok(['lost', 'no error'].includes(code), code)
      t.equal(await codeOf(connection.connectListAllDomains()), 'lost')
      await libvirtd.start()
      await again
      const running = await connection.connectListAllDomains({ flags: VIR.CONNECT_LIST_DOMAINS_ACTIVE })
      t.ok(running.length > 0, `${running.length} of 3 are there, the others were saved meanwhile`)
      for (const dom of doms)
        if (!running.some(({ name }) => name === dom.name)) {
          const isThere = existsSync(`/proc/${pids[doms.indexOf(dom)]}`)
          t.notOk(isThere, `${dom.name} does not run without libvirt knowing`)
          await connection.domainCreateWithFlags({ dom, flags: VIR.DOMAIN_START_PAUSED })
          pids[doms.indexOf(dom)] = Number(readFileSync(join(folder, `run/qemu/${dom.name}.pid`), 'utf8'))
        }
    }
    heard.length = 0
    const [first] = doms as [Domain]
    await connection.domainResume({ dom: first })
    await eventOf('lifecycle', { event: VIR.DOMAIN_EVENT_RESUMED })

    await libvirtd.signal('SIGSTOP')
    const stuck = await Promise.all([
      codeOf(connection.domainGetState({ dom: first }, { deadlineMs: 200 })),
      codeOf(connection.domainGetXMLDesc({ dom: first }, { signal: AbortSignal.timeout(300) })),
    ])
    t.same(stuck, ['deadline', 'aborted'])
    await libvirtd.signal('SIGCONT')
    t.match(
      await connection.domainGetState({ dom: first }),
      { state: VIR.DOMAIN_RUNNING },
      'on the same connection',
    )
    t.ok(connection.connected)
  },
)
