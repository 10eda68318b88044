// What a declaration may say of an image, and the name that the image has in a pool.

import t from 'tap'
import { checksumParts, type Image, imageFileName, imageSchema } from '../../provisioning/vms/image.ts'

const digest = 'a'.repeat(64)
const checksum = `sha256:${digest}`

const image = (declared: object): Image => imageSchema.parse(declared)

t.test('sources', async (t) => {
  for (const source of [
    '/srv/images/debian.qcow2',
    '/srv/a folder/é.raw',
    'https://images.example.com/a/b.qcow2',
    'HTTP://192.0.2.1:8080/x?version=1&b=%20',
    'https://[2001:db8::1]/x.raw',
    's3://my-bucket/images/a b.qcow2',
    's3://my.bucket.name/k',
  ])
    t.ok(imageSchema.safeParse({ source, checksum }).success, source)
  for (const source of [
    '',
    'debian.qcow2',
    './debian.qcow2',
    '/srv/../etc/passwd',
    '/srv//x',
    '/srv/images/',
    '/srv/\nx',
    'ftp://images.example.com/x',
    'file:///etc/passwd',
    'json:{"driver":"file"}',
    'nbd://192.0.2.1/x',
    'https://',
    'https://images.example.com',
    'https://images.example.com/folder/',
    'https://user:secret@images.example.com/x',
    'https://user@images.example.com/x',
    'https://images.example.com/x#part',
    'https://images example.com/x',
    's3://b/x',
    's3://Bucket/x',
    's3://bucket',
    's3://bucket/',
    `s3://bucket/${'x'.repeat(1025)}`,
    's3://bucket/a\u0007b',
    `https://images.example.com/${'x'.repeat(5000)}`,
  ])
    t.notOk(imageSchema.safeParse({ source, checksum }).success, source.slice(0, 80))
})

t.test('what comes over a network has a checksum, what is here may have one', async (t) => {
  t.ok(imageSchema.safeParse({ source: '/srv/x.raw' }).success)
  for (const source of ['https://images.example.com/x', 's3://bucket/x']) {
    const { error } = imageSchema.safeParse({ source })
    t.match(error?.issues, [{ path: ['source'], message: /must have a checksum/ }])
  }
  for (const good of [checksum, `sha512:${'0'.repeat(128)}`])
    t.ok(imageSchema.safeParse({ source: '/x', checksum: good }).success)
  for (const bad of [
    '',
    digest,
    `md5:${'a'.repeat(32)}`,
    `sha256:${'A'.repeat(64)}`,
    `sha256:${'a'.repeat(63)}`,
    `sha512:${digest}`,
    `${checksum}\n`,
  ])
    t.notOk(imageSchema.safeParse({ source: '/x', checksum: bad }).success, bad)
  t.same(checksumParts(checksum), { algorithm: 'sha256', digest })
})

t.test('defaults, and what is none', async (t) => {
  t.same(image({ source: '/x' }), { source: '/x', format: 'qcow2', copy: 'thin' })
  for (const wrong of [
    { format: 'vmdk' },
    { copy: 'half' },
    { sizeBytes: 0 },
    { sizeBytes: 1.5 },
    { size: '1GiB' },
  ])
    t.notOk(imageSchema.safeParse({ source: '/x', ...wrong }).success, JSON.stringify(wrong))
})

t.test('its name in a pool is its own, and a plain one', async (t) => {
  const sources = [
    '/srv/debian-12.qcow2',
    '/srv/other/debian-12.qcow2',
    'https://images.example.com/debian-12.qcow2',
    'https://images.example.com/debian-12.qcow2?v=2',
    'https://images.example.com/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    'https://images.example.com/x?a=/../../b',
    's3://bucket/-rf',
    's3://bucket/$(id) `id` "quoted"',
    's3://bucket/..',
    's3://bucket/é漢字',
    `s3://bucket/${'x'.repeat(1000)}`,
  ]
  const images = sources.flatMap((source) => [
    image({ source, checksum }),
    image({ source, checksum, format: 'raw' }),
    image({ source, checksum: `sha256:${'b'.repeat(64)}` }),
  ])
  const names = images.map(imageFileName)
  t.equal(new Set(names).size, images.length, 'no two alike')
  for (const name of names) {
    t.match(name, /^[A-Za-z0-9_][A-Za-z0-9_-]*-[0-9a-f]{16}\.(qcow2|raw)$/)
    t.ok(name.length <= 100)
  }
  t.match(names[0], /^debian-12-/)
  t.equal(
    imageFileName(image({ source: '/x', copy: 'full' })),
    imageFileName(image({ source: '/x', copy: 'thin' })),
  )
})
