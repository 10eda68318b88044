// A guest whose disk tells what it wrote and in which order: what the tests of backups stand on.
//
// The guest is one sector of machine code. It counts: number n is written into slot (n / 16) mod 128, each slot in a cluster of its
// own, and then into sector 1. So a copy of its disk as it was at one moment holds, with L the largest number in it, in each slot the
// largest number up to L that belongs there; anything else was never on the disk at once. Every sixteenth number it also says on
// its first serial port, once it is on the disk: eight hexadecimal digits and a newline.

import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// cli; segments and stack at 0; drive number kept; sector 1 read to 0x8000; then for ever: n + 1, its slot written, sector 1 written,
// and where n mod 16 is 0, digit after digit to port 0x3f8.
const machineCode =
  'fa31c08ed88ec08ed0bc007cfb8816f07f66c7066b7c01000000b442e8380066ff06008066a1008066a3fc8166c1e8046683e07f66c1e007660580' +
  '00000066a36b7cb443e8100066c7066b7c01000000b443e80200eb1cb000be637c8a16f07fcd13c31000010000800000000000000000000066a100' +
  '80a80f7519b90800baf80366c1c00450240f3c0a1c692fee58e2f0b00aeeeb89'

const slots = 128
const slotBytes = 64 * 1024
const diskMiB = 32

const qemuImg = (...args: readonly string[]) => execFileSync('/usr/bin/qemu-img', args, { encoding: 'utf8' })

/** Makes a disk of such a guest, which has not counted yet; `placed`: with all clusters of a qcow2 in place. */
export function makeCountingDisk(
  path: string,
  { format = 'qcow2', placed = false }: { readonly format?: 'qcow2' | 'raw'; readonly placed?: boolean } = {},
): void {
  const image = Buffer.alloc(diskMiB * 2 ** 20)
  Buffer.from(machineCode, 'hex').copy(image)
  image.writeUInt16LE(0xaa55, 510)
  const raw = `${path}.first`
  writeFileSync(raw, image)
  const options = placed ? ['-o', 'preallocation=metadata'] : []
  qemuImg('convert', '-q', '-f', 'raw', '-O', format, ...options, '--', raw, path)
  rmSync(raw)
}

/** What is in a disk of such a guest. `last` is the largest number; `isOneMoment`: it was on the disk like this at once. */
export interface Counted {
  readonly last: number
  readonly isOneMoment: boolean
}

/** Reads what a raw copy of the disk holds. */
function countedIn(path: string): Counted {
  const file = openSync(path, 'r')
  const at = (byte: number): number => {
    const sector = Buffer.alloc(512)
    readSync(file, sector, 0, 512, byte)
    return sector.readUInt32LE(0)
  }
  try {
    const found = Array.from({ length: slots }, (_, slot) => at(slotBytes * (slot + 1)))
    const counter = at(512)
    const last = Math.max(counter, ...found)
    const rounds = (slot: number): number => {
      // The largest n <= last with (n >> 4) mod 128 == slot, and 0 where there is none.
      const turn = last >> 4
      const behind = (((turn - slot) % slots) + slots) % slots
      const block = turn - behind
      if (block < 0) return 0
      return behind === 0 ? last : block * 16 + 15
    }
    const isWhole = found.every((number, slot) => {
      const wanted = rounds(slot)
      // The slot is written before sector 1 is.
      return number === wanted
    })
    return { last, isOneMoment: isWhole && (counter === last || counter === last - 1) }
  } finally {
    closeSync(file)
  }
}

/** What an image of the disk of such a guest holds, with all that it stands on. */
export function counted(path: string, format: 'qcow2' | 'raw' = 'qcow2'): Counted {
  const folder = mkdtempSync(join(tmpdir(), 'garrison-counted-'))
  const raw = join(folder, 'disk.raw')
  try {
    qemuImg('convert', '-U', '-q', '-f', format, '-O', 'raw', '--', path, raw)
    return countedIn(raw)
  } finally {
    rmSync(folder, { recursive: true })
  }
}
