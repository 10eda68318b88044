// node-libvirt against a real libvirtd with libvirt's test driver: every kind of object, events, streams, and what virsh says of the same.

import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import {
  type Connection,
  connectOpen,
  connectOpenReadOnly,
  domainListGetStats,
  LibvirtConnectionError,
  LibvirtError,
  VIR,
} from '../../agent/node-libvirt/index.ts'
import { startLibvirtd, virsh } from './libvirtd.ts'

const libvirtd = await startLibvirtd()
t.teardown(() => libvirtd.stop())
const { socketPath } = libvirtd
const uri = 'test:///default'
const open = (options = {}): Promise<Connection> => connectOpen(uri, { socketPath, ...options })
const asVirsh = (...args: readonly string[]) => virsh(socketPath, 'test+unix:///default', ...args)

const errorOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
  } catch (error) {
    if (error instanceof LibvirtError) return error.codeName
    if (error instanceof LibvirtConnectionError) return error.reason
    throw error
  }
  return 'no error'
}

const connection = await open()
t.teardown(() => connection.close())

t.test('the connection', async (t) => {
  t.equal(await connection.connectGetType(), 'TEST')
  t.equal(await connection.connectGetURI(), uri)
  t.ok((await connection.connectGetLibVersion()) > 8_000_000)
  t.equal(`${await connection.connectGetHostname()}\n`, asVirsh('hostname').replace(/\n+$/, '\n'))
  t.equal(await connection.connectIsSecure(), true)
  t.match(await connection.connectGetCapabilities(), /^<capabilities>/)
  t.match(await connection.connectGetSysinfo(), /^<sysinfo/)
  t.ok((await connection.connectGetCPUModelNames({ arch: 'x86_64' })).includes('Westmere'))
  t.match(await connection.nodeGetInfo(), { model: 'i686', memory: 3_145_728, cpus: 16, nodes: 2 })
  t.same(await connection.nodeGetCellsFreeMemory({ startCell: 0, maxcells: 2 }), [2_097_152, 4_194_304])
  t.match(await connection.nodeGetCPUStats({ cpuNum: -1, nparams: 4 }), { params: { user: 9_797_400_000 } })
  t.match(await connection.nodeGetSecurityModel(), { model: 'testSecurity' })
  t.equal(await errorOf(connection.connectListAllSecrets()), 'VIR_ERR_NO_SUPPORT')
  t.equal(await errorOf(connectOpen('nosuch:///x', { socketPath })), 'VIR_ERR_NO_CONNECT')
  t.equal(await errorOf(connectOpen(uri, { socketPath: `${socketPath}-none` })), 'no-socket')
})

t.test('a domain from definition to its end', async (t) => {
  const events: string[] = []
  const subscription = await connection.connectDomainEventRegisterAny('lifecycle', ({ dom, event, detail }) =>
    events.push(`${dom.name} ${event}.${detail}`),
  )
  const name = 'däté "x" <&>\''
  const xml = `<domain type='test'><name>${name.replace('&', '&amp;').replace('<', '&lt;')}</name>
    <memory unit='KiB'>65536</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>`
  const dom = await connection.domainDefineXMLFlags({ xml, flags: VIR.DOMAIN_DEFINE_VALIDATE })
  t.match(dom, { name, id: -1, uuid: /^[0-9a-f-]{36}$/ })
  t.same(await connection.domainLookupByUUID({ uuid: dom.uuid }), dom)
  t.same(await connection.domainLookupByName({ name }), dom)
  t.same(await connection.domainGetState({ dom }), {
    state: VIR.DOMAIN_SHUTOFF,
    reason: VIR.DOMAIN_SHUTOFF_UNKNOWN,
  })
  const started = await connection.domainCreateWithFlags({ dom })
  t.ok(started.id > 0)
  t.same(await connection.domainLookupByID({ id: started.id }), started)
  t.match(await connection.domainGetInfo({ dom }), {
    state: VIR.DOMAIN_RUNNING,
    maxMem: 65_536,
    memory: 65_536,
    nrVirtCpu: 1,
  })
  t.equal(await connection.domainGetXMLDesc({ dom }), asVirsh('dumpxml', dom.uuid).replace(/\n\n$/, '\n'))
  await connection.domainSuspend({ dom })
  await connection.domainResume({ dom })
  await connection.domainSetMemory({ dom, memory: 32_768 })
  t.match(await connection.domainGetInfo({ dom }), { memory: 32_768 })
  await connection.domainSetAutostart({ dom, autostart: true })
  t.equal(await connection.domainGetAutostart({ dom }), true)
  await connection.domainSetMetadata({ dom, type: VIR.DOMAIN_METADATA_TITLE, metadata: 'Größe' })
  t.equal(await connection.domainGetMetadata({ dom, type: VIR.DOMAIN_METADATA_TITLE }), 'Größe')
  t.equal(
    await errorOf(connection.domainGetMetadata({ dom, type: VIR.DOMAIN_METADATA_DESCRIPTION })),
    'VIR_ERR_NO_DOMAIN_METADATA',
  )
  await connection.domainManagedSave({ dom })
  t.equal(await connection.domainHasManagedSaveImage({ dom }), true)
  await connection.domainCreate({ dom })
  await connection.domainShutdownFlags({ dom })
  await connection.domainUndefineFlags({ dom, flags: VIR.DOMAIN_UNDEFINE_MANAGED_SAVE })
  t.equal(await errorOf(connection.domainGetXMLDesc({ dom })), 'VIR_ERR_NO_DOMAIN')
  await sleep(50)
  await subscription.deregister()
  t.same(
    events.map((line) => line.slice(name.length + 1)),
    ['0.0', '2.0', '3.0', '4.0', '5.4', '2.0', '5.0', '1.0'],
    'defined, started, suspended, resumed, saved, started, shut down, undefined',
  )
})

t.test('what a name, a text or a document may not be', async (t) => {
  t.equal(await errorOf(connection.domainLookupByName({ name: 'a\0b' })), 'invalid')
  t.equal(await errorOf(connection.domainLookupByName({ name: 'x'.repeat(4_194_305) })), 'invalid')
  t.equal(await errorOf(connection.domainLookupByName({ name: '../../etc/passwd' })), 'VIR_ERR_NO_DOMAIN')
  t.equal(await errorOf(connection.domainLookupByName({ name: 'x'.repeat(4_000_000) })), 'VIR_ERR_NO_DOMAIN')
  t.equal(await errorOf(connection.domainDefineXML({ xml: '<domain' })), 'VIR_ERR_XML_DETAIL')
  t.equal(await errorOf(connection.domainLookupByUUID({ uuid: 'x' })), 'invalid')
  t.ok(connection.connected)
})

t.test('snapshots', async (t) => {
  const dom = await connection.domainLookupByName({ name: 'test' })
  const snap = await connection.domainSnapshotCreateXML({
    dom,
    xml: '<domainsnapshot><name>one</name></domainsnapshot>',
  })
  t.match(snap, { name: 'one', dom: { name: 'test' } })
  await connection.domainSnapshotCreateXML({ dom, xml: '<domainsnapshot><name>two</name></domainsnapshot>' })
  t.same((await connection.domainListAllSnapshots({ dom })).map(({ name }) => name).sort(), ['one', 'two'])
  t.same(
    (await connection.domainSnapshotListAllChildren({ snap })).map(({ name }) => name),
    ['two'],
  )
  t.equal((await connection.domainSnapshotCurrent({ dom })).name, 'two')
  t.match(await connection.domainSnapshotGetXMLDesc({ snap }), /<name>one<\/name>/)
  await connection.domainRevertToSnapshot({ snap })
  t.equal(await connection.domainSnapshotIsCurrent({ snap }), true)
  await connection.domainSnapshotDelete({ snap, flags: VIR.DOMAIN_SNAPSHOT_DELETE_CHILDREN })
  t.same(await connection.domainListAllSnapshots({ dom }), [])
})

t.test('networks, pools, volumes, interfaces and devices, with their events', async (t) => {
  const heard: string[] = []
  const subscriptions = [
    await connection.connectNetworkEventRegisterAny('lifecycle', ({ net, event }) =>
      heard.push(`${net.name} ${event}`),
    ),
    await connection.connectStoragePoolEventRegisterAny('lifecycle', ({ pool, event }) =>
      heard.push(`${pool.name} ${event}`),
    ),
    await connection.connectStoragePoolEventRegisterAny('refresh', ({ pool }) =>
      heard.push(`${pool.name} refreshed`),
    ),
    await connection.connectNodeDeviceEventRegisterAny('lifecycle', ({ dev, event }) =>
      heard.push(`${dev.name} ${event}`),
    ),
  ]
  const net = await connection.networkDefineXML({
    xml: '<network><name>n</name><bridge name="nbr"/></network>',
  })
  await connection.networkCreate({ net })
  t.equal(await connection.networkGetBridgeName({ net }), 'nbr')
  t.same((await connection.connectListAllNetworks()).map(({ name }) => name).sort(), ['default', 'n'])
  t.equal(await connection.networkIsActive({ net }), true)
  await connection.networkDestroy({ net })
  await connection.networkUndefine({ net })

  const xml = '<pool type="dir"><name>p</name><target><path>/no/such/folder</path></target></pool>'
  const pool = await connection.storagePoolDefineXML({ xml })
  await connection.storagePoolCreate({ pool })
  await connection.storagePoolRefresh({ pool })
  const volXml = '<volume><name>v.img</name><capacity unit="GiB">9000000</capacity></volume>'
  t.match(
    await errorOf(connection.storageVolCreateXML({ pool, xml: volXml })),
    /^VIR_ERR_/,
    'more than there is',
  )
  const vol = await connection.storageVolCreateXML({ pool, xml: volXml.replace('9000000', '1') })
  t.match(vol, { pool: 'p', name: 'v.img', key: '/no/such/folder/v.img' })
  t.same(await connection.storagePoolListAllVolumes({ pool }), [vol])
  t.same(await connection.storageVolLookupByName({ pool, name: 'v.img' }), vol)
  t.same(await connection.storageVolLookupByKey({ key: vol.key }), vol)
  t.same(await connection.storageVolLookupByPath({ path: vol.key }), vol)
  t.match(await connection.storageVolGetInfo({ vol }), { type: VIR.STORAGE_VOL_FILE, capacity: 2 ** 30 })
  t.equal(await connection.storageVolGetPath({ vol }), vol.key)
  t.match(await connection.storagePoolGetInfo({ pool }), {
    state: VIR.STORAGE_POOL_RUNNING,
    capacity: 107_374_182_400,
  })
  await connection.storageVolDelete({ vol })
  await connection.storagePoolDestroy({ pool })
  await connection.storagePoolUndefine({ pool })

  t.same(await connection.connectListAllInterfaces(), [{ name: 'eth1', mac: 'aa:bb:cc:dd:ee:ff' }])
  const [iface] = await connection.connectListAllInterfaces()
  t.match(await connection.interfaceGetXMLDesc({ iface: iface as never }), /<interface/)
  const devices = (await connection.connectListAllNodeDevices()).map(({ name }) => name)
  t.ok(devices.includes('scsi_host1'))
  t.match(await connection.nodeDeviceGetXMLDesc({ name: 'scsi_host1' }), /<device>/)
  t.equal(await connection.nodeDeviceGetParent({ name: 'scsi_host1' }), 'computer')
  t.ok((await connection.nodeDeviceListCaps({ name: 'scsi_host1' })).includes('scsi_host'))
  await sleep(50)
  for (const subscription of subscriptions) await subscription.deregister()
  t.same(heard, ['n 0', 'n 2', 'n 3', 'n 1', 'p 0', 'p 2', 'p refreshed', 'p 3', 'p 1'])
})

t.test('statistics in shards', async (t) => {
  const doms = await connection.connectListAllDomains()
  const { records, failed } = await domainListGetStats(connection, doms, { flags: 0 })
  t.same(failed, [])
  t.match(records, [{ dom: { name: 'test' }, params: { 'state.state': VIR.DOMAIN_RUNNING } }])
  const refused = await domainListGetStats(connection, doms, {
    stats: VIR.DOMAIN_STATS_BLOCK,
    flags: VIR.CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS,
  })
  t.same(refused.records, [])
  t.match(refused.failed, [{ doms, error: { name: 'LibvirtError' } }])
  t.same(await domainListGetStats(connection, []), { records: [], failed: [] })
})

t.test('a picture of the screen comes as a stream', async (t) => {
  const dom = await connection.domainLookupByName({ name: 'test' })
  const stream = await connection.domainScreenshot({ dom })
  t.equal(stream.reply, 'image/png')
  const picture = await buffer(stream)
  t.same(picture.subarray(1, 4), Buffer.from('PNG'))
  t.same(picture.subarray(-8, -4), Buffer.from('IEND'))
})

t.test('only to read', async (t) => {
  const reader = await connectOpenReadOnly(uri, { socketPath: libvirtd.readOnlySocketPath })
  const [dom] = await reader.connectListAllDomains()
  t.match(dom, { name: 'test' })
  t.equal(await errorOf(reader.domainDestroy({ dom: dom as never })), 'VIR_ERR_OPERATION_DENIED')
  reader.close()
})

t.test('a crowd of calls for a while: no connection is lost', { timeout: 300_000 }, async (t) => {
  const flooded = await open({ keepalive: { intervalMs: 500, count: 2 } })
  const monitored: string[] = []
  flooded.on('disconnected', (error) => monitored.push(error.message))
  const [dom] = await flooded.connectListAllDomains()
  const endMs = performance.now() + Number(process.env.LIBVIRT_FLOOD_MS ?? 3000)
  let made = 0
  const callers = Array.from({ length: 200 }, async (_, index) => {
    while (performance.now() < endMs) {
      if (index % 3 === 0) await flooded.domainGetXMLDesc({ dom: dom as never })
      else if (index % 3 === 1) await flooded.connectGetCapabilities()
      else await flooded.domainGetInfo({ dom: dom as never })
      made += 1
    }
  })
  await Promise.all(callers)
  t.same(monitored, [])
  t.ok(flooded.connected)
  t.comment(`${made} calls`)
  t.ok(made > 1000, `${made} calls`)
  flooded.close()
})

t.test('libvirtd killed and stopped at any moment', { timeout: 120_000 }, async (t) => {
  const options = {
    keepalive: { intervalMs: 100, count: 3 },
    reconnect: { leastMs: 20, mostMs: 100 },
    deadlineMs: 3000,
  }
  const killed = await open(options)
  const heard: string[] = []
  await killed.connectDomainEventRegisterAny('lifecycle', ({ dom }) => heard.push(dom.name))
  const outcomes = new Map<string, number>()
  let ended = false
  const callers = Array.from({ length: 20 }, async () => {
    while (!ended) {
      const outcome = await errorOf(killed.connectListAllDomains())
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      if (outcome !== 'no error') await sleep(5)
    }
  })
  for (let round = 0; round < 3; round++) {
    const again = once(killed, 'readAgain')
    await sleep(17 * (round + 1))
    await libvirtd.signal('SIGKILL')
    await libvirtd.start()
    await again
  }
  const lost = once(killed, 'disconnected')
  await libvirtd.signal('SIGSTOP')
  t.match(await lost, [{ reason: 'silent' }])
  const back = once(killed, 'readAgain')
  await libvirtd.signal('SIGCONT')
  await back
  ended = true
  await Promise.all(callers)
  t.ok((outcomes.get('no error') ?? 0) > 0)
  const known = ['no error', 'lost', 'silent', 'no-socket', 'deadline']
  t.same(
    [...outcomes.keys()].filter((outcome) => !known.includes(outcome)),
    [],
    'and nothing else',
  )
  const dom = await killed.domainLookupByName({ name: 'test' })
  await killed.domainSuspend({ dom })
  await sleep(50)
  t.same(heard, ['test'], 'events come again, once')
  killed.close()
})
