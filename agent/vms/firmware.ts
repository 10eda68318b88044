// Where libvirt's QEMU driver keeps the variables of a firmware that it chose itself. The definition for the next start says nothing of
// it (seen with libvirt 9.0, `<os firmware='efi'>`); newer versions name the file there.

import { at, type XmlElement } from '../../provisioning/libvirt/xml.ts'

/** The file of a VM below `folder`, which is `/var/lib/libvirt` on a host. */
export const variablesPath = (folder: string, vm: string): string => `${folder}/qemu/nvram/${vm}_VARS.fd`

/** That file, of a VM whose definition leaves its firmware to libvirt and names no file; null for any other. */
export const unnamedVariables = (domain: XmlElement, folder: string, vm: string): string | null => {
  const os = at(domain, 'os')
  return os?.attributes.get('firmware') === 'efi' && at(os, 'nvram') === undefined
    ? variablesPath(folder, vm)
    : null
}
