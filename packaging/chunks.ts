// How chunks of the bundle find each other, in the executable and while it is built: CommonJS function wrappers in V8 scripts.
import type { Script } from 'node:vm'

type Exports = Record<string, unknown>
type Chunk = (exports: Exports, load: (id: string) => unknown, module: { exports: Exports }) => void

/**
 * Answers a `require`: `./name` runs the script of that chunk, once; every other id is one of Node's own modules, or the error
 * that Node would throw. Each script evaluates to `function (exports, require, module)`.
 */
export function chunkLoader(scriptOf: (name: string) => Script) {
  const loaded = new Map<string, { exports: Exports }>()
  const load = (id: string): unknown => {
    const builtin = process.getBuiltinModule(id)
    if (builtin !== undefined) return builtin
    if (!id.startsWith('./'))
      throw Object.assign(new Error(`Cannot find module ${id}`), { code: 'MODULE_NOT_FOUND' })
    const name = id.slice(2)
    const known = loaded.get(name)
    if (known) return known.exports
    const module: { exports: Exports } = { exports: {} }
    loaded.set(name, module)
    const chunk = scriptOf(name).runInThisContext() as Chunk
    chunk(module.exports, load, module)
    return module.exports
  }
  return load
}
