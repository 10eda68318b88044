// Images in pools: listed with what stands on them, fetched as jobs, removed only when nothing stands on them; over a real libvirtd.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'
import t from 'tap'
import type { ApplyLine } from '../../agent/verbs/apply.ts'
import type { FetchLine } from '../../agent/verbs/images-fetch.ts'
import type { ImageList } from '../../agent/verbs/images-list.ts'
import { vmsWorld } from './vms-world.ts'

const world = await vmsWorld()
t.teardown(() => world.stop())
const { pool, image, ask } = world

const qemuImg = (...args: readonly string[]) => execFileSync('/usr/bin/qemu-img', args)
const list = async () => world.answer<ImageList>('images list')
const remove = async (name: string) => (await world.all<ApplyLine>('images remove', { image: name })).at(-1)
const fetchAsked = (source: string, more: object = {}) => ({ source, detach: false, ...more })
const fetchImage = async (source: string, more: object = {}) =>
  (await world.all<FetchLine>('images fetch', fetchAsked(source, more))).at(-1)

const large = join(world.libvirtd.folder, 'large.qcow2')
qemuImg('create', '-q', '-f', 'qcow2', '-o', 'preallocation=full', large, '24M')
const content = readFileSync(large)
const checksum = `sha256:${createHash('sha256').update(content).digest('hex')}`

/** Gives the content, with ranges, at so many bytes at a time; `given` counts what was. */
let given = 0
const server = createServer(({ headers: { range } }, response) => {
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  response.writeHead(from > 0 ? 206 : 200, {
    etag: '"one"',
    'content-length': content.length - from,
    ...(from > 0 && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` }),
  })
  let at = from
  const more = () => {
    if (response.destroyed) return
    const chunk = content.subarray(at, at + 2 ** 19)
    at += chunk.length
    given += chunk.length
    response.write(chunk)
    if (at < content.length) setTimeout(more, 40)
    else response.end()
  }
  more()
}).listen(0, '127.0.0.1')
t.teardown(() => server.close())
const url = (name: string) =>
  `http://127.0.0.1:${(server.address() as AddressInfo).port}/${name}?token=secret`

t.test(
  'an image is shown with its origin and what stands on it, and is not removed before that has gone',
  async (t) => {
    t.same((await list()).line.images, [])
    t.match((await world.apply()).line, { outcome: 'settled' })
    const { line, text, exit } = await list()
    t.equal(exit, 0)
    const [one] = line.images
    t.match(line.images, [
      {
        pool: 'images',
        format: 'qcow2',
        virtualBytes: 16 * 2 ** 20,
        origin: { source: image, checksum: /^sha256:[0-9a-f]{64}$/ },
        users: [{ path: join(pool, 'clone/root.qcow2'), vms: ['clone'] }],
        declaredBy: ['clone'],
      },
    ])
    t.match(text, /stands below: .*clone\/root\.qcow2 \(clone\)/s)
    const path = one?.path ?? ''
    const name = basename(path)
    const wantRefused = async (why: RegExp) => {
      t.match(await remove(name), { exit: 3, line: { outcome: 'blocked' }, text: why })
      t.ok(existsSync(path))
    }
    await wantRefused(/clone\/root\.qcow2\s+stands\s+on\s+it\s+\(clone\)/)
    ask('destroy', 'clone')
    ask('undefine', 'clone')
    await wantRefused(/clone\/root\.qcow2\s+stands\s+on\s+it/)
    // Another image in between, and one of a name that nobody expects.
    renameSync(join(pool, 'clone/root.qcow2'), join(pool, 'clone/what is it'))
    await wantRefused(/what is it\s+stands\s+on\s+it/)
    rmSync(join(pool, 'clone/what is it'))
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', name, join(pool, 'second.qcow2'))
    t.match((await list()).line.images, [{}, { path: join(pool, 'second.qcow2'), origin: null }])
    await wantRefused(/second\.qcow2\s+stands\s+on\s+it/)
    t.match(await remove('second.qcow2'), { exit: 0, line: { outcome: 'settled', performed: 1 } })
    // A disk somewhere else, of a VM that nobody declared.
    const far = join(world.libvirtd.folder, 'far.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', path, far)
    const xml = join(world.libvirtd.folder, 'far.xml')
    const define = (disk: string) => {
      writeFileSync(
        xml,
        `<domain type='qemu'><name>far</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>${disk}</devices></domain>`,
      )
      ask('define', xml)
    }
    define(`<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${far}'/><target dev='vda'/></disk>`)
    await wantRefused(/far\.qcow2\s+stands\s+on\s+it\s+\(far\)/)
    ask('undefine', 'far')
    define(`<disk type='file' device='cdrom'><driver name='qemu' type='qcow2'/><source file='${path}'/><target dev='sda' bus='sata'/></disk>`)
    await wantRefused(/it is a disk of far/)
    ask('undefine', 'far')
    const seen = (await world.all<ApplyLine>('images remove', { image: name })).at(-1)
    t.match(seen, { exit: 0, line: { outcome: 'settled', performed: 1 } })
    t.notOk(existsSync(path))
    t.same(
      readdirSync(pool).filter((one) => one.includes('origin')),
      [],
    )
    t.match(await remove(name), { line: { code: 'request.no-such-part' } })
  },
)

t.test('what cannot be read may stand on anything', async (t) => {
  const [base, odd] = [join(pool, 'base.qcow2'), join(pool, 'odd')]
  mkdirSync(odd, { recursive: true })
  qemuImg('create', '-q', '-f', 'qcow2', base, '1M')
  // The name of its backing file is where no header is.
  const broken = Buffer.from(readFileSync(base))
  broken.writeBigUInt64BE(2n ** 40n, 8)
  broken.writeUInt32BE(20, 16)
  writeFileSync(join(odd, 'x'), broken)
  t.match(await list(), { exit: 4, line: { unread: [/odd\/x: /] } })
  t.match(await remove('base.qcow2'), { exit: 3, text: /odd\/x/ })
  rmSync(odd, { recursive: true })
  t.match(await remove('base.qcow2'), { exit: 0 })
})

t.test('an image is fetched once, as a VM would have it', async (t) => {
  const first = await fetchImage(image)
  t.match(first, { exit: 0, line: { event: 'done', fetched: true } })
  t.match(await fetchImage(image), { exit: 0, line: { fetched: false }, text: /was there/ })
  const refusals: readonly (readonly [string, object, string])[] = [
    ['relative.qcow2', {}, 'request.invalid'],
    [url('a.qcow2'), {}, 'request.invalid'],
    [image, { checksum: 'sha256:12' }, 'request.invalid'],
    [image, { pool: 'nowhere' }, 'request.invalid'],
    [image, { size: '-1' }, 'request.invalid'],
    [large, { size: '7' }, 'image.size-differs'],
    [image, { checksum: `sha256:${'0'.repeat(64)}` }, 'image.checksum-wrong'],
    [image, { format: 'raw' }, 'image.format-differs'],
    ['/etc/absent', {}, 'image.not-offered'],
    ['/etc/passwd', {}, 'image.format-differs'],
  ]
  const before = readdirSync(pool)
  for (const [source, more, code] of refusals)
    t.match(await fetchImage(source, more), { exit: 1, line: { code } }, `${source} ${JSON.stringify(more)}`)
  t.same(readdirSync(pool), before, 'nothing is left')
})

t.test('killed, an image is gone on with; cancelled, nothing of it is left', async (t) => {
  const source = url('large.qcow2')
  let progress = 0
  await world.begin<FetchLine>('images fetch', fetchAsked(source, { checksum }), ({ line }, agent) => {
    if (line.event !== 'progress') return
    progress += 1
    if (line.doneBytes > 6 * 2 ** 20) agent.kill('SIGKILL')
  })
  t.ok(progress > 0)
  t.match((await list()).line.unfinished, [{ pool: 'images' }])
  const { path = '' } = (await list()).line.unfinished[0] ?? {}
  t.match(await remove(basename(path)), { exit: 0, line: { performed: 1 } })

  const stopped = async (signal: NodeJS.Signals) => {
    let last: FetchLine | undefined
    await world.begin<FetchLine>('images fetch', fetchAsked(source, { checksum }), ({ line }, agent) => {
      last = line
      if (line.event === 'progress' && line.doneBytes > 4 * 2 ** 20) agent.kill(signal)
    })
    return last
  }
  t.match(await stopped('SIGTERM'), { code: 'job.interrupted' })
  const [left] = (await list()).line.unfinished
  t.ok((left?.doneBytes ?? 0) > 2 ** 20)
  given = 0
  t.match(await fetchImage(source, { checksum }), { exit: 0, line: { fetched: true } })
  t.ok(given < content.length - 2 ** 20, 'it was gone on with')
  const [fetched] = (await list()).line.images.filter(({ origin }) => origin?.source.startsWith('http'))
  t.match(fetched, { origin: { checksum }, fileBytes: content.length })
  t.notMatch(fetched?.origin?.source, /secret/)
  t.match(await remove(basename(fetched?.path ?? '')), { exit: 0 })
  t.match(await stopped('SIGHUP'), { code: 'job.cancelled' })
  t.same((await list()).line.unfinished, [])
})
