// qemu-img and the qcow2 header, held against the real qemu-img: what it makes, what it says, and images that lead elsewhere.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { headBytes, imageObjection, parseQcow2 } from '../../provisioning/vms/qcow2.ts'
import {
  convertDisk,
  createClone,
  createDisk,
  type DiskFormat,
  foreignFile,
  parseQemuImg,
  qemuImg,
  resizeDisk,
} from '../../provisioning/vms/qemu-img.ts'

const mib = 2 ** 20

const run = ([program, ...args]: readonly string[]): void => {
  execFileSync(program as string, args, { stdio: ['ignore', 'ignore', 'inherit'] })
}

const look = (path: string, format: DiskFormat) => {
  const [program, ...args] = qemuImg(path, format)
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', cwd: '/' })
  return parseQemuImg({ exit: status ?? -1, stdout, stderr })
}

const headOf = (path: string): Buffer => readFileSync(path).subarray(0, headBytes)
const objection = (path: string, format: DiskFormat = 'qcow2') => imageObjection(format, headOf(path))

t.test('qemu-img is there to be held against', async (t) => {
  t.ok(existsSync('/usr/bin/qemu-img'), 'apt-get install qemu-utils')
})

t.test('disks are made, cloned, copied and grown', async (t) => {
  const folder = t.testdir()
  for (const name of [
    'plain',
    'a name with spaces',
    `it's "quoted", ${'é'.repeat(40)}`,
    '-o',
    'json:{}',
    'nbd:x',
  ]) {
    const at = (what: string) => join(folder, `${name}${what}`)
    const base = { path: at('.base.qcow2'), format: 'qcow2' as const }
    run(createDisk({ path: base.path, sizeBytes: 8 * mib }, 'qcow2'))
    t.match(look(base.path, 'qcow2'), {
      path: base.path,
      format: 'qcow2',
      virtualBytes: 8 * mib,
      backing: null,
      dataFile: null,
      isEncrypted: false,
      isCorrupt: false,
    })
    const clone = { path: at('.clone.qcow2'), sizeBytes: 16 * mib }
    run(createClone(clone, base))
    t.match(look(clone.path, 'qcow2'), {
      virtualBytes: 16 * mib,
      backing: { path: base.path, format: 'qcow2' },
    })
    t.equal(parseQcow2(headOf(clone.path))?.backing, base.path, 'the header says the same')
    const raw = { path: at('.raw'), format: 'raw' as const }
    run(convertDisk({ path: clone.path, format: 'qcow2' }, raw))
    t.match(look(raw.path, 'raw'), { format: 'raw', virtualBytes: 16 * mib, backing: null })
    run(resizeDisk({ path: raw.path, sizeBytes: 24 * mib }, 'raw'))
    t.equal(statSync(raw.path).size, 24 * mib)
    run(resizeDisk({ path: clone.path, sizeBytes: 32 * mib }, 'qcow2'))
    t.equal(look(clone.path, 'qcow2').virtualBytes, 32 * mib)
    t.equal(foreignFile(look(clone.path, 'qcow2'), [folder]), null)
    t.match(foreignFile(look(clone.path, 'qcow2'), [join(folder, 'other')]), /which is in no pool$/)
  }
})

t.test('content survives a clone and a copy', async (t) => {
  const folder = t.testdir()
  const at = (name: string) => join(folder, name)
  const content = Buffer.alloc(4 * mib)
  for (let offset = 0; offset < content.length; offset += 65_536) content.writeUInt32BE(offset, offset)
  writeFileSync(at('in.raw'), content)
  run(convertDisk({ path: at('in.raw'), format: 'raw' }, { path: at('base.qcow2'), format: 'qcow2' }))
  run(
    createClone({ path: at('clone.qcow2'), sizeBytes: 4 * mib }, { path: at('base.qcow2'), format: 'qcow2' }),
  )
  run(convertDisk({ path: at('clone.qcow2'), format: 'qcow2' }, { path: at('out.raw'), format: 'raw' }))
  t.ok(readFileSync(at('out.raw')).equals(content))
})

t.test('images that lead elsewhere are refused by their header, and never opened', async (t) => {
  const folder = t.testdir()
  const make = (name: string, ...args: readonly string[]): string => {
    const path = join(folder, `${name}.qcow2`)
    run(['/usr/bin/qemu-img', 'create', '-q', '-f', 'qcow2', ...args, path, '1M'])
    return path
  }
  const sound = make('sound')
  t.equal(objection(sound), null)
  t.equal(objection(make('old', '-o', 'compat=0.10')), null, 'version 2 too')
  for (const [name, backing] of [
    ['absolute', '/etc/passwd'],
    ['relative', '../../etc/passwd'],
    ['json', 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}'],
    ['nbd', 'nbd://192.0.2.1:10809/x'],
    ['long', `/${'x'.repeat(1000)}`],
  ] as const) {
    const path = make(name, '-u', '-F', 'raw', '-b', backing)
    t.match(objection(path), { code: 'image.leads-elsewhere' }, name)
    t.equal(parseQcow2(headOf(path))?.backing, backing)
    t.match(
      foreignFile(look(path, 'qcow2'), ['/srv/vms']),
      /which is in no pool$/,
      `${name}, once it is in use`,
    )
  }
  t.match(objection(make('data', '-o', `data_file=${join(folder, 'd.raw')},data_file_raw=on`)), {
    code: 'image.leads-elsewhere',
    message: /external data file/,
  })
  // Not LUKS: to make it qemu-img measures its own processor time, which fails where the kernel counts none for so short a work.
  const encrypted = make(
    ...['encrypted', '--object', 'secret,id=s,data=abc'],
    ...['-o', 'encrypt.format=aes,encrypt.key-secret=s'],
  )
  t.match(objection(encrypted), { code: 'image.encrypted' })
  const bytes = headOf(sound)
  const changed = (change: (head: Buffer) => void) => {
    const head = Buffer.from(bytes)
    change(head)
    return imageObjection('qcow2', head)
  }
  t.match(
    changed((head) => head.writeBigUInt64BE(2n, 72)),
    { code: 'image.corrupt' },
  )
  t.match(
    changed((head) => head.writeUInt32BE(2, 32)),
    { code: 'image.encrypted' },
    'LUKS',
  )
  t.match(
    changed((head) => head.writeUInt32BE(4, 4)),
    { code: 'image.format-differs' },
  )
  t.match(
    changed((head) => head.writeBigUInt64BE(2n ** 62n, 24)),
    { code: 'image.format-differs' },
  )
  t.match(
    changed((head) => head.writeBigUInt64BE(2n ** 63n, 8)),
    { code: 'image.leads-elsewhere' },
    'far beyond its end',
  )
  t.match(
    changed((head) => head.writeUInt32BE(1, 0)),
    { code: 'image.format-differs' },
  )
})

t.test('a backing file within a pool must be a plain path in it, of a format that is said', async (t) => {
  const clone = (path: string, format: string | null = 'qcow2') =>
    foreignFile({ backing: { path, format }, dataFile: null }, ['/srv/vms'])
  t.equal(clone('/srv/vms/base.qcow2'), null)
  for (const path of [
    '/srv/vms/../../etc/passwd',
    '/srv/vms-2/base',
    '/srv/vms/',
    'srv/vms/base',
    'json:{"a":"/srv/vms/b"}',
  ])
    t.match(clone(path), /in no pool/, path)
  t.match(clone('/srv/vms/base.qcow2', null), /does not say the format/)
})

t.test('the first bytes tell what qemu-img tells', async (t) => {
  const folder = t.testdir()
  const at = (name: string) => join(folder, name)
  run(createDisk({ path: at('base.raw'), sizeBytes: 4 * mib }, 'raw'))
  run(createDisk({ path: at('blank'), sizeBytes: 3 * mib }, 'qcow2'))
  run(createClone({ path: at('clone'), sizeBytes: null }, { path: at('base.raw'), format: 'raw' }))
  run(
    createClone(
      { path: at('long'), sizeBytes: 8 * mib },
      { path: join(folder, './'.repeat(300), 'blank'), format: 'qcow2' },
    ),
  )
  for (const name of ['blank', 'clone', 'long']) {
    const facts = look(at(name), 'qcow2')
    const header = parseQcow2(headOf(at(name)).subarray(0, 4096))
    t.equal(header?.isWhole, true, name)
    t.equal(header?.virtualBytes, facts.virtualBytes, name)
    t.equal(header?.backing ?? null, facts.backing?.path ?? null, name)
    t.equal(header?.backingFormat ?? null, facts.backing?.format ?? null, name)
  }
  t.equal(parseQcow2(headOf(at('clone')).subarray(0, 150))?.isWhole, false, 'cut off before the name')
  for (let length = 0; length < 600; length += 1) parseQcow2(headOf(at('clone')).subarray(0, length))
})

t.test('the first bytes tell what is no image', async (t) => {
  for (const [text, is] of [
    ['\x1f\x8b\x08', /gzip/],
    ['\xfd7zXZ\0', /xz/],
    ['<!DOCTYPE html>', /web page/],
    ['KDMV', /VMDK/],
  ] as const)
    for (const format of ['qcow2', 'raw'] as const)
      t.match(imageObjection(format, Buffer.from(text.padEnd(512, '\0'), 'latin1')), {
        code: 'image.format-differs',
        message: is,
      })
  t.equal(imageObjection('raw', Buffer.alloc(512)), null)
  t.equal(imageObjection('raw', Buffer.alloc(0)), null)
  t.match(imageObjection('qcow2', Buffer.alloc(0)), { code: 'image.format-differs' })
  const folder = t.testdir()
  const path = join(folder, 'x.qcow2')
  run(createDisk({ path, sizeBytes: mib }, 'qcow2'))
  t.match(objection(path, 'raw'), { code: 'image.format-differs' }, 'what a guest might have written')
})

t.test('any bytes have an answer', async (t) => {
  let seed = 7
  const random = () => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
    return seed
  }
  for (let at = 0; at < 20_000; at += 1) {
    const head = Buffer.alloc(random() % 200)
    for (let index = 0; index < head.length; index += 1) head[index] = random() >> 16
    if (at % 2 === 0) head.write('QFI\xfb', 0, 'latin1')
    const said = imageObjection(at % 3 === 0 ? 'raw' : 'qcow2', head)
    if (said !== null && !said.code.startsWith('image.')) t.fail(said.code)
  }
  t.pass('20000 heads')
})

t.test('what qemu-img cannot read is no fact', async (t) => {
  const folder = t.testdir({ text: 'not an image' })
  t.throws(() => look(join(folder, 'text'), 'qcow2'), { code: 'host.unreadable' })
  t.throws(() => look(join(folder, 'absent'), 'raw'), { code: 'host.unreadable' })
  for (const stdout of ['', '[]', '{}', '{"filename":"a","format":"raw","virtual-size":"1"}'])
    t.throws(() => parseQemuImg({ exit: 0, stdout, stderr: '' }), { code: 'host.unexpected-answer' }, stdout)
})
