// The first code of the executable: takes the bundle's chunks from the assets of a single executable (node:sea) as they are
// asked for. Where each is in `bundle` is told by `index`: executable.ts.
import { getAsset, getRawAsset } from 'node:sea'
import { Script } from 'node:vm'
import { chunkLoader } from './chunks.ts'

const bundle = Buffer.from(getRawAsset('bundle') as ArrayBuffer)
const index: Readonly<Record<string, readonly [cacheAt: number, codeAt: number, end: number]>> = JSON.parse(
  getAsset('index', 'utf8'),
)

// V8 rejects a code cache that does not fit, which costs the time to compile and nothing else.
chunkLoader((filename) => {
  const [cacheAt, codeAt, end] = index[filename] ?? [0, 0, 0]
  const code = bundle.toString('utf8', codeAt, end)
  return new Script(code, { filename, cachedData: bundle.subarray(cacheAt, codeAt) })
})('./main.js')
