// The definition of a VM is taken away, and with it, when that is asked for, what it kept on the host.

import { at, type XmlElement } from '../../provisioning/libvirt/xml.ts'
import type { Action } from '../../provisioning/resource.ts'
import { readDefinition } from '../../provisioning/vms/definition.ts'
import { isSeed } from '../../provisioning/vms/names.ts'
import { VIR } from '../node-libvirt/index.ts'
import { checkpointsOf } from './backup/checkpoints.ts'
import { unfinished } from './clone.ts'
import type { KnownInHand } from './devices.ts'
import type { DefinedVm } from './facts.ts'
import { unnamedVariables } from './firmware.ts'
import { leftBesideSeed } from './seed.ts'
import { folderOf, isBelow, ownFolders, type Site, wantOff, wantUndeclared } from './site.ts'
import type { Became } from './transitions.ts'

/** The disks of the other VMs. */
const disksOfOthers = (vm: DefinedVm, all: readonly DefinedVm[]): ReadonlySet<string> =>
  new Set(
    all
      .filter(({ uuid }) => uuid !== vm.uuid)
      .flatMap(({ model }) => model?.disks.flatMap(({ source }) => source?.at ?? []) ?? []),
  )

/** Which files go with a VM that is deleted with its disks, and which stay: what others have, what is in no pool, devices. */
export function filesToGo(
  vm: DefinedVm,
  all: readonly DefinedVm[],
  pools: readonly string[],
): { readonly go: readonly string[]; readonly kept: readonly string[] } {
  const others = disksOfOthers(vm, all)
  const disks = (vm.model?.disks ?? []).flatMap(({ source, readOnly }) =>
    source === null ? [] : [{ ...source, readOnly }],
  )
  const isGoing = ({ kind, at: path, readOnly }: (typeof disks)[number]): boolean =>
    kind === 'file' &&
    !others.has(path) &&
    pools.some((pool) => isBelow(path, pool)) &&
    // A read-only image may be anybody's; what is in the VM's own folder is its own.
    (!readOnly || pools.some((pool) => folderOf(path) === `${pool}/${vm.name}`))
  return {
    go: disks.filter(isGoing).map(({ at }) => at),
    kept: disks.filter((disk) => !isGoing(disk)).map(({ at }) => at),
  }
}

/** What is left beside files that go, where the VM was made as a clone, or its seed was made, and that was cut short. */
async function leftBeside(
  vm: DefinedVm,
  files: readonly string[],
  all: readonly DefinedVm[],
  { reader }: Site,
): Promise<readonly string[]> {
  const others = disksOfOthers(vm, all)
  const seed = vm.model?.disks.find(isSeed)?.source?.at
  const left: string[] = []
  for (const file of files) {
    const seeds = file === seed ? [file, unfinished(file)] : []
    const beside = (await Promise.all(seeds.map((path) => leftBesideSeed(reader, path)))).flat()
    for (const path of [unfinished(file), ...beside])
      if (!others.has(path) && (await reader.facts(path)) !== null) left.push(path)
  }
  return left
}

/** What of the firmware's variables and the TPM there is, as flags of an undefine that keeps or takes it: older drivers know none. */
function rest(root: XmlElement, keep: boolean): number {
  const hasNvram = at(root, 'os', 'nvram') !== undefined
  const hasTpm = at(root, 'devices', 'tpm') !== undefined
  const nvram = keep ? VIR.DOMAIN_UNDEFINE_KEEP_NVRAM : VIR.DOMAIN_UNDEFINE_NVRAM
  const tpm = keep ? VIR.DOMAIN_UNDEFINE_KEEP_TPM : VIR.DOMAIN_UNDEFINE_TPM
  return (hasNvram ? nvram : 0) | (hasTpm ? tpm : 0)
}

const records = VIR.DOMAIN_UNDEFINE_MANAGED_SAVE | VIR.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA

/**
 * Deletes a VM that is off and that no document declares. With `disks` its files, snapshots and saved memory go too; without, all of
 * that is kept, and libvirt refuses while there are snapshots or saved memory. What it knows of the last backup goes in any case:
 * the next one of these disks would be whole anyway.
 */
export async function deleteVm(
  { to, vm, changes }: KnownInHand,
  disks: boolean,
  all: readonly DefinedVm[],
  site: Site,
): Promise<Became> {
  wantUndeclared(vm, site)
  wantOff(vm)
  if (disks) await ownFolders(vm, site)
  const { root } = readDefinition(
    await (await to()).domainGetXMLDesc({
      dom: { name: vm.name, uuid: vm.uuid },
      flags: VIR.DOMAIN_XML_INACTIVE,
    }),
  )
  const variables = unnamedVariables(root, site.kept, vm.name)
  const { go, kept } = disks ? filesToGo(vm, all, site.pools) : { go: [], kept: [] }
  const left = await leftBeside(vm, go, all, site)
  const removals: readonly Action[] = [
    ...left,
    ...go,
    ...(disks && variables !== null ? [variables] : []),
  ].map((path) => ({ kind: 'remove', path }))
  await changes.make(
    {
      word: 'delete',
      vm: vm.name,
      summary: disks
        ? `delete it and ${go.join(', ') || 'no file'}`
        : 'delete its definition, keep its disks',
      risk: disks ? 'destroys-data' : 'disruptive',
      actions: [...removals, { kind: 'domain', operation: 'undefine', name: vm.name, uuid: vm.uuid }],
    },
    async () => {
      const libvirt = await to()
      const dom = { name: vm.name, uuid: vm.uuid }
      const isTracked = (await checkpointsOf(to, dom)).length > 0
      const flags =
        (isTracked ? VIR.DOMAIN_UNDEFINE_CHECKPOINTS_METADATA : 0) |
        (disks ? records : 0) |
        rest(root, !disks)
      // Cut short, the definition still tells what is to go; a VM that lacks a disk is not started.
      for (const action of removals) await site.performer.perform(action)
      await libvirt.domainUndefineFlags({ dom, flags })
    },
  )
  const stays = kept.length === 0 ? '' : `; kept: ${kept.join(', ')}`
  return {
    changed: true,
    text: disks ? `deleted with ${go.length} of its files${stays}` : 'deleted; its disks are kept',
  }
}
