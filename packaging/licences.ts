// Collects the licence texts of everything inside the executable: the npm packages of the bundle, and Node.js.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runtimeFolder } from './executable.ts'

const rule = `\n${'='.repeat(78)}\n`

/**
 * The text of THIRD-PARTY-LICENCES for a bundle of `inputs` (paths from `root`). A package without a licence text of its own
 * must be under the licence whose text is in `<root>/LICENSE`, or this throws.
 */
export async function thirdPartyLicences(root: string, inputs: readonly string[]): Promise<string> {
  const folders = new Set(
    inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []),
  )
  const parts: string[] = []
  for (const folder of [...folders].sort()) {
    const { name, version, license } = JSON.parse(await readFile(join(root, folder, 'package.json'), 'utf8'))
    const texts = (await readdir(join(root, folder))).filter((file) =>
      /^(licen[cs]e|notice|copying)/i.test(file),
    )
    if (texts.length === 0 && license !== 'Apache-2.0') {
      throw new Error(`${name} ${version} (${license}) brings no licence text`)
    }
    const sources = texts.length > 0 ? texts.sort().map((file) => join(folder, file)) : ['LICENSE']
    const bodies = await Promise.all(sources.map((file) => readFile(join(root, file), 'utf8')))
    parts.push(`${name} ${version} (${license})\n\n${bodies.join('\n')}`)
  }
  const node = await readFile(join(runtimeFolder(root), 'LICENSE'), 'utf8')
  return [...parts, `Node.js ${process.version}\n\n${node}`].join(rule)
}
