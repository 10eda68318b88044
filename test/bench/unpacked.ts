// A program of Debian's out of its package, so that no service of it is left on the machine.

import { execFileSync } from 'node:child_process'
import { globSync, mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'

/** Unpacks a package below `folder`; where its files are then. */
export function unpacked(folder: string, name: string): string {
  const own = join(folder, name)
  mkdirSync(own)
  execFileSync('/usr/bin/apt-get', ['download', '-q', name], { cwd: own, stdio: 'ignore' })
  const [archive = ''] = globSync('*.deb', { cwd: own })
  execFileSync('/usr/bin/dpkg-deb', ['-x', join(own, archive), join(own, 'files')])
  console.log(basename(archive, '.deb'))
  return join(own, 'files')
}
