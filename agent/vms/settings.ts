// Processors, memory, tags and autostart of a VM: for its next start, and at once where its guest allows.

import { at, element, parseXml, printXml, type XmlElement } from '../../provisioning/libvirt/xml.ts'
import { HostError } from '../../provisioning/problem.ts'
import { basicFields } from '../../provisioning/vms/domain.ts'
import { originNamespace, readOrigin, writeOrigin } from '../../provisioning/vms/origin.ts'
import { type Connection, VIR } from '../node-libvirt/index.ts'
import type { DefinedVm } from './facts.ts'
import { rewrite } from './rewrite.ts'
import type { Became, InHand } from './transitions.ts'

/** What is to be set; what is left out stays as it is. */
export interface Settings {
  readonly cpus?: number
  readonly memoryBytes?: number
  readonly tags: Readonly<Record<string, string>>
  readonly untag: readonly string[]
  readonly autostart?: boolean
}

/** What of the settings is not so yet. */
function wantedOf(vm: DefinedVm, settings: Settings): Settings {
  const { cpus, memoryBytes, autostart } = settings
  const tags = Object.entries(settings.tags).filter(([key, value]) => vm.tags[key] !== value)
  return {
    ...(cpus !== undefined && cpus !== vm.cpus && { cpus }),
    ...(memoryBytes !== undefined && memoryBytes !== vm.memoryBytes && { memoryBytes }),
    ...(autostart !== undefined && autostart !== vm.autostart && { autostart }),
    tags: Object.fromEntries(tags),
    untag: settings.untag.filter((key) => Object.hasOwn(vm.tags, key)),
  }
}

const writeTags = (domain: XmlElement, { tags, untag }: Settings): void => {
  const { template = null, digest = '', tags: known = {} } = readOrigin(domain) ?? {}
  const kept = Object.entries({ ...known, ...tags }).filter(([key]) => !untag.includes(key))
  writeOrigin(domain, { template, digest, tags: Object.fromEntries(kept) })
}

/** Changes made to the definition: what the next start has. */
function write(domain: XmlElement, settings: Settings): void {
  const { cpus, memoryBytes, tags, untag } = settings
  if (cpus !== undefined) basicFields.cpus.write(domain, cpus)
  if (memoryBytes !== undefined) basicFields.memoryBytes.write(domain, memoryBytes)
  if (Object.keys(tags).length + untag.length > 0) writeTags(domain, settings)
}

const dom = ({ name, uuid }: DefinedVm) => ({ name, uuid })

/** Sets the tags of the running VM: they are metadata, which no guest needs to allow. */
async function writeLiveTags(libvirt: Connection, vm: DefinedVm, settings: Settings): Promise<void> {
  const xml = await libvirt.domainGetXMLDesc({ dom: dom(vm) })
  const { root } = parseXml(xml)
  writeTags(root, settings)
  const ours = at(root, 'metadata', 'garrison:vm')
  if (ours === undefined) return
  await libvirt.domainSetMetadata({
    dom: dom(vm),
    type: VIR.DOMAIN_METADATA_ELEMENT,
    metadata: printXml(withoutNamespace(ours)),
    key: 'garrison',
    uri: originNamespace,
    flags: VIR.DOMAIN_AFFECT_LIVE,
  })
}

/** An element without prefixes and declarations: libvirt refuses what has a namespace, and gives it one itself. */
const withoutNamespace = ({ name, attributes, children }: XmlElement): XmlElement =>
  element(
    name.replace(/^.*:/, ''),
    Object.fromEntries([...attributes].filter(([one]) => !one.startsWith('xmlns'))),
    children.flatMap((child) => (child.kind === 'element' ? [withoutNamespace(child)] : [])),
  )

/** Tries at once what a running guest may not allow; how that went, in words. */
async function atOnce(what: string, trying: () => Promise<unknown>): Promise<string> {
  try {
    await trying()
    return `${what} at once`
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'libvirt.refused') throw error
    return `${what} from its next start on (not at once: ${error.message})`
  }
}

const sizeText = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`

/** The settings in words, for the journal. */
function summary({ cpus, memoryBytes, tags, untag, autostart }: Settings): string {
  return [
    ...(cpus === undefined ? [] : [`${cpus} processors`]),
    ...(memoryBytes === undefined ? [] : [`memory ${sizeText(memoryBytes)}`]),
    ...Object.entries(tags).map(([key, value]) => `tag ${key}=${value}`),
    ...untag.map((key) => `no tag ${key}`),
    ...(autostart === undefined ? [] : [`autostart ${autostart ? 'on' : 'off'}`]),
  ].join(', ')
}

/** Sets what is not so yet. What the running guest does not allow is made for its next start, and that is said. */
export async function set(
  { to, vm, changes }: InHand & { readonly vm: DefinedVm },
  settings: Settings,
): Promise<Became> {
  const wanted = wantedOf(vm, settings)
  const { cpus, memoryBytes, autostart, tags, untag } = wanted
  const text = summary(wanted)
  if (text === '') return { changed: false, text: 'is so already' }
  if (!vm.persistent)
    throw new HostError('vm.not-defined', `${vm.name} is not defined: it is gone when it ends`, {
      details: { vm: vm.name },
    })
  const isUp = vm.power !== 'off'
  const hasTags = Object.keys(tags).length + untag.length > 0
  const notes = await changes.make({ word: 'set', vm: vm.name, summary: text, risk: 'safe' }, async () => {
    const libvirt = await to()
    const said: string[] = []
    if (cpus !== undefined || memoryBytes !== undefined || hasTags)
      await rewrite(libvirt, dom(vm), (domain) => write(domain, wanted))
    if (cpus !== undefined)
      said.push(
        isUp
          ? await atOnce(`${cpus} processors`, () =>
              libvirt.domainSetVcpusFlags({ dom: dom(vm), nvcpus: cpus, flags: VIR.DOMAIN_VCPU_LIVE }),
            )
          : `${cpus} processors`,
      )
    if (memoryBytes !== undefined)
      said.push(
        isUp
          ? await atOnce(`memory ${sizeText(memoryBytes)}`, () =>
              libvirt.domainSetMemoryFlags({
                dom: dom(vm),
                memory: Math.ceil(memoryBytes / 1024),
                flags: VIR.DOMAIN_MEM_LIVE,
              }),
            )
          : `memory ${sizeText(memoryBytes)}`,
      )
    if (hasTags) {
      if (isUp) await writeLiveTags(libvirt, vm, wanted)
      said.push(summary({ tags, untag }))
    }
    if (autostart !== undefined) {
      await libvirt.domainSetAutostart({ dom: dom(vm), autostart })
      said.push(`autostart ${autostart ? 'on' : 'off'}`)
    }
    return said
  })
  return { changed: true, text: notes.join('; ') }
}
