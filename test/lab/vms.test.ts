// VMs on the array's volumes of an installed host: declared, started, and found again after a reboot, a power cut and a SIGKILL.
import t from 'tap'
import { guardPath, guardText } from '../../provisioning/vms/guard.ts'
import { domains, emulators } from './domains.ts'
import { documentOf, garrison, installGarrison, settle, startApply, writeDocument } from './garrison.ts'
import { bootGuest, defaultDrives } from './guest.ts'

const folder = '/var/lib/libvirt/images'

/** VMs without a system in them: an emulated guest within an emulated guest has no time to boot one. */
const machine = (more: object = {}) => ({
  accelerator: 'tcg',
  firmware: 'bios',
  memory: '64MiB',
  disks: { root: { size: '50MiB' } },
  ...more,
})

const withVms = (machines: Readonly<Record<string, object>>): string =>
  documentOf({ vms: { pools: { images: { path: folder } }, machines } })

const two = {
  blank: machine(),
  seeded: machine({
    disks: { root: { size: '80MiB', image: { source: '/var/tmp/image.qcow2', format: 'qcow2' } } },
    cloudInit: { userData: '#cloud-config\n{}\n' },
  }),
}

t.setTimeout(0)

t.test('VMs on the volumes of the array', async (t) => {
  await using guest = await bootGuest({ prepared: true, drives: defaultDrives, memoryMiB: 3072 })
  await installGarrison(guest)
  await writeDocument(guest, documentOf())
  await settle(guest)
  await guest.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '/var/tmp/image.qcow2', '40M'])
  await writeDocument(guest, withVms(two))
  const first = await settle(guest)
  const running = { blank: 'running', seeded: 'running' }
  t.strictSame(await domains(guest), running)
  t.comment(`${first.lines.at(-1).performed} steps`)
  t.equal((await settle(guest)).lines.at(-1).performed, 0, 'a second apply does nothing')
  const { stdout } = await guest.run(['findmnt', '--noheadings', '--output=TARGET', '--target', folder])
  t.equal(stdout.trim(), folder, 'their disks are on the volume')

  // As apply leaves it where a pool is on a filesystem that other hosts have too.
  await guest.run(['mkdir', '-p', '/etc/libvirt/hooks/qemu.d'])
  await guest.writeFile(guardPath, guardText)
  await guest.run(['chmod', '0755', guardPath])

  // Without a system in it a VM does not hear that it is to shut down, and the host would wait for it for five minutes.
  for (const name of Object.keys(two)) await guest.run(['virsh', 'destroy', name])
  await guest.reboot()
  // virsh waits as long as libvirtd takes to start, which is long in here.
  t.strictSame(await domains(guest), running, 'running after a reboot')
  t.equal((await garrison(guest, ['plan'])).exit, 0, 'and settled')

  const stolen = `${folder}/seeded/owner-0000000002.json`
  const owner = { epoch: 2, host: 'i-0123456789abcdef0', uuid: 'c0ffee00-0000-4000-8000-000000000000' }
  await guest.writeFile(stolen, JSON.stringify({ schema: 'garrison.owner/1', vm: 'seeded', ...owner }))
  await guest.run(['sync'])
  await guest.powerCut()
  await guest.powerOn()
  const left = { blank: 'running', seeded: 'shut off' }
  t.strictSame(
    await domains(guest),
    left,
    'running after a power cut, but for one that another host has taken',
  )
  const refused = await guest.run(['virsh', 'start', 'seeded'], { allowFailure: true })
  t.match(refused.stderr, 'seeded belongs to i-0123456789abcdef0')
  t.equal((await garrison(guest, ['vm', 'start', 'seeded'])).exit, 1)
  await guest.run(['rm', stolen])
  t.equal((await garrison(guest, ['vm', 'start', 'seeded'])).exit, 0)
  t.equal((await settle(guest)).exit, 0, 'and settled')

  for (const step of ['disk', 'define', 'start'])
    await t.test(`SIGKILL of the agent in vms.${step}`, async (t) => {
      const name = `killed-in-${step}`
      await writeDocument(guest, withVms({ ...two, [name]: machine() }))
      const apply = await startApply(guest)
      await apply.waitForLine(new RegExp(`"event":"step-started".*"key":"vms\\.${step} ${name}`))
      await guest.run(['systemctl', 'kill', '--kill-whom=main', '--signal=KILL', 'garrison-operate.service'])
      await apply.ended
      await settle(guest)
      t.match(await domains(guest), { ...running, [name]: 'running' })
      t.equal(await emulators(guest, name), 1, 'started once')
      t.equal((await settle(guest)).lines.at(-1).performed, 0, 'nothing is left to do')
    })

  await t.test('a VM whose volume is not mounted waits for it', async (t) => {
    await writeDocument(guest, withVms(two))
    for (const name of Object.keys(await domains(guest))) await guest.run(['virsh', 'destroy', name])
    await guest.run(['umount', folder])
    const apply = await garrison(guest, ['apply', '--only', 'vms'])
    t.not(apply.exit, 0)
    t.equal((await domains(guest)).blank, 'shut off')
    const keys = (await settle(guest)).lines
      .filter(({ event }) => event === 'step-done')
      .map(({ key }) => key)
    t.match(keys, ['volumes.mount images', 'vms.start blank', 'vms.start seeded'])
    t.match(await domains(guest), running)
  })

  await t.test('verbs over the door', async (t) => {
    const list = await garrison(guest, ['vm', 'list'])
    t.equal(list.exit, 0)
    t.match(JSON.stringify(list.lines), /"blank".*"seeded"/s)
    const kill = await garrison(guest, ['vm', 'kill', 'blank', 'seeded'])
    t.equal(kill.exit, 0)
    t.match(await domains(guest), { blank: 'shut off', seeded: 'shut off' })
    t.equal((await garrison(guest, ['plan'])).exit, 2, 'which is drift')
    t.equal((await garrison(guest, ['vm', 'start', 'blank', 'seeded'])).exit, 0)
    t.match(await domains(guest), running)
    t.equal((await garrison(guest, ['plan'])).exit, 0)
  })
})
