// The text files of this repository as the house rules read them: whole, without comments, and without the content of strings.

import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** One file; `path` is relative to the repository. */
export interface Source {
  readonly path: string
  readonly text: string
}

const root = join(import.meta.dirname, '../..')

const leftOut = new Set(['node_modules', 'dist', '.tap', '.git'])

/** Every text file that is written by hand. Golden and recorded files are what hosts said, not what we say. */
export function sources(): readonly Source[] {
  const paths = globSync('**/*.{ts,md,json,yaml,service,socket,conf,spec}', {
    cwd: root,
    exclude: (name) => leftOut.has(name),
  })
  return paths
    .filter((path) => !/^test\/(plan|observe|unit\/answers)\/.*\.json$|^package-lock\.json$/.test(path))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))
}

/** The program without its comments. Enough for formatted code: a comment there has a line of its own or follows a blank. */
export const codeOf = (text: string): string =>
  text
    .replace(/^[ \t]*\/\*[\s\S]*?\*\//gm, '')
    .replace(/^[ \t]*\/\/.*$/gm, '')
    .replace(/[ \t]\/\/ .*$/gm, '')

/** A template in which no other one is nested. */
const template = /`(?:[^`$\\]|\\.|\$(?!\{)|\$\{[^{}`]*\})*`/g

/** The program without comments and without what its strings say; what templates compute stays, in parentheses. */
export function bareCodeOf(text: string): string {
  let code = codeOf(text).replace(/'(?:[^'\\\n]|\\.)*'/g, "''")
  for (let before = ''; before !== code; ) {
    before = code
    code = code.replace(template, (whole) =>
      [...whole.matchAll(/\$\{([^{}`]*)\}/g)].map(([, inside]) => `(${inside})`).join(' '),
    )
  }
  return code
}

/** What a module imports or exports anew, types too, as written. */
export const importsOf = (text: string): readonly string[] =>
  [
    ...text.matchAll(
      /^(?:import|export)\b[^'";]*?\bfrom\s+'([^']+)'|^import '([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm,
    ),
  ].map(([, from, bare, dynamic]) => from ?? bare ?? dynamic ?? '')

/** Names that a module takes from another, under the names that the other gives them. */
export const namesFrom = (text: string, module: RegExp): readonly string[] =>
  [...text.matchAll(/^import\s+(\*|\w+|\{[^}]*\})[^'"]*?\bfrom\s+'([^']+)'/gm)]
    .filter(([, , from = '']) => module.test(from))
    .flatMap(([, names = '']) =>
      names.startsWith('{') ? names.replace(/[{}]|\btype\b/g, '').split(',') : ['everything'],
    )
    .map((name) => name.trim().split(' ')[0] ?? '')
    .filter((name) => name !== '')
