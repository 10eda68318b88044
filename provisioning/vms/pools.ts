// What is to be done so that the declared pools are there: folders on mounted volumes, known to libvirt as `dir` pools.

import type { Desired } from '../desired.ts'
import { element, printXml } from '../libvirt/xml.ts'
import type { Action, Step } from '../resource.ts'
import type { ObservedPool, ObservedVms } from './observe.ts'
import { blockedBy, change, type Objection, step } from './steps.ts'

/** Why nothing may be made or started in a pool, or null. */
export function poolObjection(pool: ObservedPool, path: string): Objection | null {
  const { name, unmounted, failedArray, readOnly, folder } = pool
  if (unmounted !== null)
    return { code: 'vm.not-mounted', message: `pool ${name} is on ${unmounted}, where nothing is mounted` }
  if (failedArray !== null)
    return { code: 'vm.array-failed', message: `pool ${name} is on ${failedArray}, which has failed` }
  if (readOnly) return { code: 'vm.read-only', message: `${path}, pool ${name}, is mounted read-only` }
  if (folder !== null && folder !== 'folder')
    return { code: 'vm.pool-in-the-way', message: `${path} is there, and is no folder` }
  return null
}

/** Why libvirt cannot have the pool as it is declared, or null. */
function libvirtObjection({ name, known, rival }: ObservedPool, path: string): Objection | null {
  if (known !== null && (known.type !== 'dir' || known.path !== path))
    return {
      code: 'vm.pool-differs',
      message: `libvirt has ${name} as a ${known.type} pool${known.path === null ? '' : ` at ${known.path}`}, not at ${path}`,
    }
  // libvirt refuses a second pool at one path.
  return known === null && rival !== null
    ? { code: 'vm.pool-differs', message: `libvirt has ${path} already, as pool ${rival}` }
    : null
}

const poolXml = (name: string, path: string): string =>
  printXml(
    element('pool', { type: 'dir' }, [
      element('name', {}, [name]),
      element('target', {}, [element('path', {}, [path])]),
    ]),
  )

/** Steps of the declared pools, at most one for each. */
export function planPools(observed: ObservedVms, desired: Desired): readonly Step[] {
  return observed.pools.flatMap((pool) => {
    const { name, known, folder } = pool
    const path = desired.vms?.pools[name]?.path
    if (path === undefined) return []
    const at = (field: string): string => `vms.pools.${name}.${field}`
    const objection = poolObjection(pool, path) ?? libvirtObjection(pool, path)
    if (objection !== null)
      return step('pool', name, {
        summary: `at ${path}`,
        because: [{ path: at('usable'), desired: true, observed: false }],
        ...blockedBy(objection),
      })
    const actions: readonly Action[] = [
      ...(folder === null ? [{ kind: 'folder', path, mode: 0o711 } as const] : []),
      ...(known === null
        ? [{ kind: 'pool', operation: 'define', name, xml: poolXml(name, path) } as const]
        : []),
      ...(known?.active ? [] : [{ kind: 'pool', operation: 'start', name } as const]),
      ...(known?.autostart ? [] : [{ kind: 'pool', operation: 'autostart', name, enabled: true } as const]),
    ]
    if (actions.length === 0) return []
    const because = [
      ...(known === null || folder === null
        ? [change(desired, at('path'), path, folder === null ? null : (known?.path ?? null))]
        : []),
      ...(known !== null && !known.active ? [{ path: at('active'), desired: true, observed: false }] : []),
      ...(known !== null && !known.autostart
        ? [{ path: at('autostart'), desired: true, observed: false }]
        : []),
    ]
    return step('pool', name, { summary: `at ${path}`, because, actions })
  })
}
