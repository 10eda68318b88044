// Domain XML: read and written without loss, refused where it is no XML, and hostile names and values that come through exactly or not
// at all. GARRISON_FUZZ=1000000 tries that many documents; the default is a seeded sample.

import t from 'tap'
import { desiredSchema } from '../../provisioning/desired.ts'
import {
  at,
  element,
  elementsOf,
  parseXml,
  printXml,
  sameXml,
  textOf,
  type XmlElement,
  XmlError,
  type XmlNode,
} from '../../provisioning/libvirt/xml.ts'
import { domainDifferences } from '../../provisioning/vms/differences.ts'
import { type Basics, basicFields, basicNames, readDomain } from '../../provisioning/vms/domain.ts'
import { applyPatch } from '../../provisioning/vms/patch.ts'
import { vmsSchema } from '../../provisioning/vms/schema.ts'
import { wantedDomain } from '../../provisioning/vms/want.ts'
import { seeded } from './simulated-host.ts'

/** The beginning of a text for the name of a test, which must be one plain line. */
const plain = (text: string): string =>
  JSON.stringify(text.slice(0, 30)).replace(/[^ -~]|#/g, (one) => `\\u${one.charCodeAt(0).toString(16)}`)

const again = (root: XmlElement): XmlElement => parseXml(printXml(root)).root

t.test('keeps everything', async (t) => {
  const text = `<?xml version="1.0" encoding="UTF-8"?>
<!-- before -->
<domain type='kvm' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>a &amp; b &lt;c&gt; &#x263A; &quot;d&quot;</name>
  <metadata><x:y xmlns:x="urn:x" x:a="1">  mixed <b/> text  <![CDATA[ <raw> & ]]></x:y></metadata>
  <empty/><open></open>
  <t a="tab&#9;lf&#10;cr&#13;" b=' "quoted" '/>
</domain>
<!-- after -->
`
  const { root, before, after } = parseXml(text)
  t.match([before, after], [[{ kind: 'comment', text: ' before ' }], [{ kind: 'comment', text: ' after ' }]])
  t.equal(textOf(at(root, 'name')), 'a & b <c> ☺ "d"')
  t.equal(at(root, 't')?.attributes.get('a'), 'tab\tlf\ncr\r')
  t.equal(at(root, 't')?.attributes.get('b'), ' "quoted" ')
  t.match(at(root, 'metadata', 'x:y')?.children, [
    { kind: 'text', text: '  mixed ' },
    { name: 'b' },
    { kind: 'text', text: ' text  ' },
    { kind: 'cdata', text: ' <raw> & ' },
  ])
  t.ok(sameXml(again(root), root))
  t.equal(printXml(again(root)), printXml(root))
})

t.test('white space in attributes and at line ends is what XML says it is', async (t) => {
  const { root } = parseXml('<a b="x\n\ty">1\r\n2\r3</a>')
  t.equal(root.attributes.get('b'), 'x  y')
  t.equal(textOf(root), '1\n2\n3')
})

t.test('refuses', async (t) => {
  const bad: Readonly<Record<string, string>> = {
    'a document type': '<!DOCTYPE a><a/>',
    'an entity bomb': '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>',
    'an external entity': '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
    'a document type further down': '<a><!DOCTYPE b></a>',
    'an unknown entity': '<a>&nbsp;</a>',
    'a reference that means something to JavaScript': '<a>&constructor;</a>',
    'another such reference': '<a>&toString;</a>',
    'a reference without end': '<a>&amp</a>',
    'a reference to nothing': '<a>&#0;</a>',
    'a reference to a surrogate': '<a>&#xD800;</a>',
    'a reference beyond Unicode': '<a>&#x110000;</a>',
    'a reference that is far too long': `<a>&#${'0'.repeat(1000)}65;</a>`,
    'a control character': '<a>\u0001</a>',
    'an escape sequence': '<a>\u001b[2J</a>',
    'a lone surrogate': '<a>\ud800</a>',
    'a non-character': '<a>\uffff</a>',
    'an attribute twice': '<a b="1" b="2"/>',
    'an attribute without quotes': '<a b=1/>',
    'an attribute without value': '<a b/>',
    'attributes that touch': '<a b="1"c="2"/>',
    '< in an attribute': '<a b="<"/>',
    ']]> in text': '<a>]]></a>',
    '-- in a comment': '<a><!-- -- --></a>',
    'a comment without end': '<a><!-- </a>',
    'CDATA without end': '<a><![CDATA[</a>',
    'an instruction': '<a><?b c?></a>',
    'a declaration that is late': ' <?xml version="1.0"?><a/>',
    'two roots': '<a/><b/>',
    'text before the root': 'x<a/>',
    'text after the root': '<a/>x',
    'no root': '<!-- a -->',
    nothing: '',
    'an element without end': '<a>',
    'an element that another ends': '<a></b>',
    'elements that cross': '<a><b></a></b>',
    'a name that is none': '<1/>',
    'a name with a blank': '< a/>',
    'an attribute name that is none': '<a 1="2"/>',
    'a name that means something to JavaScript': '<__proto__/>',
    'too deep': `${'<a>'.repeat(100)}${'</a>'.repeat(100)}`,
    'too long': `<a>${'x'.repeat(4 * 2 ** 20)}</a>`,
  }
  for (const [what, text] of Object.entries(bad)) t.throws(() => parseXml(text), XmlError, what)
})

t.test('refuses in reasonable time', async (t) => {
  const mebibyte = 2 ** 20
  for (const [what, text] of Object.entries({
    'opened elements': '<a>'.repeat(mebibyte / 4),
    'opened comments': '<!--'.repeat(mebibyte / 4),
    'opened CDATA': '<![CDATA['.repeat(mebibyte / 8),
    'opened tags': '<'.repeat(mebibyte),
    ampersands: `<a>${'&'.repeat(mebibyte)}</a>`,
    'attributes without value': `<a ${'b '.repeat(mebibyte / 2)}/>`,
    quotes: `<a b=${`"'`.repeat(mebibyte / 2)}/>`,
  })) {
    const startedMs = performance.now()
    t.throws(() => parseXml(text), XmlError, what)
    const tookMs = performance.now() - startedMs
    if (tookMs > 20_000) t.fail(`${what} took ${tookMs} ms`)
  }
})

t.test('writes nothing that XML cannot hold', async (t) => {
  for (const [what, tree] of Object.entries({
    'a control character in text': element('a', {}, ['\u0001']),
    'a control character in an attribute': element('a', { b: '\u001b' }),
    'a lone surrogate': element('a', {}, ['\udc00']),
    'a name that is none': element('a b'),
    'a name that is markup': element('a><b'),
    'an attribute name that is none': element('a', { 'b="1" c': '2' }),
    '-- in a comment': { ...element('a'), children: [{ kind: 'comment', text: '--' } satisfies XmlNode] },
  }))
    t.throws(() => printXml(tree), XmlError, what)
})

const hostile: readonly string[] = [
  `"'`,
  '<a/>',
  '</name><name>b',
  '&lt;&amp;lt;&#60;',
  ']]>',
  '<![CDATA[x]]>',
  '<!-- -->',
  '$(x) `x` ; rm -rf /',
  '../../etc/passwd',
  '..\\..\\',
  ' leading and trailing ',
  'tab\there',
  'line\nfeed',
  'carriage\rreturn',
  'crlf\r\n',
  'nul\u0000',
  'bell\u0007',
  '\u001b]0;title\u0007\u001b[31m',
  '\u0085\u2028\u2029',
  '\u202e right to left',
  'é combined and é',
  '😀 beyond the first plane',
  '\ud83d half of one',
  '\ufeff',
  '__proto__',
  'constructor',
  'x'.repeat(2 ** 20),
  `'"`.repeat(2 ** 16),
]

t.test('hostile texts come through exactly, or are refused', async (t) => {
  for (const text of hostile) {
    const tree = element('a', { b: text }, [element('c', {}, [text]), { kind: 'cdata', text }])
    const shown = plain(text)
    try {
      const root = again(tree)
      t.equal(root.attributes.get('b'), text, `attribute ${shown}`)
      t.ok(sameXml(root, tree), `text ${shown}`)
    } catch (error) {
      t.ok(error instanceof XmlError, `refused ${shown}`)
      t.match(text, /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u, `rightly: ${shown}`)
    }
  }
})

const pools = { vms: { path: '/srv/vms' } }

t.test('hostile names and values in a document come through exactly, or are refused', async (t) => {
  const site = { uuid: '00000000-0000-8000-8000-000000000000', architecture: 'x86_64', known: null }
  const places: Readonly<
    Record<string, (text: string) => { machines: object; read: (root: XmlElement) => unknown }>
  > = {
    'the name of a VM': (text) => ({
      machines: { [text]: {} },
      read: (root) => textOf(at(root, 'name')),
    }),
    'the name of a disk': (text) => ({
      machines: { a: { disks: { [text]: { size: '1GiB' } } } },
      read: (root) => readDomain(root).disks[0]?.name,
    }),
    'the path of a disk': (text) => ({
      machines: { a: { disks: { root: { path: text } } } },
      read: (root) => readDomain(root).disks[0]?.source?.at,
    }),
    'a network': (text) => ({
      machines: { a: { nics: { lan: { network: text } } } },
      read: (root) => readDomain(root).nics[0]?.source.at,
    }),
    'a bridge': (text) => ({
      machines: { a: { nics: { lan: { bridge: text } } } },
      read: (root) => readDomain(root).nics[0]?.source.at,
    }),
    'a CPU model': (text) => ({
      machines: { a: { cpuModel: text } },
      read: (root) => readDomain(root).cpuModel,
    }),
    'a machine type': (text) => ({
      machines: { a: { machine: text } },
      read: (root) => readDomain(root).machine,
    }),
    'a value in a change to the XML': (text) => ({
      machines: { a: { xml: [{ set: '/domain/title', value: text }] } },
      read: (root) =>
        at(root, 'title')
          ?.children.map((child) => ('text' in child ? child.text : ''))
          .join(''),
    }),
    'an attribute in a change to the XML': (text) => ({
      machines: { a: { xml: [{ set: '/domain/devices/memballoon/@model', value: text }] } },
      read: (root) => at(root, 'devices', 'memballoon')?.attributes.get('model'),
    }),
  }
  let through = 0
  let refused = 0
  for (const [what, place] of Object.entries(places))
    for (const text of hostile) {
      const { machines, read } = place(text)
      const shown = `${what}: ${plain(text)}`
      const parsed = vmsSchema.safeParse({ pools, machines })
      if (!parsed.success) {
        refused += 1
        continue
      }
      const [[name, machine] = []] = Object.entries(parsed.data.machines)
      // Reading a document has refused it before (document.test.ts).
      if (text === '__proto__') continue
      if (name === undefined || machine === undefined) throw new Error(shown)
      try {
        t.equal(read(again(wantedDomain(name, machine, { ...site, vms: parsed.data }))), text, shown)
        through += 1
      } catch (error) {
        t.ok(error instanceof XmlError, shown)
        refused += 1
      }
    }
  t.ok(through > 20 && refused > 100, `${through} came through, ${refused} were refused`)
})

t.test('names that would leave their folder or their line are refused', async (t) => {
  const names = [
    'constructor',
    'toString',
    'hasOwnProperty',
    '..',
    '.',
    '.hidden',
    '-rf',
    'a/b',
    '../a',
    'a b',
    'a\n',
    '',
    'a'.repeat(64),
    'é',
  ]
  for (const name of names)
    t.notOk(vmsSchema.safeParse({ pools, machines: { [name]: {} } }).success, JSON.stringify(name))
  for (const name of ['a', 'web-3', 'web.example.com', 'Windows_11', '0', 'a'.repeat(63)])
    t.ok(vmsSchema.safeParse({ pools, machines: { [name]: {} } }).success, name)
})

t.test('what is written is read back as the same', async (t) => {
  const samples: { readonly [Name in keyof Basics]: readonly Basics[Name][] } = {
    type: ['kvm', 'qemu'],
    memoryBytes: [2 ** 30, 2 ** 40, 1024],
    cpus: [1, 4096],
    firmware: ['bios', 'uefi', 'uefi-secure'],
    architecture: ['x86_64', 'aarch64'],
    machine: ['q35', 'pc-q35-7.2', 'virt'],
    cpuModel: ['host-passthrough', 'host-model', 'maximum', 'Skylake-Client'],
    clock: ['utc', 'localtime'],
    serial: [true, false],
    display: ['none', 'vnc'],
    guestAgent: [true, false],
    random: [true, false],
  }
  const root = element('domain', {}, [element('devices')])
  for (const name of basicNames)
    for (const from of samples[name])
      for (const to of samples[name]) {
        const field = basicFields[name] as {
          read(d: XmlElement): unknown
          write(d: XmlElement, v: unknown): void
        }
        field.write(root, from)
        field.write(root, to)
        const read = field.read(again(root))
        if (read !== to) t.fail(`${name}: ${from} -> ${to} is read as ${read}`)
      }
  t.same(elementsOf(root, 'vcpu').length, 1)
  t.same(elementsOf(at(root, 'devices'), 'serial').length, 0)
})

t.test('a topology that does not multiply up goes with the CPUs that it was of', async (t) => {
  const { root } = parseXml(
    '<domain><vcpu current="2">8</vcpu><vcpus><vcpu id="0"/></vcpus><cpu><topology sockets="1" cores="4" threads="2"/><numa/></cpu></domain>',
  )
  t.equal(basicFields.cpus.read(root), 2)
  basicFields.cpus.write(root, 8)
  t.ok(at(root, 'cpu', 'topology'), 'eight is what it is of')
  basicFields.cpus.write(root, 6)
  t.equal(printXml(root), '<domain><vcpu>6</vcpu><cpu><numa/></cpu></domain>')
})

t.test('memory in every unit of libvirt', async (t) => {
  const bytes = (unit: string | undefined, text: string): number | null =>
    basicFields.memoryBytes.read(element('domain', {}, [element('memory', { unit }, [text])]))
  for (const [unit, factor] of [
    [undefined, 1024],
    ['b', 1],
    ['bytes', 1],
    ['KB', 1000],
    ['k', 1024],
    ['KiB', 1024],
    ['MB', 1e6],
    ['M', 2 ** 20],
    ['GiB', 2 ** 30],
    ['TB', 1e12],
  ] as const)
    t.equal(bytes(unit, ' 3 '), 3 * factor, String(unit))
  for (const text of ['', '-1', '1e3', '0x10', '1.5', '9'.repeat(20)]) t.equal(bytes('KiB', text), null, text)
  t.equal(bytes('furlong', '1'), null)
  t.equal(bytes('constructor', '1'), null)
})

t.test('changes by a path', async (t) => {
  const text =
    "<domain><devices><disk><target dev='vda'/><driver/></disk><disk><target dev='vdb'/></disk></devices></domain>"
  const after = (patch: Parameters<typeof applyPatch>[1]): string => {
    const { root } = parseXml(text)
    t.ok(applyPatch(root, patch), 'changes something')
    t.notOk(applyPatch(root, patch), 'and nothing when it is done again')
    return printXml(root)
  }
  t.match(
    after({ set: "/domain/devices/disk[target/@dev='vdb']/driver/@queues", value: '4' }),
    '<disk><target dev="vdb"/><driver queues="4"/></disk>',
  )
  t.match(after({ set: '/domain/title', value: 'a]]>' }), '<title>a]]&gt;</title>')
  t.match(
    after({ set: '/domain/devices/disk[2]/serial', value: 'x' }),
    '<target dev="vdb"/><serial>x</serial>',
  )
  t.match(after({ remove: '/domain/devices/disk[1]/driver' }), '<disk><target dev="vda"/></disk>')
  t.match(after({ remove: '/domain/devices/disk' }), '<devices></devices>'.replace('></devices>', '/>'))
  t.match(
    after({ remove: "/domain/devices/disk[target/@dev='vda']/target/@dev" }),
    '<disk><target/><driver/></disk>',
  )
  t.match(
    after({ add: '/domain/devices', element: "<hub type='usb'><x a='1'/></hub>" }),
    '<hub type="usb"><x a="1"/></hub></devices>',
  )
  const { root } = parseXml(
    "<domain><devices><hub b='2' type='usb'><alias/><x a='1' z='1'/></hub></devices></domain>",
  )
  t.notOk(
    applyPatch(root, { add: '/domain/devices', element: "<hub type='usb'><x a='1'/></hub>" }),
    'what libvirt has added to is there already',
  )
  for (const path of [
    '/domain//disk',
    '/domain/disk[',
    '/domain/disk[]',
    '/domain/disk[@a]',
    '/domain/disk[last()]',
    '/domain/..',
    '/domain/@a/b',
    '/domain/*',
    `/domain/${'a/'.repeat(500)}`,
  ])
    t.throws(() => applyPatch(parseXml('<domain/>').root, { set: path, value: '1' }), XmlError, path)
})

/** A random tree, with the texts that go wrong most easily. */
function randomTree(random: () => number, depth = 0): XmlElement {
  const pick = <One>(all: readonly One[]): One => all[Math.floor(random() * all.length)] as One
  const bits = [
    '',
    ' ',
    '\n  ',
    'a',
    '<',
    '>',
    '&',
    '"',
    "'",
    ']]>',
    '&amp;',
    '\t',
    '\r',
    '\r\n',
    '-',
    '😀',
    'é',
    '#',
    ';',
    '0',
  ]
  const text = (): string => Array.from({ length: Math.floor(random() * 5) }, () => pick(bits)).join('')
  const names = ['a', 'b:c', 'xmlns:b', 'A.1', '_', 'domain', 'é', 'constructor2', 'x-y']
  const attributes = Object.fromEntries(
    Array.from({ length: Math.floor(random() * 3) }, () => [pick(names), text()]),
  )
  const children = Array.from({ length: depth > 4 ? 0 : Math.floor(random() * 4) }, (): XmlNode => {
    const kind = random()
    if (kind < 0.4) return randomTree(random, depth + 1)
    if (kind < 0.8) return { kind: 'text', text: text() }
    if (kind < 0.9) return { kind: 'cdata', text: text() }
    return { kind: 'comment', text: text().replace(/-|\r/g, '') }
  })
  return { ...element(pick(names), attributes), children }
}

/** Text with a few bytes of it changed, cut out or doubled. */
function mutated(text: string, random: () => number): string {
  const at = (length: number): number => Math.floor(random() * length)
  const bits = [
    '<',
    '>',
    '&',
    '"',
    "'",
    '/',
    '=',
    ' ',
    ']]>',
    '<!--',
    '-->',
    '<![CDATA[',
    '<?',
    '<!',
    ';',
    '&#',
    'x',
    '\0',
    '\ud800',
  ]
  let result = text
  for (let count = 1 + at(3); count > 0; count -= 1) {
    const from = at(result.length)
    const kind = random()
    result =
      kind < 0.4
        ? result.slice(0, from) + bits[at(bits.length)] + result.slice(from + at(3))
        : kind < 0.7
          ? result.slice(0, from) + result.slice(from + at(8))
          : result.slice(0, from) + result.slice(Math.max(0, from - at(8)))
  }
  return result
}

t.test('random trees come through, and random texts come through or are refused', async (t) => {
  const wanted = Number(process.env.GARRISON_FUZZ ?? 4000)
  const seed = Number(process.env.GARRISON_SEED ?? 1)
  const random = seeded(seed)
  let refused = 0
  let through = 0
  for (let count = 0; count < wanted; count += 1) {
    const tree = randomTree(random)
    const text = printXml(tree)
    const { root } = parseXml(text)
    if (!sameXml(root, tree)) t.fail(`seed ${seed}, ${count}: ${text}`)
    const bad = mutated(text, random)
    try {
      const read = parseXml(bad).root
      if (!sameXml(again(read), read)) t.fail(`seed ${seed}, ${count}, mutated: ${bad}`)
      through += 1
    } catch (error) {
      if (!(error instanceof XmlError)) t.fail(`seed ${seed}, ${count}: ${String(error)} for ${bad}`)
      refused += 1
    }
  }
  t.ok(refused > 0 && through > 0, `${refused} refused, ${through} came through`)
})

t.test('whatever a definition says, it is read without an error, and mended to what is wanted', async (t) => {
  const random = seeded(7)
  const { vms } = desiredSchema.parse({
    version: 1,
    vms: {
      pools,
      machines: {
        a: {
          cpus: 2,
          disks: { root: { size: '1GiB' }, b: { size: '1GiB', bus: 'scsi' } },
          nics: { lan: {} },
          devices: { gpu: { pci: '0000:3b:00.0' } },
        },
      },
    },
  })
  const machine = vms?.machines.a
  if (vms === undefined || machine === undefined) throw new Error('it is declared')
  const site = { vms, uuid: '00000000-0000-8000-8000-000000000000', architecture: 'x86_64', known: null }
  const wanted = readDomain(wantedDomain('a', machine, site))
  const count = Math.min(Number(process.env.GARRISON_FUZZ ?? 1000), 20_000)
  for (let turn = 0; turn < count; turn += 1) {
    const root = wantedDomain('a', machine, site)
    // Takes elements and attributes away, doubles them, and puts nonsense into them.
    const damage = (one: XmlElement): void => {
      for (const [name] of [...one.attributes]) {
        const kind = random()
        if (kind < 0.05) one.attributes.delete(name)
        else if (kind < 0.1)
          one.attributes.set(
            name,
            ['', '-1', 'x', '9'.repeat(30), 'yes', 'constructor', 'toString'][Math.floor(random() * 7)] ?? '',
          )
      }
      for (const child of [...one.children]) {
        if (child.kind !== 'element') continue
        const kind = random()
        const index = one.children.indexOf(child)
        if (kind < 0.05 && child.name !== 'devices') one.children.splice(index, 1)
        else if (kind < 0.08 && child.name !== 'devices')
          one.children.splice(index, 0, structuredClone(child))
        else damage(child)
      }
    }
    damage(root)
    for (let rounds = 0; rounds < 4; rounds += 1)
      for (const { mend } of domainDifferences(wanted, readDomain(root))) mend?.(root)
    const left = domainDifferences(wanted, readDomain(again(root))).filter(({ mend }) => mend !== null)
    if (left.length > 0)
      t.fail(`turn ${turn}: ${left.map(({ path }) => path).join(', ')} in ${printXml(root)}`)
  }
  t.ok(count > 0)
})
