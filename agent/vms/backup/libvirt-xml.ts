// The documents that libvirt takes for a backup: <domainbackup> and <domaincheckpoint>.

import {
  element,
  elementsOf,
  parseXml,
  printXml,
  textOf,
  at as within,
} from '../../../provisioning/libvirt/xml.ts'
import { unnamedVariables } from '../firmware.ts'

/** A disk that is copied: into which file, and since which checkpoint (null: all of it). */
export interface PushedDisk {
  readonly target: string
  readonly path: string
  readonly since: string | null
}

/** Everything that libvirt is told of a backup that it pushes into files. Disks that are not named are left out. */
export const backupXml = (disks: readonly PushedDisk[], others: readonly string[]): string =>
  printXml(
    element('domainbackup', { mode: 'push' }, [
      element('disks', {}, [
        ...disks.map(({ target, path, since }) =>
          element(
            'disk',
            {
              name: target,
              backup: 'yes',
              type: 'file',
              backupmode: since === null ? 'full' : 'incremental',
              incremental: since ?? undefined,
            },
            [element('driver', { type: 'qcow2' }), element('target', { file: path })],
          ),
        ),
        ...others.map((name) => element('disk', { name, backup: 'no' })),
      ]),
    ]),
  )

/** The disks that a backup which is under way copies, and the files that they are pushed into, from what libvirt says of it. */
export function pushedDisks(xml: string): readonly { readonly target: string; readonly file: string }[] {
  const { root } = parseXml(xml)
  return elementsOf(within(root, 'disks'), 'disk').flatMap((disk) => {
    const target = disk.attributes.get('name')
    const file = within(disk, 'target')?.attributes.get('file')
    return target === undefined || file === undefined ? [] : { target, file }
  })
}

/** A checkpoint that keeps for some disks what changes from now on. */
export const checkpointXml = (name: string, disks: readonly string[], others: readonly string[]): string =>
  printXml(
    element('domaincheckpoint', {}, [
      element('name', {}, [name]),
      element('disks', {}, [
        ...disks.map((disk) => element('disk', { name: disk, checkpoint: 'bitmap' })),
        ...others.map((disk) => element('disk', { name: disk, checkpoint: 'no' })),
      ]),
    ]),
  )

/** Where the variables of a VM's firmware are, and whether it has a TPM, by its definition. `kept` is where libvirt keeps what it chose. */
export function keptOutsideDisks(
  xml: string,
  vm: string,
  kept: string,
): {
  readonly firmware: string | null
  readonly hasTpm: boolean
} {
  const { root } = parseXml(xml)
  const nvram = within(root, 'os', 'nvram')
  const path = within(nvram, 'source')?.attributes.get('file') ?? textOf(nvram) ?? ''
  return {
    firmware: path.startsWith('/') ? path : unnamedVariables(root, kept, vm),
    hasTpm: within(root, 'devices', 'tpm') !== undefined,
  }
}
