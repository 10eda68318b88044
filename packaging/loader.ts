// The first code of the executable: takes the bundle's chunks from the assets of a single executable (node:sea) as they are
// asked for. Where each is in `bundle` is told by `index`, a line for each: executable.ts.
import { getRawAsset } from 'node:sea'
import { Script } from 'node:vm'
import { chunkLoader } from './chunks.ts'

const asset = (name: string): Buffer => Buffer.from(getRawAsset(name) as ArrayBuffer)
const bundle = asset('bundle')
const index = asset('index')

// V8 rejects a code cache that does not fit, which costs the time to compile and nothing else.
chunkLoader((filename) => {
  const at = index.indexOf(`\n${filename} `) + 1
  const line = index.toString('latin1', at, index.indexOf('\n', at))
  const [cacheAt = 0, codeAt = 0, end = 0] = line.split(' ').slice(1).map(Number)
  const code = bundle.toString('utf8', codeAt, end)
  return new Script(code, { filename, cachedData: bundle.subarray(cacheAt, codeAt) })
})('./main.js')
