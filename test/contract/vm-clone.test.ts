// VMs cloned and restored beside themselves, over a real libvirtd: a seed of their own, and a clone that is cut short goes on.

import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import type { VmLine } from '../../agent/verbs/vm-batch.ts'
import { backupWorld } from './backup-world.ts'

const world = await backupWorld()
t.teardown(() => world.stop())
const { ask, libvirtd, pool, place, declare } = world

const network = join(libvirtd.folder, 'default.xml')
writeFileSync(network, "<network><name>default</name><bridge name='virbr0'/></network>")
ask('net-define', network)
ask('net-start', 'default')

const flat = (text: string) => text.replace(/\s+/g, ' ')
const clone = async (vm: string, name: string) => {
  const lines = await world.all<VmLine>('vm clone', { vm, name })
  return { exit: lines.at(-1)?.exit, text: flat(lines.map(({ text }) => text).join('\n')) }
}

/** The files of the seed that a VM is defined with. */
function seedOf(vm: string) {
  const [, path = ''] = /<source file='([^']*seed[^']*)'/.exec(ask('dumpxml', vm)) ?? []
  const folder = mkdtempSync(join(libvirtd.folder, 'seed-'))
  execFileSync('/usr/bin/xorriso', ['-osirrox', 'on', '-indev', path, '-extract', '/', join(folder, 's')], {
    stdio: 'ignore',
  })
  const textOf = (name: string) => readFileSync(join(folder, 's', name), 'utf8')
  return {
    path,
    user: textOf('user-data'),
    meta: parse(textOf('meta-data')),
    network: parse(textOf('network-config')),
  }
}
/** The files of a VM with a seed. */
const whole = ['owner-0000000001.json', 'root.qcow2', 'seed.iso', 'seed.iso.instance-id']

const macOf = (vm: string) => /<mac address='([^']*)'/.exec(ask('dumpxml', vm))?.[1]

t.test('a clone of a VM that has a seed is told its own name and MAC', async (t) => {
  const sshKeys = ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me']
  const cloudInit = { hostname: 'first', sshKeys, userData: { packages: ['nginx'] } }
  declare({ cloudInit, nics: { lan: {}, back: { addresses: ['192.0.2.7/24'] } }, power: 'off' })
  t.match((await world.apply()).line, { outcome: 'settled' })
  const old = seedOf('blank')
  t.match(old.meta, { 'local-hostname': 'first', 'public-keys': sshKeys })

  const made = await clone('blank', 'second')
  t.equal(made.exit, 0, made.text)
  t.match(made.text, /second is made like it; its seed is its own; its NICs ask DHCP/)
  const seed = seedOf('second')
  t.equal(seed.path, join(pool, 'second/seed.iso'))
  t.not(seed.meta['instance-id'], old.meta['instance-id'])
  t.match(seed.meta, { 'local-hostname': 'second', 'public-keys': sshKeys })
  t.equal(seed.user, old.user)
  t.not(macOf('second'), macOf('blank'))
  t.match(seed.network.ethernets, {
    lan: { match: { macaddress: macOf('second') }, dhcp4: true },
    back: { dhcp4: true },
  })
  t.notMatch(JSON.stringify(seed.network), /192\.0\.2\.7/)
  t.same(readdirSync(join(pool, 'second')).sort(), whole)
  t.equal(readFileSync(join(pool, 'second/seed.iso.instance-id'), 'utf8').trim(), seed.meta['instance-id'])

  const again = await clone('second', 'third')
  t.match(again.text, /third is made like it; its seed is its own( |$)/, 'also of one that nobody declared')
  t.match(seedOf('third').meta, { 'local-hostname': 'third' })
  t.equal(seedOf('third').network.ethernets.lan.match.macaddress, macOf('third'))

  writeFileSync(join(pool, 'third/seed.iso'), 'nothing that anybody can read')
  const odd = await clone('third', 'fourth')
  t.equal(odd.exit, 0, odd.text)
  t.match(odd.text, /it keeps the seed of third, which is not as Garrison makes them/)
  t.match(ask('dumpxml', 'fourth'), `<source file='${join(pool, 'third/seed.iso')}'`)
  const deleting = { names: ['second'], tag: [], all: false, disks: true }
  t.equal((await world.all<VmLine>('vm delete', deleting)).at(-1)?.exit, 0)
  t.same(readdirSync(join(pool, 'second')), ['owner-0000000001.json'], 'only whose it was is kept')
  for (const name of ['third', 'fourth']) ask('undefine', name)
})

t.test('a VM that is restored beside the old one is told its own name and MAC', async (t) => {
  const asked = { names: ['blank'], tag: [], all: false, to: place, full: false, freeze: false, init: true }
  const [backed] = (await world.all('vm backup', asked)).slice(-1)
  t.equal(backed?.exit, 0, backed?.text ?? '')
  const restored = { vm: 'blank', from: place, as: 'beside', overwrite: false }
  const last = (await world.all<{ seed: string }>('vm restore', restored)).at(-1)
  t.match(last, { exit: 0, line: { seed: /^its seed is its own; its NICs ask DHCP/ } }, last?.text ?? '')
  const seed = seedOf('beside')
  t.match(seed.meta, { 'local-hostname': 'beside' })
  t.equal(seed.network.ethernets.lan.match.macaddress, macOf('beside'))
  t.not(macOf('beside'), macOf('blank'))
  t.same(readdirSync(join(pool, 'beside')).sort(), whole.slice(1))

  const made = statSync(seed.path)
  const path = join(world.root, 'etc/garrison/host.yaml')
  const document = JSON.parse(readFileSync(path, 'utf8'))
  const { machines } = document.vms
  const { hostname: _, ...cloudInit } = machines.blank.cloudInit
  machines.beside = { ...machines.blank, cloudInit, nics: { lan: {}, back: {} } }
  writeFileSync(path, JSON.stringify(document))
  t.match((await world.apply()).line, { outcome: 'settled' })
  t.same(readdirSync(join(pool, 'beside')).sort(), whole, 'a declaration takes it up')
  t.match(statSync(seed.path), { ino: made.ino, mtimeMs: made.mtimeMs })

  const again = { vm: 'blank', from: place, overwrite: true }
  writeFileSync(join(pool, 'blank', 'seed.iso.instance-id'), 'a newer one')
  t.equal((await world.all('vm restore', again)).at(-1)?.exit, 0)
  t.notOk(
    existsSync(join(pool, 'blank', 'seed.iso.instance-id')),
    'an old seed does not count as the new one',
  )
  t.match((await world.apply()).line, { outcome: 'settled' })
  t.equal(seedOf('blank').meta['local-hostname'], 'first')
})

t.test('killed while the seed of a clone is made, nothing of that is left', async (t) => {
  const name = 'halved'
  const folder = join(pool, name)
  const within = () => readdirSync(folder).sort()
  for (const made of ['old', 'stage']) {
    let kill = () => {}
    const watcher = watch(pool, { recursive: true }, (_, path) => {
      if (path?.endsWith(`.${made}/user-data`)) kill()
    })
    await world.begin('vm clone', { vm: 'blank', name }, (_, agent) => {
      kill = () => agent.kill('SIGKILL')
    })
    watcher.close()
    t.match(within().join(), `seed.iso.cloning.${made}`)
    writeFileSync(join(folder, 'seed.iso.cloning'), 'of a run before that')
    const half = join(folder, `seed.iso.cloning.${made}`, '.user-data.0123456789ab.new')
    writeFileSync(half, 'of a write that was cut short')
  }
  const ended = await clone('blank', name)
  t.equal(ended.exit, 0, ended.text)
  t.same(within(), whole)

  // As it is when the kill comes after libvirt knows the clone, and the run before had been killed in the seed.
  for (const file of whole.slice(1)) {
    const cut = file.replace('seed.iso', 'seed.iso.cloning').replace('root.qcow2', 'root.qcow2.cloning')
    renameSync(join(folder, file), join(folder, cut))
  }
  for (const left of ['seed.iso.cloning.old', 'seed.iso.cloning.stage', 'seed.iso.stage']) {
    mkdirSync(join(folder, left))
    for (const half of ['user-data', '.meta-data.0123456789ab.new'])
      writeFileSync(join(folder, left, half), 'half of it')
  }
  for (const left of ['seed.iso.new', 'mine']) writeFileSync(join(folder, left), 'half of it')
  const deleting = { names: [name], tag: [], all: false, disks: true }
  t.equal((await world.all('vm delete', deleting)).at(-1)?.exit, 0)
  t.same(within(), ['mine', 'owner-0000000001.json'])
})

t.test('killed anywhere, the same clone goes on; what is not its own is left', async (t) => {
  const stride = process.env.GARRISON_LAB_FULL === '1' ? 1 : 7
  let kills = 0
  for (let nth = 0; ; nth += stride) {
    const name = `killed-${nth}`
    let [seen, isKilled, kill] = [0, false, () => {}]
    const watcher = watch(pool, { recursive: true }, () => {
      seen += 1
      if (seen > nth && !isKilled) kill()
    })
    await world.begin('vm clone', { vm: 'blank', name }, (_, agent) => {
      kill = () => {
        isKilled = agent.kill('SIGKILL')
      }
    })
    watcher.close()
    const files = () => readdirSync(join(pool, name)).sort()
    const isWhole = existsSync(join(pool, name)) && files().join() === whole.join()
    if (!isWhole) {
      const ended = await clone('blank', name)
      t.equal(ended.exit, 0, `after a kill at change ${nth}: ${ended.text}`)
    }
    t.same(files(), whole, `whole after a kill at change ${nth}`)
    const { uuid } = JSON.parse(readFileSync(join(pool, name, 'owner-0000000001.json'), 'utf8'))
    t.equal(ask('domuuid', name).trim(), uuid)
    t.equal(seedOf(name).network.ethernets.lan.match.macaddress, macOf(name))
    execFileSync('/usr/bin/qemu-img', [
      ...['compare', '-q', join(pool, 'blank/root.qcow2'), join(pool, name, 'root.qcow2')],
    ])
    if (nth === 0) t.match((await clone('blank', name)).text, /vm\.name-taken/)
    ask('undefine', name)
    if (nth === 0)
      t.match((await clone('blank', name)).text, /file\.exists/, 'what was kept is not written over')
    rmSync(join(pool, name), { recursive: true })
    if (!isKilled) break
    kills += 1
  }
  t.ok(kills > 2)
  t.comment(`${kills} kills`)
})
