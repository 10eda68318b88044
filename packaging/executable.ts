// Builds the executable: esbuild makes chunks of agent/main.ts, Node's --build-sea puts them into a stripped Node binary.
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, transform } from 'esbuild'
import { runTool } from '../test/lab/processes.ts'

const language = { platform: 'node', target: `node${process.versions.node}`, logLevel: 'error' } as const

/** The folder of the npm package with the runtime that ships, for this machine's architecture. */
export const runtimeFolder = (root: string): string =>
  join(root, 'node_modules', `node-linux-${process.arch}`)

/**
 * Makes `<work>/garrison` from `<root>/agent/main.ts`; answers the inputs that went into it, as paths from `root`. Needs
 * /usr/bin/strip, and must itself run on the runtime that ships.
 */
export async function buildExecutable(root: string, work: string): Promise<string[]> {
  const node = join(runtimeFolder(root), 'bin', 'node')
  const shipped = (await runTool([node, '--version'])).stdout.trim()
  if (shipped !== process.version) {
    throw new Error(
      `${shipped} ships and its code caches must come from it, not ${process.version}: npm run package`,
    )
  }
  const { chunks, inputs } = await bundle(root, work)
  for (const [name, code] of chunks) await writeFile(join(work, name), code)
  for (const entry of [import.meta.resolve('./loader.ts'), import.meta.resolve('./rehearsal.ts')]) {
    const outfile = join(work, `${basename(entry, '.ts')}.cjs`)
    await build({ ...language, entryPoints: [fileURLToPath(entry)], bundle: true, outfile })
  }
  await copyFile(node, join(work, 'node'))
  // Before the assets go in: afterwards strip would throw them away.
  await runTool(['/usr/bin/strip', '--', join(work, 'node')])
  // From within, here and below: paths of the machine that builds would end up in the executable.
  const names = [...chunks.keys()]
  await runTool(['/usr/bin/env', '-C', work, './node', 'rehearsal.cjs', ...names])
  await pack(work, names)
  const sea = {
    main: 'loader.cjs',
    executable: 'node',
    output: 'garrison',
    assets: { bundle: 'bundle', index: 'index' },
    useCodeCache: true,
    disableExperimentalSEAWarning: true,
    // By default NODE_OPTIONS would be obeyed, and root runs this.
    execArgvExtension: 'none',
  }
  await writeFile(join(work, 'sea.json'), JSON.stringify(sea))
  await runTool(['/usr/bin/env', '-C', work, './node', '--build-sea', 'sea.json'])
  return inputs
}

/**
 * Puts all chunks, each behind its code cache, into one file, and where they are into another: whenever an asset is taken, Node 26
 * copies the table of all of them, and with one for each of 250 chunks that was a fifth of a start.
 */
async function pack(work: string, names: readonly string[]): Promise<void> {
  const parts: Buffer[] = []
  let index = '\n'
  let at = 0
  for (const name of names) {
    const [cache, code] = [await readFile(join(work, `${name}.cache`)), await readFile(join(work, name))]
    index += `${name} ${at} ${at + cache.length} ${at + cache.length + code.length}\n`
    parts.push(cache, code)
    at += cache.length + code.length
  }
  await writeFile(join(work, 'bundle'), parts)
  await writeFile(join(work, 'index'), index)
}

/**
 * One chunk for each dynamic import, so that a verb loads only what it needs: in one piece the bundle would cost 10 ms at each
 * start, with code cache. Not minified: it starts no faster, and the stack traces are worth more.
 */
async function bundle(root: string, work: string) {
  const { outputFiles, metafile } = await build({
    ...language,
    absWorkingDir: root,
    entryPoints: ['agent/main.ts'],
    bundle: true,
    splitting: true,
    format: 'esm',
    outdir: work,
    entryNames: 'main',
    chunkNames: '[name]-[hash]',
    legalComments: 'none',
    metafile: true,
    write: false,
  })
  const outputs = new Map(Object.entries(metafile.outputs).map(([path, one]) => [basename(path), one]))
  const sources = new Map<string, string>()
  for (const file of outputFiles) {
    const name = basename(file.path)
    const { code, warnings } = await transform(file.text, {
      ...language,
      format: 'cjs',
      supported: { 'dynamic-import': false },
      sourcefile: name,
    })
    // Such as import.meta, which would be empty here.
    if (warnings.length > 0) throw new Error(`${name}: ${warnings.map((one) => one.text).join('; ')}`)
    const entry = outputs.get(name)?.entryPoint
    // esbuild gives import() of a CommonJS package only its default; Node gives its names as well.
    const names =
      entry !== undefined && metafile.inputs[entry]?.format === 'cjs'
        ? 'module.exports = { ...module.exports.default, default: module.exports.default, __esModule: true }'
        : ''
    sources.set(name, `(function (exports, require, module) {${code}${names}\n})`)
  }
  return { chunks: sources, inputs: Object.keys(metafile.inputs) }
}
