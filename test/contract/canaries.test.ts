// Secrets planted in the document, in the environment and in what fails: whoever is told anything, and whatever is written down, has none.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { checkedArgs } from '../../agent/api/arguments.ts'
import type { VerbName } from '../../agent/api/verbs.ts'
import { vmsWorld } from './vms-world.ts'

/** Each a secret of its own, so that what leaks tells from where. */
const canaries = {
  userData: 'canary-user-data-7f3a91',
  userDataChanged: 'canary-user-data-changed-c55e',
  network: 'canary-network-config-40b7',
  graphics: 'cnry5d20',
  url: 'canary-presigned-url-b81f04',
  key: 'canary-aws-secret-key-19ee77',
  session: 'canary-aws-session-token-aa42',
} as const
const plantedIn = (text: string): readonly string[] =>
  Object.entries(canaries).flatMap(([where, canary]) => (text.includes(canary) ? where : []))

process.env.AWS_ACCESS_KEY_ID = 'AKIDEXAMPLE'
process.env.AWS_SECRET_ACCESS_KEY = canaries.key
process.env.AWS_SESSION_TOKEN = canaries.session

const refusing = createServer((request, response) => {
  response.writeHead(403, { 'content-type': 'text/plain' }).end(`no: ${request.url}`)
})
refusing.listen(0, '127.0.0.1')
await new Promise((resolve) => refusing.once('listening', resolve))
const { port } = refusing.address() as AddressInfo
const world = await vmsWorld()
t.teardown(async () => {
  refusing.close()
  await world.stop()
})

const cloudInit = (password: string) => ({
  userData: { chpasswd: { expire: false, users: [{ name: 'debian', password, type: 'text' }] } },
  network: { version: 2, wifis: { lan: { 'access-points': { site: { password: canaries.network } } } } },
})
const declared = (password: string) => ({ cloudInit: cloudInit(password) })
const graphics = {
  add: '/domain/devices',
  element: `<graphics type='vnc' port='-1' autoport='yes' passwd='${canaries.graphics}'/>`,
}
const fetched = {
  image: {
    source: `http://127.0.0.1:${port}/image.qcow2?X-Amz-Credential=x&X-Amz-Signature=${canaries.url}`,
    checksum: `sha256:${'0'.repeat(64)}`,
  },
}

/** What was said, by the verb that said it. */
const said: (readonly [verb: string, text: string])[] = []
async function ask(verb: VerbName, args: object = {}): Promise<string> {
  const text = JSON.stringify(await world.all(verb, checkedArgs(verb, args)))
  said.push([verb, text])
  return text
}
async function askAll(): Promise<void> {
  for (const [verb, args] of [
    ['plan', {}],
    ['status', { fresh: true }],
    ['why', {}],
    ['why', { subject: 'vms' }],
    ['why', { subject: 'vm', name: 'blank' }],
    ['vm show', { vm: 'blank' }],
    ['vm list', {}],
    ['vm stats', { once: true }],
    ['images list', {}],
    ['journal', {}],
    ['jobs', {}],
  ] as const)
    await ask(verb, args)
}

await t.test('said', async (t) => {
  world.declare(declared(canaries.userData))
  t.match(await ask('plan'), /vms\.seed/, 'it is on its way')
  t.match(await ask('apply'), /"settled"/)
  await askAll()
  world.declare(declared(canaries.userDataChanged))
  t.match(await ask('plan'), /vms\.seed/, 'and changed')
  t.match(await ask('apply'), /"settled"/)
  world.declare({ ...declared(canaries.userDataChanged), disks: { root: { size: '16MiB' }, more: fetched } })
  t.match(await ask('plan'), /image\.qcow2/)
  t.match(await ask('apply'), /image\./, 'what cannot be fetched is told')
  t.match(await ask('images fetch', { ...fetched.image, detach: false }), /image\.not-offered/)
  const object = { ...fetched.image, source: 's3://bucket/key.qcow2' }
  t.match(await ask('images fetch', object), /"exit":1/, 'nor with credentials of the environment')
  world.declare({ xml: [graphics] })
  t.match(await ask('plan'), /must hold no password/, 'what cannot be kept secret is refused')
  await askAll()
  world.declare(declared(canaries.userDataChanged))
  mkdirSync(join(world.root, 'etc/garrison/host.d'))
  writeFileSync(
    join(world.root, 'etc/garrison/host.d/broken.yaml'),
    `vms:\n  machines:\n    blank:\n      cloudInit: { userdata: ${canaries.userData}\n`,
  )
  await askAll()
  for (const [verb, text] of said) t.same(plantedIn(text), [], `${verb}: ${text.slice(0, 120)}`)
})

await t.test('written down', async (t) => {
  const own = join(world.root, 'var')
  const files = readdirSync(own, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  t.ok(
    files.some(({ parentPath }) => parentPath.endsWith('/journal')),
    `${files.length} files`,
  )
  for (const file of files) {
    const path = join(file.parentPath, file.name)
    t.same(plantedIn(readFileSync(path, 'latin1')), [], path.slice(world.root.length))
  }
})
