// The guard of VMs on storage that other hosts have too: a hook that libvirt runs before it starts one, by itself or for anybody.

import type { Step } from '../resource.ts'
import type { ObservedVms } from './observe.ts'
import { step } from './steps.ts'

const folder = '/etc/libvirt/hooks/qemu.d'

/** Where libvirt, 6.5 and later, looks for it when it begins. */
export const guardPath = `${folder}/garrison`

/** What is there: `garrison libvirt-hook`, with what libvirt says added. */
export const guardText = `#!/usr/bin/garrison libvirt-hook
# Written by Garrison. libvirt asks it before it starts a VM, and starts none that belongs to another host: both would write to its
# disks. garrison vm take makes it this host's. Where this itself is in the way, remove it: VMs are then started unasked.
`

/** The step that puts the guard where a declared pool is shared. It is left when none is any more: it asks nothing of others. */
export function guardSteps({ pools, guard }: ObservedVms): readonly Step[] {
  const shared = pools.find((pool) => pool.shared)
  if (shared === undefined || guard === guardText) return []
  return [
    step('guard', guardPath, {
      summary: `libvirt asks who owns a VM before it starts one, from its own next start on: other hosts have pool ${shared.name} too`,
      because: [{ path: 'vms.guard', desired: true, observed: guard === null ? null : 'changed' }],
      actions: [
        { kind: 'folder', path: folder },
        { kind: 'write', path: guardPath, content: guardText, mode: 0o755 },
      ],
    }),
  ]
}
