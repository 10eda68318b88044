// What libvirt knows of every VM, read in a few calls for all and one for each (its definition).

import type { HostReader } from '../../provisioning/host.ts'
import { XmlError } from '../../provisioning/libvirt/xml.ts'
import { HostError, type ProblemReport } from '../../provisioning/problem.ts'
import { readDefinition } from '../../provisioning/vms/definition.ts'
import type { DomainModel } from '../../provisioning/vms/domain.ts'
import { type Power, powerOf } from '../../provisioning/vms/power.ts'
import { type Connection, type Domain, VIR } from '../node-libvirt/index.ts'
import { isRefusal } from './reach.ts'
import { startedMs } from './uptime.ts'

/** One VM. `problem` says why what its definition tells is not there. */
export interface Vm {
  readonly name: string
  readonly uuid: string
  /** libvirt's number for a running one. */
  readonly id: number | null
  readonly power: Power
  /** Why it is so, in libvirt's words. */
  readonly reason: string
  readonly persistent: boolean
  readonly autostart: boolean
  /** Whether its memory is saved, so that the next start resumes it. */
  readonly saved: boolean
  readonly cpus: number | null
  readonly memoryBytes: number | null
  /** Networks, bridges and interfaces that it is on. */
  readonly networks: readonly string[]
  readonly tags: Readonly<Record<string, string>>
  readonly template: string | null
  /** Since when it runs, epoch milliseconds; null when it does not, or that cannot be read. */
  readonly runningSinceMs: number | null
  readonly problem: ProblemReport | null
}

/** A VM with its definition; null when that could not be read. */
export interface DefinedVm extends Vm {
  readonly model: DomainModel | null
}

/** How long one answer may take. A libvirtd that is stopped takes questions all the same, and says nothing. */
const within = { deadlineMs: 10_000 }

/** What libvirt makes of a VM's definition, as it is now: of a running one that which it runs with. */
export async function readModel(
  libvirt: Connection,
  dom: Pick<Domain, 'name' | 'uuid'>,
  flags = 0,
): Promise<DomainModel> {
  const xml = await libvirt.domainGetXMLDesc({ dom, flags }, within)
  try {
    return readDefinition(xml).model
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause
    throw new HostError(
      'host.unexpected-answer',
      `the definition of ${dom.name} is not XML that is read here: ${cause.message}`,
      { cause },
    )
  }
}

const template = ({ origin }: DomainModel): string | null =>
  origin?.template ? `${origin.template.name} ${origin.template.version}` : null

/** Every VM that libvirt has, by name. `runFolder` is where libvirt writes down what runs. Throws `libvirt.unreachable`; what of one VM cannot be read is that VM's problem alone. */
export async function readVms(
  libvirt: Connection,
  reader: Pick<HostReader, 'readText'>,
  runFolder: string,
): Promise<readonly DefinedVm[]> {
  const [all = [], persistent = [], saved = [], autostarted = []] = await Promise.all(
    [
      0,
      VIR.CONNECT_LIST_DOMAINS_PERSISTENT,
      VIR.CONNECT_LIST_DOMAINS_MANAGEDSAVE,
      VIR.CONNECT_LIST_DOMAINS_AUTOSTART,
    ].map((flags) => libvirt.connectListAllDomains({ flags }, within)),
  )
  const [isPersistent, isSaved, isAutostarted] = [persistent, saved, autostarted].map(
    (some) => new Set(some.map(({ uuid }) => uuid)),
  )
  const read = async (dom: Domain): Promise<readonly DefinedVm[]> => {
    let doing: ReturnType<typeof powerOf> = { power: 'unknown', reason: 'unknown' }
    let model: DomainModel | null = null
    let problem: ProblemReport | null = null
    try {
      doing = powerOf(await libvirt.domainGetState({ dom }, within))
      model = await readModel(libvirt, dom)
    } catch (error) {
      // It has gone since it was listed.
      if (isRefusal(error, 'VIR_ERR_NO_DOMAIN')) return []
      if (!(error instanceof HostError) || error.code === 'libvirt.unreachable') throw error
      problem = error.report()
    }
    const { name, uuid, id } = dom
    return [
      {
        name,
        uuid,
        id: id === -1 ? null : id,
        ...doing,
        persistent: isPersistent?.has(uuid) ?? false,
        autostart: isAutostarted?.has(uuid) ?? false,
        saved: isSaved?.has(uuid) ?? false,
        cpus: model?.cpus ?? null,
        memoryBytes: model?.memoryBytes ?? null,
        networks: [...new Set(model?.nics.map(({ source }) => source.at) ?? [])],
        tags: model?.origin?.tags ?? {},
        template: model && template(model),
        runningSinceMs: doing.power === 'off' ? null : await startedMs(reader, runFolder, name),
        problem,
        model,
      },
    ]
  }
  const vms = (await Promise.all(all.map(read))).flat()
  return vms.sort((a, b) => order.compare(a.name, b.name))
}

/** The order of names: `web-2` before `web-10`. */
export const order = new Intl.Collator('en', { numeric: true })
