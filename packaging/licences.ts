// Collects the licence texts of everything inside the executable: the npm packages of the bundle, and Node.js.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runtimeFolder } from './executable.ts'

const rule = `\n${'='.repeat(78)}\n`

interface Licensed {
  readonly heading: string
  readonly license: string
  readonly author: string
  readonly texts: readonly string[]
}

async function licensed(root: string, folder: string): Promise<Licensed> {
  const { name, version, license, author } = JSON.parse(
    await readFile(join(root, folder, 'package.json'), 'utf8'),
  )
  const files = (await readdir(join(root, folder))).filter((file) =>
    /^(licen[cs]e|notice|copying)/i.test(file),
  )
  return {
    heading: `${name} ${version} (${license})`,
    license,
    author: JSON.stringify(author),
    texts: files.sort().map((file) => join(folder, file)),
  }
}

/**
 * The text of THIRD-PARTY-LICENCES for a bundle of `inputs` (paths from `root`). A package without a licence text of its own
 * must share licence and author with one in the bundle that has it, or be under the licence in `<root>/LICENSE`; else throws.
 */
export async function thirdPartyLicences(root: string, inputs: readonly string[]): Promise<string> {
  const folders = new Set(
    inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []),
  )
  const packages = await Promise.all([...folders].sort().map((folder) => licensed(root, folder)))
  const parts: string[] = []
  for (const { heading, license, author, texts } of packages) {
    const kin = packages.find(
      (one) => one.texts.length > 0 && one.license === license && one.author === author,
    )
    const sources =
      texts.length > 0 ? texts : (kin?.texts ?? (license === 'Apache-2.0' ? ['LICENSE'] : undefined))
    if (!sources) throw new Error(`${heading} brings no licence text`)
    const bodies = await Promise.all(sources.map((file) => readFile(join(root, file), 'utf8')))
    parts.push(`${heading}\n\n${bodies.join('\n')}`)
  }
  const node = await readFile(join(runtimeFolder(root), 'LICENSE'), 'utf8')
  return [...parts, `Node.js ${process.version}\n\n${node}`].join(rule)
}
