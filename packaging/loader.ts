// The first code of the executable: takes the bundle's chunks from the assets of a single executable (node:sea) as they are
// asked for.
import { getRawAsset } from 'node:sea'
import { Script } from 'node:vm'
import { chunkLoader } from './chunks.ts'

const assetOf = (key: string) => Buffer.from(getRawAsset(key) as ArrayBuffer)

// V8 rejects a code cache that does not fit, which costs the time to compile and nothing else.
chunkLoader(
  (name) => new Script(assetOf(name).toString(), { filename: name, cachedData: assetOf(`${name}.cache`) }),
)('./main.js')
