// The test documents of libvirt's own source package, from the machine's apt sources, kept for the next run.

import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

const kept = join(import.meta.dirname, '../../dist/test/libvirt-source')

/** The machine's apt sources, asked for source packages. */
function sourceLists(folder: string): void {
  const parts = '/etc/apt/sources.list.d'
  const lists = [
    ...(existsSync('/etc/apt/sources.list') ? ['/etc/apt/sources.list'] : []),
    ...(existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : []),
  ]
  lists.forEach((path, index) => {
    const text = readFileSync(path, 'utf8')
    if (path.endsWith('.sources'))
      writeFileSync(join(folder, `${index}.sources`), text.replace(/^Types:.*$/gm, 'Types: deb-src'))
    if (path.endsWith('.list'))
      writeFileSync(join(folder, `${index}.list`), text.replace(/^deb(-src)?\s/gm, 'deb-src '))
  })
}

/**
 * The folder `tests` of libvirt's source with its XML documents. Fetched once; needs apt, tar and xz. Throws with what apt says when
 * there is no source package to be had.
 */
export function libvirtTests(): string {
  const known = existsSync(kept) ? readdirSync(kept).find((name) => name.startsWith('libvirt-')) : undefined
  if (known !== undefined) return join(kept, known, 'tests')
  mkdirSync(join(kept, '..'), { recursive: true })
  const folder = mkdtempSync(`${kept}-`)
  try {
    for (const name of ['parts', 'lists']) mkdirSync(join(folder, name))
    sourceLists(join(folder, 'parts'))
    const apt = (...args: readonly string[]): void => {
      const settings = [
        'Dir::Etc::SourceList=/dev/null',
        `Dir::Etc::SourceParts=${join(folder, 'parts')}`,
        `Dir::State::Lists=${join(folder, 'lists')}`,
        // The unpacked tree, which the checks of a signature would want tools for, is not needed.
        'APT::Sandbox::User=root',
      ]
      execFileSync('/usr/bin/apt-get', ['-q', ...settings.flatMap((one) => ['-o', one]), ...args], {
        cwd: folder,
        stdio: ['ignore', 'ignore', 'pipe'],
      })
    }
    apt('update')
    apt('source', '--download-only', 'libvirt')
    const archive = readdirSync(folder).find((name) => /^libvirt_.*\.orig\.tar\.xz$/.test(name))
    if (archive === undefined) throw new Error(`no source of libvirt among ${readdirSync(folder).join(', ')}`)
    execFileSync('/usr/bin/tar', ['-xJf', archive, '--wildcards', '*/tests/*.xml'], { cwd: folder })
    const [unpacked = ''] = readdirSync(folder).filter((name) => name.startsWith('libvirt-'))
    mkdirSync(join(folder, 'kept'))
    renameSync(join(folder, unpacked), join(folder, 'kept', unpacked))
    rmSync(kept, { recursive: true, force: true })
    renameSync(join(folder, 'kept'), kept)
    return join(kept, unpacked, 'tests')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
