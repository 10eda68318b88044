// A program of Debian's out of its package, so that no service of it is left on the machine.

import { execFileSync } from 'node:child_process'
import { globSync, mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'

/** Lays the files of a package below `folder/NAME`. */
export function unpack(folder: string, name: string): void {
  const own = join(folder, name)
  mkdirSync(own)
  execFileSync('/usr/bin/apt-get', ['download', '-q', name], { cwd: own, stdio: 'ignore' })
  const [archive = ''] = globSync('*.deb', { cwd: own })
  execFileSync('/usr/bin/dpkg-deb', ['-x', join(own, archive), own])
  console.log(basename(archive, '.deb'))
}
