// The NoCloud seed: what its files say to the YAML reader that cloud-init uses, and that the image made of them holds those bytes.

import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { LinuxHost } from '../../agent/host/linux-host.ts'
import { LinuxPerformer } from '../../agent/host/perform.ts'
import {
  type CloudInit,
  cloudInitSchema,
  type Seed,
  type SeedNic,
  type SeedTexts,
  seedActions,
  seedMark,
  seedOf,
  seedOfAnother,
} from '../../provisioning/vms/seed.ts'
import { noCloud } from './no-cloud.ts'

// Each image is made and read back by a process of its own.
t.setTimeout(180_000)

const key = (type: string, bytes = 32): string => {
  const field = (content: Buffer) => {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(content.length)
    return Buffer.concat([length, content])
  }
  return `${type} ${Buffer.concat([field(Buffer.from(type)), field(Buffer.alloc(bytes, 7))]).toString('base64')}`
}

const cloudInit = (declared: object): CloudInit => cloudInitSchema.parse(declared)

const textOf = (seed: Seed, name: string): string => seed.files.find((one) => one.name === name)?.text ?? ''

/** Values as PyYAML, which cloud-init reads with, has them. */
const asPython = (text: string): unknown =>
  JSON.parse(
    execFileSync(
      '/usr/bin/python3',
      ['-c', 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin.buffer.read()), sys.stdout)'],
      { input: text, encoding: 'utf8', env: { PYTHONIOENCODING: 'utf-8' }, maxBuffer: 2 ** 26 },
    ),
  )

const dhcp = { addresses: [], gateways: [], nameservers: [] }
const lan = { ...dhcp, mac: '52:54:00:12:34:56' }

/** Texts that YAML 1.1 would take for something else, or that end what they are in. */
const hostile = [
  'yes',
  'no',
  'on',
  'null',
  '~',
  '0777',
  '1e3',
  '12:30:45',
  '52:54:00:12:34:56',
  '2026-11-21',
  '.inf',
  '=',
  '<<',
  '!!python/object/apply:os.system ["id"]',
  '*alias',
  '&anchor',
  '- item',
  '# comment',
  'a: b',
  '"',
  "'",
  '\\',
  '\\u0041',
  '---\n...\n',
  ' leading and trailing ',
  'line\nline\n\n',
  '\ttab\r\n',
  '\u0000\u0001\u001b[2J\u007f',
  '\u0080\u0085\u009f\u00a0',
  '\u2028\u2029\ufeff\ufffe\uffff',
  '\ud7ff\ue000',
  'é 漢字 🦊',
  ']]>&lt;<!--',
  '../../etc/passwd',
  '{{ ds.meta_data }}',
  'x'.repeat(1_048_576),
]

t.test('what is needed is there', async (t) => {
  t.ok(existsSync('/usr/bin/xorriso'), 'apt-get install xorriso')
  t.ok(existsSync('/usr/lib/python3/dist-packages/yaml/__init__.py'), 'apt-get install python3-yaml')
})

t.test('a copy of a VM is told its own name and MACs, and takes no address of the old one', (t) => {
  const textsOf = ({ files }: Seed) =>
    Object.fromEntries(files.map(({ name, text }) => [name, text])) as SeedTexts
  const macs = new Map([
    [lan.mac, '52:54:00:aa:aa:aa'],
    ['52:54:00:00:00:02', '52:54:00:bb:bb:bb'],
  ])
  const moved = (nics: Readonly<Record<string, SeedNic>>) =>
    Object.fromEntries(
      Object.entries(nics).map(([name, nic]) => [name, { ...nic, mac: macs.get(nic.mac) ?? nic.mac }]),
    )
  const servers = { back: { ...dhcp, mac: '52:54:00:00:00:02', nameservers: ['192.0.2.53'] } }
  const said = cloudInit({ sshKeys: [key('ssh-ed25519')], userData: `#cloud-config\n${hostile.join('')}` })
  const old = seedOf('web_1', said, { lan, ...servers })
  t.same(
    seedOfAnother('web_2', textsOf(old), macs),
    { seed: seedOf('web_2', said, moved({ lan, ...servers })), isNetworkLost: false },
    'as if it had been declared',
  )
  const fixed = { back: { ...servers.back, addresses: ['192.0.2.7/24'], gateways: ['192.0.2.1'] } }
  const withHost = cloudInit({ hostname: 'db.example.com', userData: { a: 1 } })
  t.same(seedOfAnother('web-2', textsOf(seedOf('web-1', withHost, { lan, ...fixed })), macs), {
    seed: seedOf('web-2', cloudInit({ userData: { a: 1 } }), moved({ lan, ...servers })),
    isNetworkLost: true,
  })
  const none = seedOf('web-1', cloudInit({ network: 'none' }), { lan })
  t.same(seedOfAnother('web-2', textsOf(none), macs), {
    seed: seedOf('web-2', cloudInit({ network: 'none' }), { lan }),
    isNetworkLost: false,
  })
  const byHand = {
    version: 2,
    bonds: { b: { interfaces: ['a'] } },
    ethernets: { a: { addresses: ['10.0.0.1/8'] } },
  }
  t.match(seedOfAnother('web-2', textsOf(seedOf('web-1', cloudInit({ network: byHand }), { lan })), macs), {
    isNetworkLost: true,
  })

  const texts = textsOf(old)
  for (const [file, text] of [
    ['meta-data', 'instance-id: i-1\n'],
    ['meta-data', '{'],
    ['meta-data', ''],
    ['meta-data', texts['meta-data'].replace('web-1', 'web-9')],
    ['user-data', '#!/bin/sh\n'],
    ['network-config', '{'],
  ] as const)
    t.equal(
      seedOfAnother('web-2', { ...texts, [file]: text }, macs),
      null,
      `not one of ours: ${file} ${text}`,
    )
  t.end()
})

t.test('the guest is told its name, its keys and its network', async (t) => {
  const keys = [`${key('ssh-ed25519')} me@example.com`, key('ssh-rsa', 256)]
  const seed = seedOf('web_1', cloudInit({ sshKeys: keys, userData: { packages: ['nginx'] } }), {
    lan,
    back: {
      mac: '52:54:00:00:00:02',
      addresses: ['192.0.2.7/24', '2001:db8::7/64'],
      gateways: ['192.0.2.1', 'fe80::1'],
      nameservers: ['192.0.2.53'],
    },
  })
  t.same(asPython(textOf(seed, 'meta-data')), {
    'instance-id': seed.instanceId,
    'local-hostname': 'web-1',
    'public-keys': keys,
  })
  t.match(textOf(seed, 'user-data'), /^#cloud-config\n/)
  t.same(asPython(textOf(seed, 'user-data')), { packages: ['nginx'] })
  t.same(asPython(textOf(seed, 'network-config')), {
    version: 2,
    ethernets: {
      lan: { match: { macaddress: '52:54:00:12:34:56' }, dhcp4: true },
      back: {
        match: { macaddress: '52:54:00:00:00:02' },
        dhcp4: false,
        addresses: ['192.0.2.7/24', '2001:db8::7/64'],
        routes: [
          { to: '0.0.0.0/0', via: '192.0.2.1' },
          { to: '::/0', via: 'fe80::1' },
        ],
        nameservers: { addresses: ['192.0.2.53'] },
      },
    },
  })
  t.match(seed.instanceId, /^web_1-[0-9a-f]{16}$/)
})

t.test('nothing said is a seed all the same', async (t) => {
  const seed = seedOf('web', cloudInit({}), {})
  t.same(asPython(textOf(seed, 'user-data')), {})
  t.same(asPython(textOf(seed, 'network-config')), { version: 2, ethernets: {} })
  t.same(asPython(textOf(seedOf('web', cloudInit({ network: 'none' }), { lan }), 'network-config')), {
    config: 'disabled',
  })
  const own = { version: 2, bonds: { bond0: { interfaces: ['a', 'b'] } } }
  t.same(asPython(textOf(seedOf('web', cloudInit({ network: own }), { lan }), 'network-config')), own)
})

t.test('texts reach the guest exactly as they are', async (t) => {
  const userData = {
    list: hostile,
    ...Object.fromEntries(hostile.filter((text) => text.length < 1000).map((text) => [`k ${text}`, text])),
  }
  const seed = seedOf('web', cloudInit({ userData }), { lan })
  t.same(asPython(textOf(seed, 'user-data')), userData)
  for (const text of [
    '#!/bin/sh\necho "$(id)" \u0007 é\n',
    '#cloud-config\nruncmd: [yes]',
    '#include\nhttps://example.com/x',
  ])
    t.equal(textOf(seedOf('web', cloudInit({ userData: text }), { lan }), 'user-data'), text)
})

t.test('another content is another instance, the same content the same bytes', async (t) => {
  const declared = [
    {},
    { hostname: 'other' },
    { sshKeys: [key('ssh-ed25519')] },
    { userData: { a: 1 } },
    { userData: { a: 2 } },
    { userData: '#!/bin/sh\n' },
    { network: 'none' },
  ]
  const ids = declared.map((one) => seedOf('web', cloudInit(one), { lan }).instanceId)
  t.equal(new Set(ids).size, declared.length)
  t.notMatch(ids, [seedOf('db', cloudInit({}), { lan }).instanceId], 'another VM is another instance')
  t.not(seedOf('web', cloudInit({}), { lan: { ...lan, mac: '52:54:00:00:00:01' } }).instanceId, ids[0])
  for (const one of declared)
    t.same(seedOf('web', cloudInit(one), { lan }), seedOf('web', cloudInit(structuredClone(one)), { lan }))
})

t.test('keys, names and user data that are none are refused', async (t) => {
  const ed = key('ssh-ed25519')
  for (const good of [
    ed,
    `${ed} a comment with blanks`,
    key('ecdsa-sha2-nistp256'),
    key('sk-ssh-ed25519@openssh.com'),
  ])
    t.ok(cloudInitSchema.safeParse({ sshKeys: [good] }).success, good)
  for (const bad of [
    '',
    'ssh-ed25519',
    'ssh-ed25519 AAAA',
    `${ed}\nssh-rsa AAAA`,
    `command="id" ${ed}`,
    ed.replace('ssh-ed25519 ', 'ssh-rsa '),
    key('ssh-dss'),
    `${ed}=`,
    '-----BEGIN OPENSSH PRIVATE KEY-----',
    `${ed} ${'x'.repeat(20_000)}`,
  ])
    t.notOk(cloudInitSchema.safeParse({ sshKeys: [bad] }).success, bad.slice(0, 60))
  for (const hostname of ['', '-a', 'a b', 'a_b', 'a..b', 'a\n', 'x'.repeat(64), '$(id)'])
    t.notOk(cloudInitSchema.safeParse({ hostname }).success, hostname)
  for (const userData of [
    '',
    'echo hello',
    ' #cloud-config\n',
    ['a'],
    '#!\ud800',
    { a: ['\udfff'] },
    { '\ud800': 1 },
  ])
    t.notOk(cloudInitSchema.safeParse({ userData }).success)
})

const performer = () => {
  const libvirt = () => Promise.reject(new Error('not asked'))
  const claims = new Set<string>()
  const reader = new LinuxHost({
    claims,
    unfinishedSteps: async () => [],
    lockHolder: async () => null,
    libvirt,
    ...noCloud,
  })
  return new LinuxPerformer({ reader, claims, libvirt, ec2: noCloud.ec2 })
}

/** What an image holds, by name, read back by the tool that made it. */
function contentOf(image: string, folder: string): Readonly<Record<string, Buffer>> {
  mkdirSync(folder)
  execFileSync('/usr/bin/xorriso', ['-no_rc', '-osirrox', 'on', '-indev', image, '-extract', '/', folder], {
    stdio: 'ignore',
  })
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]))
}

t.test('the image holds the very bytes, and is the same whenever it is made', async (t) => {
  const folder = t.testdir()
  const seed = seedOf('web', cloudInit({ userData: { list: hostile } }), { lan })
  const make = async (path: string, one = seed) => {
    for (const action of seedActions(one, path)) await performer().perform(action)
    return readFileSync(path)
  }
  const first = await make(join(folder, 'first.iso'))
  // Times within an image have whole seconds.
  await sleep(1100)
  const second = await make(join(folder, `it's "a" = [b] *? é\\n.iso`))
  t.ok(first.equals(second), 'not a byte differs')
  const content = contentOf(join(folder, 'first.iso'), join(folder, 'out'))
  t.same(Object.keys(content).sort(), ['meta-data', 'network-config', 'user-data'])
  for (const { name, text } of seed.files) t.ok(content[name]?.equals(Buffer.from(text)), name)
  const label = execFileSync(
    '/usr/sbin/blkid',
    ['--probe', '--output', 'export', join(folder, 'first.iso')],
    {
      encoding: 'utf8',
    },
  )
  t.match(label, /^LABEL=CIDATA$/m)
  t.match(label, /^TYPE=iso9660$/m)
  t.equal(readFileSync(seedMark(join(folder, 'first.iso')), 'utf8'), `${seed.instanceId}\n`)
  t.notOk(existsSync(join(folder, 'first.iso.d')), 'nothing is left of the stage')

  const other = seedOf('web', cloudInit({ userData: { a: 1 } }), { lan })
  await make(join(folder, 'first.iso'), other)
  t.match(contentOf(join(folder, 'first.iso'), join(folder, 'out2'))['user-data']?.toString(), /"?a"?: 1/)
  t.equal(readFileSync(seedMark(join(folder, 'first.iso')), 'utf8'), `${other.instanceId}\n`)
})

t.test(
  'cut short after any action it is made again, and is never marked as whole before it is',
  async (t) => {
    const seeds = [
      seedOf('web', cloudInit({}), { lan }),
      seedOf('web', cloudInit({ userData: { a: 1 } }), { lan }),
    ] as const
    const { length } = seedActions(seeds[0], '/x')
    const folder = t.testdir({})
    const perform = async (seed: Seed, within: string, most = length) => {
      for (const action of seedActions(seed, join(within, 'seed.iso')).slice(0, most))
        await performer().perform(action)
    }
    const before = join(folder, 'before')
    mkdirSync(before)
    await perform(seeds[0], before)
    for (let cut = 0; cut <= length; cut += 1) {
      const within = join(folder, String(cut))
      const path = join(within, 'seed.iso')
      cpSync(before, within, { recursive: true })
      await perform(seeds[1], within, cut)
      if (existsSync(seedMark(path))) {
        const marked = readFileSync(seedMark(path), 'utf8').trim()
        const held = contentOf(path, join(folder, `held-${cut}`))['meta-data']?.toString()
        t.match(held, marked, `after ${cut} actions`)
      }
      // What is in the way may be half of it.
      if (existsSync(`${path}.stage`)) writeFileSync(join(`${path}.stage`, 'user-data'), '#clo')
      await perform(seeds[1], within)
      const content = contentOf(path, join(folder, `out-${cut}`))
      t.match(content['meta-data']?.toString(), seeds[1].instanceId, `after ${cut} actions`)
      t.equal(content['user-data']?.toString(), textOf(seeds[1], 'user-data'))
      t.same(readdirSync(within).sort(), ['seed.iso', 'seed.iso.instance-id'])
    }
  },
)
