// What verbs that change the files or the name of a VM have to know of the host.

import { recordedHost } from '../../provisioning/vms/ownership.ts'
import type { Context } from '../api/context.ts'
import type { Connection } from '../node-libvirt/index.ts'
import type { Site } from '../vms/site.ts'

/** Reads it. Throws `libvirt.unreachable`. */
export async function siteOf(context: Context<Connection>): Promise<Site> {
  const { reader, performer } = context
  const [host, declared, pools] = await Promise.all([
    recordedHost(reader),
    context.declaredMachines(),
    reader.pools(),
  ])
  return {
    reader,
    performer,
    host,
    declared,
    pools: pools.flatMap(({ path }) => path ?? []),
    kept: context.libvirtFolders.kept,
  }
}
