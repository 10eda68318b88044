// The desired document: what is understood, what is refused and in which words, and what hostile text does.
import { chmodSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readDesiredFiles } from '../../agent/host/desired-files.ts'
import { desiredSchema } from '../../provisioning/desired.ts'
import { desiredJsonSchema, parseDocument } from '../../provisioning/document.ts'
import { HostError } from '../../provisioning/problem.ts'

const readDesired = async (folder: string) => parseDocument(await readDesiredFiles(folder))

type Text = string | Uint8Array

const parse = (...texts: readonly Text[]) =>
  parseDocument(texts.map((text, at) => ({ path: at === 0 ? 'host.yaml' : `host.d/${at}.yaml`, text })))

const problems = (...texts: readonly Text[]): readonly string[] => {
  try {
    parse(...texts)
  } catch (error) {
    if (error instanceof HostError && error.code === 'desired.invalid') return error.message.split('\n')
    throw error
  }
  return []
}

t.test('understands a document, with defaults and with the place of each written value', async (t) => {
  const desired = parse(
    'version: 1\narray:\n  level: 5\n  members:\n    - serial: A1\n    - byId: /dev/disk/by-id/x\nvolumes:\n  logical:\n    images: {share: 40}\n',
  )
  t.equal(desired.array?.chunkKiB, 512)
  t.same(desired.array?.members, [{ serial: 'A1' }, { byId: '/dev/disk/by-id/x' }])
  t.equal(desired.volumes?.logical.images?.filesystem, 'xfs')
  t.same(desired.sources, {
    version: 'host.yaml:1',
    array: 'host.yaml:2',
    'array.level': 'host.yaml:3',
    'array.members': 'host.yaml:4',
    'array.members.0': 'host.yaml:5',
    'array.members.0.serial': 'host.yaml:5',
    'array.members.1': 'host.yaml:6',
    'array.members.1.byId': 'host.yaml:6',
    volumes: 'host.yaml:7',
    'volumes.logical': 'host.yaml:8',
    'volumes.logical.images': 'host.yaml:9',
    'volumes.logical.images.share': 'host.yaml:9',
  })
})

t.test('merges drop-ins: maps key by key, everything else replaced, sources follow', async (t) => {
  const desired = parse(
    'version: 1\narray: {level: 5, name: a}\nsoftware:\n  packages: [one, two]\n',
    '',
    '# nothing but a comment\n',
    'array:\n  level: 6\nsoftware: {packages: [three]}\n',
  )
  t.equal(desired.array?.level, 6)
  t.equal(desired.array?.name, 'a')
  t.same(desired.software?.packages, ['three'])
  t.equal(desired.sources['array.level'], 'host.d/3.yaml:2')
  t.equal(desired.sources['array.name'], 'host.yaml:2')
  t.equal(desired.sources['software.packages.1'], undefined)
})

t.test('words that mean something to JavaScript mean nothing in a document', async (t) => {
  const volumes = parse('version: 1\narray: {}\nvolumes: {logical: {constructor: {size: 1GiB}}}').volumes
  t.match(volumes?.logical, { constructor: { size: '1GiB' } })
  t.same(problems('version: 1\n__proto__: {a: 1}'), ['host.yaml:2:1: __proto__: this name may not be used'])
  t.same(problems('version: 1\narray: {__proto__: {level: 6}}'), [
    'host.yaml:2:9: array.__proto__: this name may not be used',
  ])
  t.same(problems('version: 1\nvms: {machines: {__proto__: {}}}'), [
    'host.yaml:2:18: vms.machines.__proto__: this name may not be used',
  ])
  t.equal(Object.keys(Object.prototype).length, 0)
})

const refused: Readonly<Record<string, readonly [text: Text, ...expected: string[]]>> = {
  'a misspelt section, and no follow-up complaint': [
    'version: 1\naray: {}\nvolumes: {}\n',
    'host.yaml:2:1: aray: unknown key "aray"; did you mean array?',
  ],
  'a misspelt key, whose value is judged all the same': [
    'version: 1\narray:\n  levle: 7\n',
    'host.yaml:3:3: array.levle: unknown key "levle"; did you mean level?',
    'host.yaml:3:10: array.level: must be 0, 1, 5, 6 or 10, not the number 7',
  ],
  'swapped letters and other case': [
    'version: 1\narray: {onloss: report, mebmers: unused}\n',
    'host.yaml:2:9: array.onloss: unknown key "onloss"; did you mean onLoss?',
    'host.yaml:2:25: array.mebmers: unknown key "mebmers"; did you mean members?',
  ],
  'every problem at once, in the order of the file': [
    'version: 2\narray:\n  name: Bad Name\n  spares: -1\n  minimum: 1.5\n  members: all\n  chunkKiB: big\nroot: yes\nsoftware:\n  roles: [storage, vmhost]\n  packages: none\nhost: []\n',
    'host.yaml:1:10: version: must be 1, not the number 2',
    'host.yaml:3:9: array.name: must be a lower-case letter, then at most 30 letters, digits or _, not the text "Bad Name"',
    'host.yaml:4:11: array.spares: must be at least 0, not the number -1',
    'host.yaml:5:12: array.minimum: must be a whole number, not the number 1.5',
    'host.yaml:6:12: array.members: must be unused or a list, not the text "all"',
    'host.yaml:7:13: array.chunkKiB: must be 64, 128, 256, 512 or 1024, not the text "big"',
    'host.yaml:8:7: root: must be a map of keys, not the text "yes"',
    'host.yaml:10:20: software.roles.1: must be storage, vm-host or console, not the text "vmhost"',
    'host.yaml:11:13: software.packages: must be a list, not the text "none"',
    'host.yaml:12:1: host: must be a map of keys, not a list',
  ],
  'alternatives: the one that was meant is judged': [
    'version: 1\narray:\n  members:\n    - serail: A\n    - serial: 5\n    - {}\n    - {serial: a, byId: /dev/disk/by-id/b}\n    - x\n',
    'host.yaml:4:7: array.members.0.serail: unknown key "serail"; did you mean serial?',
    'host.yaml:5:15: array.members.1.serial: must be text, not the number 5',
    'host.yaml:6:7: array.members.2: must have exactly one of serial and byId',
    'host.yaml:7:7: array.members.3: must have exactly one of serial and byId',
    'host.yaml:8:7: array.members.4: must be a map of keys, not the text "x"',
  ],
  'too few in a list': [
    'version: 1\narray: {members: [{serial: a}]}\n',
    'host.yaml:2:9: array.members: must have at least 2 entries',
  ],
  'a section without a value': [
    'version: 1\narray:\n',
    'host.yaml:2:1: array: it has no value: write {} to take every default',
  ],
  'volumes: names, share or size, an octal mode without quotes': [
    'version: 1\narray: {}\nvolumes:\n  logical:\n    Images: {share: 40}\n    b: {share: 10, size: 1GiB}\n    c: {}\n    d: {share: 0, mode: 0755}\n    e: {share: 101}\n    f: {size: 12 gigs}\n',
    'host.yaml:5:5: volumes.logical.Images: the name "Images" must be a lower-case letter, then at most 30 letters, digits or _',
    'host.yaml:6:5: volumes.logical.b: must have exactly one of share and size',
    'host.yaml:7:5: volumes.logical.c: must have exactly one of share and size',
    'host.yaml:8:16: volumes.logical.d.share: must be more than 0, not the number 0',
    'host.yaml:8:25: volumes.logical.d.mode: must be text, not the number 0755',
    'host.yaml:9:16: volumes.logical.e.share: must be at most 100, not the number 101',
    'host.yaml:10:15: volumes.logical.f.size: must be a size such as 100GiB or 1.5TiB, not the text "12 gigs"',
  ],
  'shares beyond the whole, seen although another key is unknown': [
    'version: 1\narray: {}\nvolumes:\n  logical:\n    a: {share: 60}\n    b: {share: 60, zzzzzz: 2}\n',
    'host.yaml:4:3: volumes.logical: shares add up to more than 100',
    'host.yaml:6:20: volumes.logical.b.zzzzzz: unknown key "zzzzzz"; known here: size, share, mount, owner, group, mode, onContent, filesystem',
  ],
  'volumes without an array': [
    'version: 1\nvolumes: {}\n',
    'host.yaml:2:1: volumes: volumes needs array: the volume group stands on it',
  ],
  'no version': ['root: {}\n', 'host.yaml:1:1: version: must be given'],
  'a number for a key': [
    'version: 1\n1: 2\n',
    'host.yaml:2:1: 1: unknown key "1"; known here: vms, host, root, array, fleet, vmnets, version, volumes, uplinks, software, firewall, cloudwatch',
  ],
  'CRLF line ends': [
    'version: 1\r\narray:\r\n  levl: 5\r\n',
    'host.yaml:3:3: array.levl: unknown key "levl"; did you mean level?',
  ],
  'nothing at all': ['', 'host.yaml:1:1: it is empty: write at least "version: 1"'],
  'only a comment': ['# later\n', 'host.yaml:1:1: it is empty: write at least "version: 1"'],
  'a list': ['- version: 1\n', 'host.yaml:1:1: it must be a map of keys, such as "version: 1"'],
  'a word': ['hello\n', 'host.yaml:1:1: it must be a map of keys, such as "version: 1"'],
  'the same key twice': [
    'version: 1\narray: {level: 5, level: 6}\nversion: 1\n',
    'host.yaml:2:19: array.level: this key is written twice (first in line 2)',
    'host.yaml:3:1: version: this key is written twice (first in line 1)',
  ],
  'a tab': [
    'version: 1\narray:\n\tlevel: 5\n',
    'host.yaml:3:1: a tab stands where only spaces may: indent with spaces',
  ],
  'several documents': [
    'version: 1\n---\nversion: 1\n',
    'host.yaml:2:1: a second document begins here (---): write one document per file',
  ],
  'a NUL': [
    'version: 1\nhost: {instance: "a\0b"}\n',
    'host.yaml:2:20: the control character "\\u0000" may not be here',
  ],
  'an escape sequence in a comment': [
    'version: 1 #\x1b[31m\n',
    'host.yaml:1:13: the control character "\\u001b" may not be here',
  ],
  'a byte order mark': [
    '\uFEFFversion: 1\n',
    'host.yaml:1:1: it begins with a byte order mark: save it as UTF-8 without one',
  ],
  'Latin-1': [
    Buffer.from('version: 1\nhost: {instance: "\xFC"}\n', 'latin1'),
    'host.yaml:2:19: it is not UTF-8 here',
  ],
  'a character cut in two at the end': [
    Buffer.from('version: 1 # ü').subarray(0, -1),
    'host.yaml:1:14: it is not UTF-8 here',
  ],
  'a tag': ['version: !foo 1\n', 'host.yaml:1:10: tags (!…) are not used here'],
  'a tag of the core schema': [
    'version: !!int "1"\n',
    'host.yaml:1:16: version: tags (!…) are not used here',
  ],
  'YAML 1.1': [
    '%YAML 1.1\n---\nversion: 1\n',
    'host.yaml:1:1: %YAML directives are not used here: leave the line out',
  ],
  'a merge key': [
    'version: 1\nroot: &x {grow: true}\narray: {<<: *x}\n',
    'host.yaml:3:9: array.<<: unknown key "<<"; known here: name, level, count, allow, spares, onLoss, members, minimum, chunkKiB, consistency',
  ],
  'an alias of nothing': [
    'version: *x\n',
    'host.yaml:1:10: version: this alias (*) names no anchor (&) before it',
  ],
  'an alias that holds itself': [
    'version: &x [*x]\n',
    'host.yaml:1:14: version.0.0.0: it is nested too deeply to be read',
  ],
  'a key that is a list': ['? [a]\n: 1\n', 'host.yaml:1:3: a key must be a plain word'],
  'a key that is nothing': [': 1\n', 'host.yaml:1:1: a key must be a plain word'],
  'quotes that do not end': ['version: "1\n', 'host.yaml:2:1: missing closing "quote'],
}

for (const [name, [text, ...expected]] of Object.entries(refused))
  t.test(`refuses ${name}`, async (t) => t.strictSame(problems(text), expected))

t.test('an alias is the same value again', async (t) => {
  const desired = parse('version: 1\nhost: {instance: &id i-1}\nsoftware: {packages: [*id]}\n')
  t.same(desired.software?.packages, ['i-1'])
})

t.test('hostile text is refused long before the test run loses patience', async (t) => {
  const bomb = 'bcdefgh'
    .split('')
    .map((name, at) => `${name}: &${name} [${Array(9).fill(`*${'abcdefg'[at]}`)}]`)
  const hostile: Readonly<Record<string, RegExp>> = {
    ['x'.repeat(2 ** 20)]: /larger than 256 KiB/,
    [`a: ${'x'.repeat(2 ** 18)}`]: /larger than 256 KiB/,
    ['['.repeat(100_000)]: /nested too deeply/,
    [`a: ${'{a: '.repeat(20_000)}`]: /nested too deeply/,
    ['- '.repeat(50_000)]: /nested too deeply/,
    ['? '.repeat(50_000)]: /nested too deeply/,
    [`a: ${'['.repeat(200)}${']'.repeat(200)}`]: /nested too deeply/,
    ['&a '.repeat(30_000)]: /at most one anchor/,
    [Array.from({ length: 20_000 }, (_, at) => `k${at}: 1`).join('\n')]: /more than 10000 values/,
    [Array.from({ length: 9000 }, (_, at) => `k${at}: x`).join('\n')]: /must be given|unknown key/,
    [`version: 1\narray: {members: [${'{a: 1},'.repeat(3000)}]}`]: /unknown key/,
    [`a: &a [1,1,1,1,1,1,1,1,1]\n${bomb.join('\n')}`]: /more than 10000 values/,
    [`version: 1\narray: {${'x'.repeat(100_000)}: 1}`]: /unknown key "x{60}…"/,
    [`version: 1\nsoftware: {packages: [${'!,'.repeat(4000)}]}`]: /tags|must be/,
  }
  for (const [text, expected] of Object.entries(hostile)) {
    const found = problems(text)
    t.match(found[0], expected)
    t.ok(found.length <= 100)
  }
})

t.test(
  'every truncation and every changed byte of a document gives a document or problems, never another error',
  async (t) => {
    const text = Buffer.from(
      'version: 1\narray: {level: 5, members: [{serial: a}, {byId: /dev/b}]}\nvolumes: {logical: {a: {share: 4}}}\n',
    )
    let tried = 0
    for (let at = 0; at < text.length; at += 1)
      for (const byte of [-1, 0, 0x09, 0x0a, 0x22, 0x26, 0x2a, 0x3a, 0x5b, 0x7d, 0xff]) {
        const changed = byte === -1 ? text.subarray(0, at) : Buffer.from(text).fill(byte, at, at + 1)
        problems(changed)
        tried += 1
      }
    t.equal(tried, text.length * 11)
  },
)

t.test(
  'the JSON Schema names every key with its description, and its default where it has one',
  async (t) => {
    type Schema = {
      readonly description?: string
      readonly properties?: Readonly<Record<string, Schema>>
      readonly additionalProperties?: Schema | false
      readonly required?: readonly string[]
    }
    const schema = desiredJsonSchema() as Schema & { readonly $schema: string }
    t.equal(schema.$schema, 'https://json-schema.org/draft/2020-12/schema')
    t.same(schema.required, ['version'])
    const visit = (node: Schema, path: string): void => {
      for (const [key, value] of Object.entries(node.properties ?? {})) {
        t.ok(value.description, `${path}${key} has a description`)
        visit(value, `${path}${key}.`)
      }
      if (node.properties) t.equal(node.additionalProperties, false, `${path} is strict`)
      else if (node.additionalProperties) visit(node.additionalProperties, `${path}NAME.`)
    }
    visit(schema, '')
    t.match(schema, { properties: { array: { properties: { level: { default: 5 } } } } })
  },
)

t.test('defaults alone are a valid document', async (t) => {
  const desired = parse('version: 1\nsoftware: {}\nroot: {}\narray: {}\nvolumes: {}\n')
  const { sources, ...document } = desired
  t.strictSame(desiredSchema.parse(document), document)
  t.equal(Object.keys(sources).length, 5)
})

t.test('reads a folder', async (t) => {
  const folder = t.testdir({})
  await t.rejects(readDesired(folder), {
    code: 'desired.missing',
    message: `there is no ${folder}/host.yaml`,
  })
  writeFileSync(`${folder}/host.yaml`, 'version: 1\nroot: {grow: true}\n')
  t.equal((await readDesired(folder)).root?.grow, true)
  mkdirSync(`${folder}/host.d`)
  for (const [name, text] of [
    ['20-b.yaml', 'array: {name: second}'],
    ['10-a.yaml', 'array: {name: first, level: 6}'],
    ['30-c.yaml.rpmsave', 'array: {name: third}'],
    ['.hidden.yaml', 'array: {name: fourth}'],
  ] as const)
    writeFileSync(`${folder}/host.d/${name}`, text)
  const desired = await readDesired(folder)
  t.same([desired.array?.name, desired.array?.level], ['second', 6])
  t.equal(desired.sources['array.name'], 'host.d/20-b.yaml:1')
  writeFileSync(`${folder}/host.d/10-a.yaml`, Buffer.from([0xff]))
  await t.rejects(readDesired(folder), {
    code: 'desired.invalid',
    message: 'host.d/10-a.yaml:1:1: it is not UTF-8 here',
  })
  mkdirSync(`${folder}/host.d/40-d.yaml`)
  await t.rejects(readDesired(folder), { code: 'host.unreadable', details: { errno: 'EISDIR' } })
})

t.test('a document that others than root can write, or add to, is not obeyed', async (t) => {
  const folder = t.testdir({ 'host.yaml': 'version: 1\n', 'host.d': { 'a.yaml': '' } })
  await readDesiredFiles(folder)
  for (const [path, mode] of [
    ['host.yaml', 0o664],
    ['host.yaml', 0o602],
    ['host.d/a.yaml', 0o620],
    ['host.d', 0o777],
    ['', 0o775],
  ] as const) {
    const whole = join(folder, path)
    const before = statSync(whole).mode
    chmodSync(whole, mode)
    await t.rejects(readDesiredFiles(folder), {
      code: 'desired.not-trusted',
      message: new RegExp(`^${join(folder, path)} .*mode ${mode.toString(8)}`),
    })
    chmodSync(whole, before)
  }
  await readDesiredFiles(folder)
})
