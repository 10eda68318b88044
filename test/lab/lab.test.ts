// The lab itself: what the scenarios take for granted of a guest, its drives and its power.
import t from 'tap'
import { bootGuest, defaultRootSerial, type Guest } from './guest.ts'
import { layouts, rootImageBytes } from './image.ts'
import { sample } from './sample.ts'

// A first run builds images; each wait inside has a deadline of its own.
t.setTimeout(0)

const secondsSince = (began: number) => `${((performance.now() - began) / 1000).toFixed(1)} s`

const blank = { hash: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', nonZero: [] }

async function textOf(guest: Guest, ...argv: string[]): Promise<string> {
  return (await guest.run(argv)).stdout.trim()
}

/** The kernel's name of the disk with a serial. */
async function diskOf(guest: Guest, serial: string): Promise<string | undefined> {
  const listed = await textOf(guest, 'lsblk', '--nodeps', '--noheadings', '--output', 'PATH,SERIAL')
  return listed
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .find((row) => row[1] === serial)?.[0]
}

for (const layout of sample(layouts, 1)) {
  t.test(
    `${layout}: root does not fill its drive, three blank drives, and it starts again after a power cut`,
    async (t) => {
      let began = performance.now()
      await using guest = await bootGuest({ layout })
      t.comment(`up after ${secondsSince(began)}`)

      const root = await diskOf(guest, defaultRootSerial)
      const sizeBytes = Number(await textOf(guest, 'blockdev', '--getsize64', String(root)))
      t.equal(sizeBytes, 8 * 2 ** 30)
      const filled = Number(
        (await textOf(guest, 'df', '--output=size', '--block-size=1', '/')).split('\n')[1],
      )
      t.ok(filled < rootImageBytes, `the filesystem has ${filled} bytes of ${sizeBytes}`)
      const table = await guest.run(['sfdisk', '--list', String(root)])
      t.match(table.stderr + table.stdout, /backup GPT table is not on the end of the device/)
      const source = await textOf(guest, 'findmnt', '--noheadings', '--output', 'SOURCE,FSTYPE', '/')
      const expected = {
        ext4: /^\/dev\/nvme0n1p1 +ext4$/,
        'xfs-lvm': /^\/dev\/mapper\/rocky-root xfs$/,
        btrfs: /^\/dev\/nvme0n1p3\[\/@rootfs\] btrfs$/,
      }
      t.match(source, expected[layout])

      for (const serial of ['LAB0000001', 'LAB0000002', 'LAB0000003']) {
        t.match(await diskOf(guest, serial), /^\/dev\/nvme\dn1$/, `${serial} is an NVMe drive`)
        t.strictSame(await guest.driveContent(serial), blank, `${serial} is blank`)
      }
      const absent = ['mdadm', 'libvirt-daemon-system', 'cockpit', 'qemu-system-x86']
      for (const name of absent) {
        // A package that others merely mention is known to --show; --status fails for it.
        const asked = await guest.run(['dpkg-query', '--status', name], { allowFailure: true })
        t.equal(asked.exit, 1, `${name} is not installed yet`)
      }

      await guest.writeFile('/root/flushed', 'stays\n')
      await guest.run(['sync'])
      const before = await guest.bootId()
      await guest.powerCut()
      began = performance.now()
      await guest.powerOn({ rootLast: true })
      t.comment(`up again after ${secondsSince(began)}`)
      t.not(await guest.bootId(), before, 'it is another boot')
      t.equal(await textOf(guest, 'cat', '/root/flushed'), 'stays')
      t.not(
        await diskOf(guest, defaultRootSerial),
        '/dev/nvme0n1',
        'root has another name when the kernel finds it last',
      )
    },
  )
}

t.test(
  'packages come from the lab’s own archive, drives come, go and fail, and commands arrive as they are',
  async (t) => {
    await using guest = await bootGuest()
    const argv = ['printf', '%s|', 'two words', "it's", '$HOME', '"', '*', '', 'a\nb']
    t.equal((await guest.run(argv)).stdout, `${argv.slice(2).join('|')}|`)
    t.equal((await guest.run(['cat'], { stdin: 'over ssh' })).stdout, 'over ssh')
    t.equal((await guest.run(['sh', '-c', 'exit 255'], { allowFailure: true })).exit, 255)
    await t.rejects(guest.run(['false']), /exit 1/)
    await t.rejects(guest.run(['sleep', '60'], { deadlineMs: 1000 }), /killed after 1000 ms/)

    const process = await guest.start(['sh', '-c', 'echo ready; exec sleep 600'])
    await process.waitForLine(/^ready$/)
    await process.kill()
    t.not((await process.ended).exit, 0)
    t.strictSame(process.lines, ['ready'])

    const began = performance.now()
    await guest.run(['apt-get', 'update'])
    await guest.run(['apt-get', 'install', '--yes', '--quiet', 'mdadm', 'lvm2'], { deadlineMs: 600_000 })
    t.comment(`mdadm and lvm2 installed in ${secondsSince(began)}`)
    t.match(await textOf(guest, 'dpkg-query', '--show', 'mdadm'), /^mdadm\t/)

    const second = await diskOf(guest, 'LAB0000002')
    await guest.run([
      'dd',
      'if=/dev/urandom',
      `of=${second}`,
      'bs=4096',
      'seek=1000',
      'count=3',
      'oflag=direct',
    ])
    t.strictSame((await guest.driveContent('LAB0000002')).nonZero, [{ offset: 4096000, length: 12288 }])
    await guest.detachDrive('LAB0000002')
    t.equal(await diskOf(guest, 'LAB0000002'), undefined, 'the drive is gone')
    await guest.attachDrive('LAB0000002')
    t.ok(await diskOf(guest, 'LAB0000002'), 'the drive is back')
    await guest.attachDrive({ serial: 'LABSPARE01', sizeBytes: 2 ** 30 })
    t.ok(await diskOf(guest, 'LABSPARE01'), 'a new drive is there')

    const third = await diskOf(guest, 'LAB0000003')
    const read = ['dd', `if=${third}`, 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct']
    const write = ['dd', 'if=/dev/zero', `of=${third}`, 'bs=4096', 'count=1', 'oflag=direct']
    await guest.failDrive('LAB0000003', { writes: true })
    t.equal((await guest.run(read, { allowFailure: true })).exit, 0, 'reads go on')
    t.equal((await guest.run(write, { allowFailure: true })).exit, 1, 'writes fail')
    await guest.healDrive('LAB0000003')
    await guest.failDrive('LAB0000003')
    t.equal((await guest.run(read, { allowFailure: true })).exit, 1, 'reads fail')
    await guest.healDrive('LAB0000003')
    t.equal((await guest.run(read)).exit, 0, 'a healed drive can be read')

    const filler = await guest.fillFilesystem('/boot/efi')
    t.equal(
      (await guest.run(['sh', '-c', 'echo more > /boot/efi/more'], { allowFailure: true })).exit,
      1,
      'it is full',
    )
    await guest.run(['rm', filler])

    const began2 = performance.now()
    const before = await guest.bootId()
    await guest.reboot()
    t.comment(`rebooted in ${secondsSince(began2)}`)
    t.not(await guest.bootId(), before)
  },
)

t.test('a snapshot brings back memory, processes and drives, also after a power cut', async (t) => {
  await using guest = await bootGuest({ snapshots: true })
  await guest.writeFile('/run/in-memory', 'kept\n')
  const disk = await diskOf(guest, 'LAB0000001')
  let began = performance.now()
  await guest.snapshot('clean')
  t.comment(`saved in ${secondsSince(began)}`)
  const clean = await guest.driveHash('LAB0000001')
  for (const round of ['first', 'second']) {
    await guest.run(['rm', '/run/in-memory'])
    await guest.run(['dd', 'if=/dev/urandom', `of=${disk}`, 'bs=1M', 'count=2', 'oflag=direct'])
    t.not(await guest.driveHash('LAB0000001'), clean)
    if (round === 'second') {
      await guest.powerCut()
      await guest.powerOn({ early: true })
    }
    began = performance.now()
    await guest.restore('clean')
    t.comment(`restored in ${secondsSince(began)}`)
    t.equal(await textOf(guest, 'cat', '/run/in-memory'), 'kept')
    t.equal(await guest.driveHash('LAB0000001'), clean, 'the drive is as it was')
  }
})
