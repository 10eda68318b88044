// The cloud-init seed of a VM that is a copy of another: read out of the old one (xorriso), and made anew for its name and MACs.

import type { HostReader, Performer } from '../../provisioning/host.ts'
import type { NicModel } from '../../provisioning/vms/nics.ts'
import {
  type AnotherSeed,
  besideSeed,
  oldSeedFolder,
  type SeedTexts,
  seedActions,
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

/** What is beside the seed at a path, in the order in which it can be removed. The files need not be there. */
export async function leftBesideSeed(
  reader: Pick<HostReader, 'list'>,
  path: string,
): Promise<readonly string[]> {
  const { files, folders } = besideSeed(path)
  const within = folders.map(async (folder) => {
    const names = await reader.list(folder)
    return names === null ? [] : [...names.map((name) => `${folder}/${name}`), folder]
  })
  return [...files, ...(await Promise.all(within)).flat()]
}

/**
 * Makes the seed of a VM of that name at a path, from the one in an image, which may be at that path itself; null, and nothing made, when
 * that is none that Garrison has made. What an earlier run has left beside the path goes first.
 */
export async function makeAnotherSeed(
  {
    reader,
    performer,
  }: {
    readonly reader: Pick<HostReader, 'readText' | 'list'>
    readonly performer: Pick<Performer, 'perform'>
  },
  {
    image,
    path,
    name,
    macs,
  }: {
    readonly image: string
    readonly path: string
    readonly name: string
    readonly macs: ReadonlyMap<string, string>
  },
): Promise<AnotherSeed | null> {
  const removed = async (paths: readonly string[]): Promise<void> => {
    for (const one of paths) await performer.perform({ kind: 'remove', path: one })
  }
  const old = oldSeedFolder(path)
  await removed(await leftBesideSeed(reader, path))
  for (const action of unpackActions(image, old)) await performer.perform(action)
  const texts = await Promise.all(
    seedFiles.map(async (file) => [file, await reader.readText(`${old}/${file}`)] as const),
  )
  await removed([...seedFiles.map((file) => `${old}/${file}`), old])
  if (texts.some(([, text]) => text === null)) return null
  const another = seedOfAnother(name, Object.fromEntries(texts) as SeedTexts, macs)
  if (another !== null) for (const action of seedActions(another.seed, path)) await performer.perform(action)
  return another
}

/** What became of the seed of a copy, in words; `of` is the VM that it was copied from. */
export function seedText(another: AnotherSeed | null, of: string): string {
  if (another === null)
    return `it keeps the seed of ${of}, which is not as Garrison makes them and names other MACs: declare it with a cloudInit of its own`
  return another.isNetworkLost
    ? `its seed is its own; its NICs ask DHCP, for what was said of the network is ${of}’s`
    : 'its seed is its own'
}
