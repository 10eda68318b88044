// Domain XML against libvirt's own test documents: every one that is claimed comes through without loss, by the judgement of libxml2,
// and what libvirt makes of a definition by itself is no difference.

import { execFileSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import t from 'tap'
import {
  at,
  elementsOf,
  parseXml,
  printXml,
  sameXml,
  type XmlElement,
  XmlError,
} from '../../provisioning/libvirt/xml.ts'
import { domainDifferences } from '../../provisioning/vms/differences.ts'
import { diskElements, diskWriters } from '../../provisioning/vms/disks.ts'
import { basicFields, basicNames, type DomainModel, readDomain } from '../../provisioning/vms/domain.ts'
import { nicElements, nicWriters } from '../../provisioning/vms/nics.ts'
import { libvirtTests } from './libvirt-source.ts'

t.setTimeout(300_000)

const folder = libvirtTests()

/** Files, each once: many are links to others, and some links lead out of what was unpacked. */
const files = [
  ...new Set(
    globSync(join(folder, '**/*.xml')).flatMap((path) => (existsSync(path) ? realpathSync(path) : [])),
  ),
].sort()

/** What is not claimed: files that are no document, by the folder that they are in and their name. */
const notClaimed = [
  'nodedevmdevctldata/mdevctl-list-empty.out.xml',
  'nodedevmdevctldata/mdevctl-list-multiple.out.xml',
]

const documents = new Map<string, { readonly text: string; readonly root: XmlElement }>()
const refused: string[] = []
for (const path of files) {
  const text = readFileSync(path, 'utf8')
  try {
    documents.set(path, { text, root: parseXml(text).root })
  } catch (error) {
    if (!(error instanceof XmlError)) throw error
    refused.push(relative(folder, path))
  }
}

/** The definitions in a document: it itself, or those inside a status, a snapshot or a migration cookie. */
const definitionsIn = (root: XmlElement): readonly XmlElement[] =>
  root.name === 'domain' ? [root] : elementsOf(root).flatMap(definitionsIn)

const definitions = [...documents].flatMap(([path, { root }]) =>
  definitionsIn(root).map((domain) => ({ path: relative(folder, path), domain })),
)

/** The canonical form (C14N with comments) of documents, one after the other. */
const canonical = (paths: readonly string[]): string =>
  execFileSync('/usr/bin/xmllint', ['--c14n', ...paths], {
    encoding: 'utf8',
    maxBuffer: 2 ** 29,
    stdio: ['ignore', 'pipe', 'ignore'],
  })

t.test('every document but those that are none is read and written without loss', async (t) => {
  t.ok(files.length > 3000, `${files.length} files`)
  t.same(refused, notClaimed)
  const scratch = mkdtempSync(join(tmpdir(), 'corpus-'))
  t.teardown(() => rmSync(scratch, { recursive: true }))
  const pairs = [...documents].map(([path, { text }], index) => {
    const { before, root, after } = parseXml(text)
    const out = join(scratch, `${index}.xml`)
    const comments = (all: typeof before) => all.map((one) => `<!--${one.text}-->`)
    writeFileSync(out, [...comments(before), printXml(root), ...comments(after)].join('\n'))
    return { path, out }
  })
  let lost = 0
  for (let from = 0; from < pairs.length; from += 100) {
    const some = pairs.slice(from, from + 100)
    if (canonical(some.map(({ path }) => path)) === canonical(some.map(({ out }) => out))) continue
    for (const { path, out } of some)
      if (canonical([path]) !== canonical([out])) {
        lost += 1
        t.fail(relative(folder, path))
      }
  }
  t.equal(lost, 0, `${pairs.length} documents`)
})

/** Writes back everything that was read of a definition. */
function rewrite(domain: XmlElement, model: DomainModel): void {
  for (const name of basicNames) {
    const { write } = basicFields[name] as { write(domain: XmlElement, value: unknown): void }
    // How else a screen is reached is words for people, and nothing that is written.
    const isWords = name === 'display' && !['none', 'vnc'].includes(model.display)
    if (model[name] !== null && !isWords) write(domain, model[name])
  }
  const writable = new Set(['file', 'block', 'network', 'bridge', 'macvtap'])
  diskElements(domain).forEach((disk, index) => {
    const have = model.disks[index]
    for (const [name, write] of Object.entries(diskWriters) as [
      keyof typeof diskWriters,
      (...args: unknown[]) => void,
    ][]) {
      if (name === 'source' && !writable.has(have?.source?.kind ?? '')) continue
      // A turn from <os> is not one of the disk's own.
      if (name === 'boot' && at(disk, 'boot') === undefined) continue
      write(disk, have?.[name], have?.target)
    }
  })
  nicElements(domain).forEach((nic, index) => {
    const have = model.nics[index]
    for (const [name, write] of Object.entries(nicWriters) as [
      keyof typeof nicWriters,
      (...args: unknown[]) => void,
    ][])
      if (name !== 'source' || writable.has(have?.source.kind ?? '')) write(nic, have?.[name])
  })
}

t.test('what is read of a definition is written and read again as the same', async (t) => {
  t.ok(definitions.length > 2000, `${definitions.length} definitions`)
  let unlike = 0
  for (const { path, domain } of definitions) {
    const model = readDomain(domain)
    const copy = structuredClone(domain)
    rewrite(copy, model)
    const again = parseXml(printXml(copy)).root
    if (sameXml(copy, again) && JSON.stringify(readDomain(again)) === JSON.stringify(model)) continue
    unlike += 1
    t.same(readDomain(again), model, path)
  }
  t.equal(unlike, 0)
})

t.test('nothing that is not known is lost by changing what is known', async (t) => {
  const known = new Set(['memory', 'currentMemory', 'vcpu', 'vcpus', 'os', 'cpu', 'clock', 'devices'])
  let lost = 0
  for (const { path, domain } of definitions) {
    const copy = structuredClone(domain)
    rewrite(copy, readDomain(domain))
    for (const child of elementsOf(domain)) {
      const kept = elementsOf(copy, child.name)
      if (
        known.has(child.name)
          ? kept.length > 0 || child.name === 'vcpus'
          : kept.some((one) => sameXml(one, child))
      )
        continue
      lost += 1
      t.fail(`${path}: ${child.name}`)
    }
    const devices = elementsOf(at(domain, 'devices')).filter(
      ({ name }) => !['disk', 'interface', 'serial', 'console', 'graphics', 'rng', 'channel'].includes(name),
    )
    for (const device of devices)
      if (!elementsOf(at(copy, 'devices'), device.name).some((one) => sameXml(one, device))) {
        lost += 1
        t.fail(`${path}: ${device.name}`)
      }
  }
  t.equal(lost, 0)
})

/** What libvirt makes of a definition and the declaration of a VM never leaves to it, by document. */
const explained: Readonly<Record<string, string>> = {
  'disks.*.boot': "without any turn to boot libvirt adds <os><boot dev='hd'/>, and a turn is always declared",
  'disks.*.path': 'only files and block devices are declared, and no network disks',
  'nics.*.model': 'the model of a NIC is always declared, and in lower case',
  'console.display': 'a socket that libvirt itself named is left out again',
  memory: 'NVDIMMs are not declared, and are added to the memory on ppc64',
}

t.test('what libvirt makes of a definition is no difference', async (t) => {
  const [before, after] = ['qemuxml2argvdata', 'qemuxml2xmloutdata'].map((name) => join(folder, name)) as [
    string,
    string,
  ]
  const unexplained: string[] = []
  let pairs = 0
  let clean = 0
  for (const path of globSync(join(after, '*.xml'))) {
    const name = basename(path)
    const stem = name.replace(/(-inactive)?\.xml$/, '').replace(/\.\w+-(latest|[\d.]+)$/, '')
    const source = [`${stem}.xml`, `${stem}.x86_64-latest.xml`]
      .map((one) => join(before, one))
      .find((one) => existsSync(one))
    if (source === undefined || /-active/.test(name)) continue
    const [wanted, observed] = [source, path].map((one) => parseXml(readFileSync(one, 'utf8')).root) as [
      XmlElement,
      XmlElement,
    ]
    if (wanted.name !== 'domain') continue
    pairs += 1
    const differences = domainDifferences(readDomain(wanted), readDomain(observed))
    if (differences.length === 0) clean += 1
    for (const difference of differences) {
      const key = difference.path.replace(/^(disks|nics)\..*\./, '$1.*.')
      if (explained[key] === undefined)
        unexplained.push(`${name}: ${difference.path}: ${difference.desired} <- ${difference.observed}`)
    }
  }
  t.same(unexplained, [])
  t.ok(pairs > 500 && clean / pairs > 0.97, `${clean} of ${pairs} pairs without any difference`)
})
