// Runs the bundle while it is built, to write V8 code caches that hold the functions which a start needs: all chunks (the
// arguments, files of the working directory) are loaded, then `garrison status --json` is asked of a root side that answers {}.
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { Script } from 'node:vm'
import { chunkLoader } from './chunks.ts'

const names = process.argv.splice(2)
const scripts = new Map(
  names.map((name) => [name, new Script(readFileSync(name, 'utf8'), { filename: name })]),
)
const load = chunkLoader((name) => scripts.get(name) as Script)

process.on('exit', () => {
  for (const [name, script] of scripts) writeFileSync(`${name}.cache`, script.createCachedData())
})
// reflect-metadata has to be there before the packages that need it, as agent/peers/authority.ts sees to.
for (const name of names.toSorted(
  (a, b) => Number(b.startsWith('Reflect-')) - Number(a.startsWith('Reflect-')),
))
  if (name !== 'main.js') load(`./${name}`)
const door = createServer((_, response) => {
  response
    .writeHead(200, { 'content-type': 'application/json', 'content-length': 2, 'garrison-exit': 0 })
    .end('{}')
})
door.listen('door.sock', () => {
  process.argv.push('status', '--json', '--socket', 'door.sock')
  load('./main.js')
})
