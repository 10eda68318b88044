// A VM that is off gets another name.

import { nextEpoch, recordActions } from '../../provisioning/vms/ownership.ts'
import type { KnownInHand } from './devices.ts'
import type { DefinedVm } from './facts.ts'
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
  const actions = own.flatMap(({ folder, owner }) => {
    const epoch = nextEpoch(owner)
    return epoch === null ? [] : recordActions(folder, newName, { ...owner, epoch })
  })
  await changes.make(
    { word: 'rename', vm: vm.name, summary: `call it ${newName}`, risk: 'safe', actions },
    async () => {
      await (await to()).domainRename({ dom: { name: vm.name, uuid: vm.uuid }, newName })
      for (const action of actions) await site.performer.perform(action)
    },
  )
  return { changed: true, text: `is now ${newName}` }
}
