// A VM that is off gets another name.

import { nextEpoch, recordActions } from '../../provisioning/vms/ownership.ts'
import type { KnownInHand } from './devices.ts'
import type { DefinedVm } from './facts.ts'
import { unnamedVariables, variablesPath } from './firmware.ts'
import { secretDefinition } from './rewrite.ts'
import { ownFolders, type Site, wantFree, wantOff, wantUndeclared } from './site.ts'
import type { Became } from './transitions.ts'

/** Gives it another name. Its disks stay where they are; whose they are is recorded under the new one. */
export async function rename(
  { to, vm, changes }: KnownInHand,
  newName: string,
  all: readonly DefinedVm[],
  site: Site,
): Promise<Became> {
  wantFree(newName, all, 'vm rename')
  wantUndeclared(vm, site)
  wantOff(vm)
  const own = await ownFolders(vm, site)
  const dom = { name: vm.name, uuid: vm.uuid }
  const root = await secretDefinition(await to(), dom)
  const records = own.flatMap(({ folder, owner }) => {
    const epoch = nextEpoch(owner)
    return epoch === null ? [] : recordActions(folder, newName, { ...owner, epoch })
  })
  const unnamed = unnamedVariables(root, site.kept, vm.name)
  const variables = unnamed !== null && (await site.reader.facts(unnamed)) !== null ? unnamed : null
  const renamed = variablesPath(site.kept, newName)
  const move = (from: string, to: string) => site.performer.perform({ kind: 'move', from, to })
  await changes.make(
    { word: 'rename', vm: vm.name, summary: `call it ${newName}`, risk: 'safe', actions: records },
    async () => {
      // Where libvirt will look for them. Before the rename: cut short, the next one finds them there.
      if (variables !== null) await move(variables, renamed)
      try {
        await (await to()).domainRename({ dom, newName })
      } catch (error) {
        if (variables !== null) await move(renamed, variables)
        throw error
      }
      for (const action of records) await site.performer.perform(action)
    },
  )
  return { changed: true, text: `is now ${newName}` }
}
