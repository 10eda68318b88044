// The cloud-init seed of a VM that is a copy of another: read out of the old one (xorriso), and made anew for its name and MACs.

import type { HostReader, Performer } from '../../provisioning/host.ts'
import type { Action } from '../../provisioning/resource.ts'
import type { NicModel } from '../../provisioning/vms/nics.ts'
import {
  type AnotherSeed,
  type SeedTexts,
  seedFiles,
  seedOfAnother,
  unpackActions,
} from '../../provisioning/vms/seed.ts'

/** The new MAC of each old one, of NICs that are the same but for it. */
export const macsOf = (old: readonly NicModel[], made: readonly NicModel[]): ReadonlyMap<string, string> =>
  new Map(
    old.flatMap(({ mac }, index) => {
      const now = made[index]?.mac
      return mac !== null && now ? [[mac, now] as const] : []
    }),
  )

/**
 * The seed for a VM of that name, from the one in an image; null when that is none that Garrison has made. `stage` is a folder that is
 * made for the while, and in which nothing else is made: what is left of it when this is cut short goes with the next.
 */
export async function anotherSeed(
  {
    reader,
    performer,
  }: { readonly reader: Pick<HostReader, 'readText'>; readonly performer: Pick<Performer, 'perform'> },
  {
    image,
    stage,
    name,
    macs,
  }: {
    readonly image: string
    readonly stage: string
    readonly name: string
    readonly macs: ReadonlyMap<string, string>
  },
): Promise<AnotherSeed | null> {
  for (const action of unpackActions(image, stage)) await performer.perform(action)
  const texts = await Promise.all(
    seedFiles.map(async (file) => [file, await reader.readText(`${stage}/${file}`)] as const),
  )
  const removals = [...seedFiles.map((file) => `${stage}/${file}`), stage]
  for (const path of removals) await performer.perform({ kind: 'remove', path } satisfies Action)
  if (texts.some(([, text]) => text === null)) return null
  return seedOfAnother(name, Object.fromEntries(texts) as SeedTexts, macs)
}

/** What became of the seed of a copy, in words; `of` is the VM that it was copied from. */
export function seedText(another: AnotherSeed | null, of: string): string {
  if (another === null)
    return `it keeps the seed of ${of}, which is not as Garrison makes them and names other MACs: declare it with a cloudInit of its own`
  return another.isNetworkLost
    ? `its seed is its own; its NICs ask DHCP, for what was said of the network is ${of}’s`
    : 'its seed is its own'
}
