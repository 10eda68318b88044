// The first code of the executable: takes the bundle's chunks from the assets of a single executable (node:sea) as they are
// asked for.
import { getAsset, getRawAsset } from 'node:sea'
import { Script } from 'node:vm'
import { chunkLoader } from './chunks.ts'

// V8 rejects a code cache that does not fit, which costs the time to compile and nothing else.
const scriptOf = (name: string) =>
  new Script(getAsset(name, 'utf8'), {
    filename: name,
    cachedData: Buffer.from(getRawAsset(`${name}.cache`) as ArrayBuffer),
  })

chunkLoader(scriptOf)('./main.js')
