// Where URIs lead, and what is said of a socket that cannot be connected to.

import t from 'tap'
import { addressOf, dial } from '../dial.ts'
import { LibvirtConnectionError } from '../errors.ts'
import { FakeLibvirtd, failure } from './fake-libvirtd.ts'

const folders = { systemFolder: '/s', sessionFolder: '/u' }

t.test('URIs', async (t) => {
  const cases: readonly (readonly [string, object, string, readonly string[]])[] = [
    ['qemu:///system', {}, 'qemu:///system', ['/s/virtqemud-sock', '/s/libvirt-sock']],
    ['qemu:///system', { readOnly: true }, 'qemu:///system', ['/s/virtqemud-sock-ro', '/s/libvirt-sock-ro']],
    ['qemu:///session', { readOnly: true }, 'qemu:///session', ['/u/virtqemud-sock', '/u/libvirt-sock']],
    ['qemu+unix:///system', {}, 'qemu:///system', ['/s/virtqemud-sock', '/s/libvirt-sock']],
    ['qemu:///system?mode=legacy', {}, 'qemu:///system', ['/s/libvirt-sock']],
    ['qemu:///system?mode=direct', {}, 'qemu:///system', ['/s/virtqemud-sock']],
    ['network:///system', {}, 'network:///system', ['/s/virtnetworkd-sock', '/s/libvirt-sock']],
    ['storage:///system', {}, 'storage:///system', ['/s/virtstoraged-sock', '/s/libvirt-sock']],
    ['test:///default', {}, 'test:///default', ['/s/libvirt-sock']],
    ['test+unix:///default?socket=/tmp/x&y=1', {}, 'test:///default?y=1', ['/tmp/x']],
    ['lxc:///', { socketPath: '/tmp/y' }, 'lxc:///', ['/tmp/y']],
  ]
  for (const [uri, options, name, sockets] of cases)
    t.same(addressOf(uri, { ...folders, ...options }), { name, sockets }, uri)
  for (const uri of ['', 'qemu', 'qemu+ssh://host/system', 'qemu+tls:///system', 'qemu://host/system'])
    t.throws(() => addressOf(uri), { name: 'LibvirtConnectionError', reason: 'invalid' }, uri)
  t.match(addressOf('qemu:///system').sockets, [/^\/run\/libvirt\//, /^\/run\/libvirt\//])
  const before = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = '/run/user/7'
  t.same(addressOf('test:///session').sockets, ['/run/user/7/libvirt/libvirt-sock'])
  delete process.env.XDG_RUNTIME_DIR
  t.match(addressOf('test:///session').sockets, [/cache\/libvirt\/libvirt-sock$/])
  if (before !== undefined) process.env.XDG_RUNTIME_DIR = before
})

t.test('the first socket at which somebody listens', async (t) => {
  const server = await new FakeLibvirtd().start()
  const signal = new AbortController().signal
  const socket = await dial({ name: '', sockets: ['/no/such/folder/sock', server.path] }, signal)
  t.ok(socket.writable)
  socket.destroy()
  await server.stop()
  const refused = dial({ name: '', sockets: ['/no/such/folder/sock', server.path] }, signal)
  t.match(await failure(refused), { reason: 'no-socket', sent: false, message: /ECONNREFUSED/ })
  t.match(await failure(dial({ name: '', sockets: ['/proc/version/x'] }, signal)), { reason: 'no-socket' })
  await t.rejects(dial({ name: '', sockets: [] }, signal), LibvirtConnectionError)
  const reason = new Error('enough')
  await t.rejects(dial({ name: '', sockets: [server.path] }, AbortSignal.abort(reason)), reason)
})
