// A booted lab guest: QEMU by QMP, the host inside it by ssh, and its drives by their files.
import { EventEmitter } from 'node:events'
import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type DriveContent, makeDrive, readContent } from './drives.ts'
import { buildImage, cacheDirectory, type Image, type Layout } from './image.ts'
import {
  eachLine,
  endOf,
  type Lock,
  type Outcome,
  runTool,
  startTool,
  type Tool,
  takeLock,
} from './processes.ts'
import { Qmp } from './qmp.ts'

/** One drive of a guest beside its root drive. */
export interface DriveOptions {
  /** What the guest's disk reports; at most 20 characters. */
  serial: string
  sizeBytes: number
  /** How the drive is attached; `virtio` in guests with snapshots, else `nvme`. QEMU's NVMe model is always `QEMU NVMe Ctrl`. */
  model?: 'nvme' | 'virtio'
  /** Handle for the guest's methods where serials are not unique; the serial by default. */
  id?: string
  readOnly?: boolean
  /** An NVMe namespace of zones, which refuses writes that are not in order. */
  zoned?: boolean
  /** A SCSI disk whose medium can be taken out; `model` does not matter then. */
  removable?: boolean
}

/** What to boot. Everything has a default. */
export interface GuestOptions {
  layout?: Layout
  /** The whole package set is installed already. */
  prepared?: boolean
  /** Drives are virtio on qcow2, so that `snapshot` and `restore` work: QEMU's NVMe device refuses them. */
  snapshots?: boolean
  memoryMiB?: number
  /** One by default: a second one costs TCG more than it gives while two guests share two cores. */
  cpus?: number
  rootSizeBytes?: number
  rootSerial?: string
  drives?: readonly DriveOptions[]
  /** NICs that it starts with, beside the one by which the lab reaches it. */
  nics?: readonly Port[]
  /** The instance of EC2 that its firmware says it is; none by default. */
  instanceId?: string
  /** Whether to return as soon as ssh answers instead of when systemd has started everything. */
  early?: boolean
  deadlineMs?: number
  progress?: (line: string) => void
}

/** One end of a wire: the tap device of this machine that a guest's NIC stands on. */
export interface Port {
  readonly mac: string
  readonly device: string
  /** Makes the tap device anew, for QEMU to open. */
  make(): Promise<void>
  /** Takes it to where the wire goes, which may be another namespace, once QEMU holds it. */
  connect(): Promise<void>
}

/** Options of `Guest.run`. */
export interface RunOptions {
  stdin?: string | Buffer
  /** After it the command is killed in the guest and `run` throws; 120 000 by default. */
  deadlineMs?: number
  /** Return another exit than 0 instead of throwing. */
  allowFailure?: boolean
}

/** What a command in the guest left behind. */
export interface RunOutcome {
  exit: number
  stdout: string
  stderr: string
}

/** I/O errors for `Guest.failDrive`: of reads, of writes, or of both, everywhere or in one range. */
export interface DriveFault {
  reads?: boolean
  writes?: boolean
  /** Only requests that touch this byte; whole drive by default. */
  atByte?: number
}

/** A process in the guest that was started and not waited for. Emits each line of standard output. */
export interface RemoteProcess extends EventEmitter<{ line: [line: string] }> {
  /** Its pid in the guest. */
  readonly pid: number
  /** All lines of standard output so far. */
  readonly lines: readonly string[]
  /** Resolves when the process has ended and no child of it holds its output any more, or the connection is gone (`exit` 255). */
  readonly ended: Promise<RunOutcome>
  /** The first line, past or coming, that matches; throws when the process ends or the deadline passes before. */
  waitForLine(pattern: RegExp, deadlineMs?: number): Promise<string>
  /** Sends a signal to the process alone, as a crash would: its children live on. */
  kill(signal?: string): Promise<void>
}

interface Drive {
  id: string
  serial: string
  path: string
  format: 'raw' | 'qcow2'
  model: 'nvme' | 'virtio'
  readOnly: boolean
  zoned: boolean
  removable: boolean
  attached: boolean
  failing: boolean
  port: number
}

/** At most this many guests run on a machine at once: each keeps more than one core busy, and CI has two. */
const slots = Number(process.env.GARRISON_LAB_GUESTS ?? 2)

/** PCI Express ports for drives; each takes one, and one can be plugged into any that is free. */
const ports = 16

/** How long a guest may take to see a device come or go: it is emulated, on a machine that may be busy. */
const hotplugMs = 180_000

const gibibyte = 2 ** 30

/** The drives that a guest has beside root unless told otherwise: three blank ones of 2 GiB. */
export const defaultDrives: readonly DriveOptions[] = [
  { serial: 'LAB0000001', sizeBytes: 2 * gibibyte },
  { serial: 'LAB0000002', sizeBytes: 2 * gibibyte },
  { serial: 'LAB0000003', sizeBytes: 2 * gibibyte },
]

/** Serial of the root drive unless told otherwise. */
export const defaultRootSerial = 'LABROOT001'

/** Builds the image if need be, boots a guest on a fresh overlay of it, and waits until it is up. */
export async function bootGuest(options: GuestOptions = {}): Promise<Guest> {
  const progress = options.progress ?? ((line) => process.stderr.write(`lab: ${line}\n`))
  const image = await buildImage(options.layout ?? 'ext4', { prepared: options.prepared ?? false, progress })
  const slot = await takeSlot(progress)
  const guest = await Guest.prepare(image, options, slot)
  try {
    await guest.powerOn(options)
  } catch (error) {
    await guest.close()
    throw error
  }
  return guest
}

async function takeSlot(progress: (line: string) => void): Promise<Lock> {
  const deadline = performance.now() + 3_600_000
  for (let told = false; performance.now() < deadline; told = true) {
    for (let index = 0; index < slots; index++) {
      const path = join(cacheDirectory(), `slot-${index}`)
      const lock = await takeLock(path, false)
      if (!lock) continue
      await writeFile(path, `pid ${process.pid}, ${process.argv.slice(1).join(' ')}\n`)
      return lock
    }
    if (!told) {
      const holders = await Promise.all(
        Array.from({ length: slots }, (_, index) =>
          readFile(join(cacheDirectory(), `slot-${index}`), 'utf8'),
        ),
      )
      progress(
        `waiting for one of ${slots} guests on this machine to end:\n  ${holders.join('  ').trimEnd()}`,
      )
    }
    await pause(500)
  }
  throw new Error(`${slots} other guests have been running on this machine for an hour`)
}

/** A guest with its drives. Made by `bootGuest`; use `await using`, or call `close`. */
export class Guest {
  readonly #image: Image
  readonly #directory: string
  readonly #slot: Lock
  readonly #memoryMiB: number
  readonly #cpus: number
  readonly #snapshots: boolean
  readonly #drives: Drive[]
  readonly #nics: Port[]
  readonly #firmware: readonly string[]
  #qemu: Tool | undefined
  #qemuEnd: Promise<unknown> = Promise.resolve()
  #qemuErrors = ''
  #qmp: Qmp | undefined
  #master: Tool | undefined
  #port = 0

  private constructor(image: Image, directory: string, slot: Lock, drives: Drive[], options: GuestOptions) {
    this.#image = image
    this.#directory = directory
    this.#slot = slot
    this.#drives = drives
    this.#nics = [...(options.nics ?? [])]
    this.#firmware =
      options.instanceId === undefined
        ? []
        : ['-smbios', 'type=1,manufacturer=Amazon EC2', '-smbios', `type=2,asset=${options.instanceId}`]
    this.#memoryMiB = options.memoryMiB ?? 2048
    this.#cpus = options.cpus ?? 1
    this.#snapshots = options.snapshots ?? false
  }

  /** Makes the drives of a guest that is still off. */
  static async prepare(image: Image, options: GuestOptions, slot: Lock): Promise<Guest> {
    await removeAbandoned()
    const directory = await mkdtemp(join(tmpdir(), `${directoryPrefix}${process.pid}-`))
    const snapshots = options.snapshots ?? false
    const root: DriveOptions = {
      serial: options.rootSerial ?? defaultRootSerial,
      sizeBytes: options.rootSizeBytes ?? 8 * gibibyte,
      id: 'root',
    }
    const drives: Drive[] = []
    const guest = new Guest(image, directory, slot, drives, options)
    for (const one of [root, ...(options.drives ?? defaultDrives)]) {
      const backing = one === root ? image.rootPath : undefined
      await guest.#makeDrive(one, snapshots || one === root ? 'qcow2' : 'raw', backing)
    }
    return guest
  }

  /** Port of this machine's loopback that leads to the guest's sshd. */
  get sshPort(): number {
    return this.#port
  }

  /** The arguments with which a person reaches the guest. */
  get sshCommand(): string[] {
    return ['ssh', ...this.#sshOptions(), '-p', String(this.#port), 'root@127.0.0.1']
  }

  /** Handles of all drives, root first, in the order of their ports. */
  get driveIds(): string[] {
    return this.#drives.map((drive) => drive.id)
  }

  /** The machine's file behind a drive; raw for data drives of guests without snapshots. */
  drivePath(id: string): string {
    return this.#drive(id).path
  }

  /** Starts the guest after a power cut or shutdown with the drives that are attached. `rootLast` lets the kernel find root last. */
  async powerOn(options: { early?: boolean; deadlineMs?: number; rootLast?: boolean } = {}): Promise<void> {
    if (this.#qemu) throw new Error('the guest is on')
    this.#port = await freePort()
    const inOrder = this.#drives.filter((drive) => drive.attached)
    if (options.rootLast) inOrder.push(...inOrder.splice(0, 1))
    for (const [port, drive] of inOrder.entries()) {
      drive.port = port
      drive.failing = false
    }
    const socket = join(this.#directory, 'qmp')
    await rm(socket, { force: true })
    for (const nic of this.#nics) await nic.make()
    this.#qemuErrors = ''
    // QEMU leaves the memory barriers of a guest out that can have no second CPU, and its devices then miss what they are told:
    // NVMe drives never answered again (7.2).
    const cpus = `${this.#cpus},maxcpus=${Math.max(this.#cpus, 2)}`
    const qemu = startTool([
      '/usr/bin/qemu-system-x86_64',
      ...['-accel', 'tcg,thread=multi', '-machine', 'q35', '-cpu', 'Westmere', '-smp', cpus],
      ...['-m', String(this.#memoryMiB), '-nodefaults', '-display', 'none', '-no-user-config'],
      ...this.#firmware,
      ...['-chardev', `file,id=console,path=${this.#consolePath},append=on`, '-serial', 'chardev:console'],
      ...['-qmp', `unix:${socket},server=on,wait=off`],
      ...['-netdev', `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${this.#port}-10.0.2.15:22`],
      ...['-device', 'virtio-net-pci,netdev=net,mac=52:54:00:6c:61:62,romfile='],
      ...['-device', 'virtio-rng-pci'],
      ...['-blockdev', JSON.stringify(packageNode(this.#image.packagesPath))],
      ...['-device', 'virtio-blk-pci,drive=packages,serial=LABPACKAGES'],
      ...Array.from({ length: ports }, (_, port) => [
        '-device',
        `pcie-root-port,id=port-${port},chassis=${port + 1},slot=${port + 1},bus=pcie.0,addr=${portAddress(port)},multifunction=on`,
      ]).flat(),
      ...inOrder.flatMap((drive) => [
        ...['-blockdev', JSON.stringify(fileNode(drive))],
        ...['-blockdev', JSON.stringify(formatNode(drive, fileName(drive)))],
        ...deviceProperties(drive).flatMap((device) => ['-device', JSON.stringify(device)]),
      ]),
      ...this.#nics.flatMap((nic, index) => [
        ...['-netdev', JSON.stringify(wireOf(nic))],
        ...['-device', JSON.stringify(nicOf(nic, ports - 1 - index))],
      ]),
    ])
    this.#qemu = qemu
    qemu.stderr.on('data', (text: Buffer) => {
      this.#qemuErrors += text.toString()
    })
    this.#qemuEnd = endOf(qemu).finally(() => {
      if (this.#qemu === qemu) this.#qemu = undefined
    })
    const deadlineMs = options.deadlineMs ?? 300_000
    const deadline = performance.now() + deadlineMs
    this.#qmp = await this.#connectQmp(socket, deadline)
    for (const nic of this.#nics) await nic.connect()
    await this.waitReachable(deadlineMs)
    if (!options.early) await this.waitStarted(deadline - performance.now())
  }

  /** Cuts the power: what the guest has not written to its drives is gone, what reached them stays. */
  async powerCut(): Promise<void> {
    this.#dropConnections()
    this.#qemu?.kill('SIGKILL')
    await this.#qemuEnd
  }

  /** Shuts the guest down in order and waits until it is off. */
  async powerOff(deadlineMs = 180_000): Promise<void> {
    await this.#ask('poweroff')
    const off = await Promise.race([this.#qemuEnd.then(() => true), pause(deadlineMs, false, { ref: false })])
    this.#dropConnections()
    if (!off)
      throw new Error(`the guest did not power off within ${deadlineMs} ms\n${await this.consoleTail()}`)
  }

  /** The answer may be lost with the connection; what comes of it is seen from outside. */
  async #ask(what: 'poweroff' | 'reboot'): Promise<void> {
    await this.run(['systemctl', what, '--no-block']).catch(() => undefined)
  }

  /** Reboots in order and waits until another boot of the guest is up. */
  async reboot(options: { early?: boolean; deadlineMs?: number } = {}): Promise<void> {
    const deadline = performance.now() + (options.deadlineMs ?? 300_000)
    const before = await this.bootId()
    await this.#ask('reboot')
    for (;;) {
      this.#dropMaster()
      await this.waitReachable(deadline - performance.now())
      const now = await this.bootId().catch(() => before)
      if (now !== before) break
      await pause(200)
    }
    if (!options.early) await this.waitStarted(deadline - performance.now())
  }

  /** The kernel's id of this boot. */
  async bootId(): Promise<string> {
    return (await this.run(['cat', '/proc/sys/kernel/random/boot_id'])).stdout.trim()
  }

  /** Waits until sshd answers and opens the connection that all commands share. */
  async waitReachable(deadlineMs = 300_000): Promise<void> {
    const deadline = performance.now() + deadlineMs
    for (;;) {
      if (!this.#qemu) throw new Error(`QEMU has ended: ${this.#qemuErrors}\n${await this.consoleTail()}`)
      if (performance.now() > deadline) {
        throw new Error(
          `the guest's sshd did not answer within ${deadlineMs} ms\n${await this.consoleTail()}`,
        )
      }
      if ((await greets(this.#port)) && (await this.#openMaster())) return
      await pause(100)
    }
  }

  /** Waits until systemd has no more jobs; returns `running`, or `degraded` with a failed unit. A guest that starts may drop connections. */
  async waitStarted(deadlineMs = 300_000): Promise<string> {
    const deadline = performance.now() + deadlineMs
    for (;;) {
      const asked = this.run(['systemctl', 'is-system-running', '--wait'], {
        deadlineMs: deadline - performance.now(),
        allowFailure: true,
      })
      const outcome = await asked.catch((error: Error) => error)
      if (!(outcome instanceof Error)) return outcome.stdout.trim()
      if (!this.#qemu || performance.now() > deadline) throw outcome
      await this.waitReachable(deadline - performance.now())
    }
  }

  /** Runs argv in the guest as root, to its end. Throws on another exit than 0 unless `allowFailure`. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<RunOutcome> {
    const deadlineMs = Math.max(1000, options.deadlineMs ?? 120_000)
    const remote = ['timeout', '--kill-after=2', String(Math.ceil(deadlineMs / 1000)), ...argv]
    const outcome = await runTool(this.#session(quote(remote)), {
      allowFailure: true,
      deadlineMs: deadlineMs + 15_000,
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
    }).catch(async (error: Error) => {
      throw new Error(`in the guest: ${argv.join(' ')}: ${error.message}\n${await this.consoleTail()}`)
    })
    if (outcome.exit === 124 || outcome.exit === 137) {
      throw new Error(
        `in the guest: ${argv.join(' ')}: killed after ${deadlineMs} ms\n${outcome.stdout}${outcome.stderr}`,
      )
    }
    const exit = await this.#remoteExit(argv, outcome)
    if (exit !== 0 && !options.allowFailure) {
      throw new Error(`in the guest: ${argv.join(' ')}: exit ${exit}\n${outcome.stdout}${outcome.stderr}`)
    }
    return { exit, stdout: outcome.stdout, stderr: outcome.stderr }
  }

  /** Starts argv in the guest as root and returns once it has a pid. */
  async start(argv: readonly string[]): Promise<RemoteProcess> {
    const child = startTool(this.#session(`echo $$; exec ${quote(argv)}`))
    child.stdin.end()
    const emitter = new EventEmitter<{ line: [line: string] }>()
    const lines: string[] = []
    let stderr = ''
    child.stderr.on('data', (text: Buffer) => {
      stderr += text.toString()
    })
    const end = endOf(child)
    const pid = await new Promise<number>((resolve, reject) => {
      let first = true
      eachLine(child.stdout, (line) => {
        if (first) {
          first = false
          resolve(Number(line))
          return
        }
        lines.push(line)
        emitter.emit('line', line)
      })
      end.then(() => reject(new Error(`in the guest: ${argv.join(' ')}: did not start\n${stderr}`)), reject)
    })
    const ended = end.then((exit) => ({
      exit: typeof exit === 'number' ? exit : 255,
      stdout: lines.map((line) => `${line}\n`).join(''),
      stderr,
    }))
    const waitForLine = (pattern: RegExp, deadlineMs = 120_000) =>
      new Promise<string>((resolve, reject) => {
        const past = lines.find((line) => pattern.test(line))
        if (past !== undefined) return resolve(past)
        const stop = (why: string) => {
          emitter.off('line', look)
          clearTimeout(timer)
          reject(
            new Error(
              `in the guest: ${argv.join(' ')}: no line like ${pattern} ${why}\n${lines.join('\n')}\n${stderr}`,
            ),
          )
        }
        const look = (line: string) => {
          if (!pattern.test(line)) return
          emitter.off('line', look)
          clearTimeout(timer)
          resolve(line)
        }
        const timer = setTimeout(() => stop(`within ${deadlineMs} ms`), deadlineMs)
        emitter.on('line', look)
        ended.then(() => stop('before it ended'), reject)
      })
    const kill = async (signal = 'KILL') => {
      await this.run(['kill', `-${signal}`, String(pid)])
    }
    return Object.assign(emitter, { pid, lines, ended, waitForLine, kill })
  }

  /** Copies a file or folder of this machine into the guest. */
  async copyIn(local: string, remote: string): Promise<void> {
    await runTool(['/usr/bin/scp', '-rpq', ...this.#shareOptions(), '--', local, `root@127.0.0.1:${remote}`])
  }

  /** Copies a file or folder of the guest to this machine. */
  async copyOut(remote: string, local: string): Promise<void> {
    await runTool(['/usr/bin/scp', '-rpq', ...this.#shareOptions(), '--', `root@127.0.0.1:${remote}`, local])
  }

  /** Writes a file in the guest, with its folders. */
  async writeFile(path: string, text: string | Buffer): Promise<void> {
    await this.run(['install', '-D', '-m', '0644', '/dev/stdin', path], { stdin: text })
  }

  /** Pulls a drive out of the running guest and waits until the guest has let go of it. Its content stays. */
  async detachDrive(id: string): Promise<void> {
    const drive = this.#drive(id)
    const gone = this.#monitor.waitFor(
      'DEVICE_DELETED',
      (content) => content.device === `device-${id}`,
      hotplugMs,
    )
    await Promise.all([gone, this.#monitor.ask('device_del', { id: `device-${id}` })])
    await this.#monitor.ask('blockdev-del', { 'node-name': formatName(drive) })
    if (drive.failing) await this.#monitor.ask('blockdev-del', { 'node-name': faultName(drive) })
    await this.#monitor.ask('blockdev-del', { 'node-name': fileName(drive) })
    drive.attached = false
    drive.failing = false
  }

  /** Plugs in a drive: one that was detached, by its id, or a new blank one. Returns once the guest has its block device. */
  async attachDrive(drive: string | DriveOptions): Promise<void> {
    const id = typeof drive === 'string' ? drive : (drive.id ?? drive.serial)
    if (typeof drive !== 'string') await this.#makeDrive(drive, this.#snapshots ? 'qcow2' : 'raw')
    const one = this.#drive(id)
    const used = new Set(
      this.#drives.filter((other) => other.attached && other !== one).map((other) => other.port),
    )
    one.port = Array.from({ length: ports }, (_, port) => port).find((port) => !used.has(port)) ?? ports
    one.attached = true
    await this.#monitor.ask('blockdev-add', fileNode(one))
    await this.#monitor.ask('blockdev-add', formatNode(one, fileName(one)))
    for (const device of deviceProperties(one)) await this.#monitor.ask('device_add', device)
    const deadline = performance.now() + hotplugMs
    while (!(await this.#serials()).includes(one.serial)) {
      if (performance.now() > deadline)
        throw new Error(`the guest did not see drive ${id}\n${await this.consoleTail()}`)
      await pause(200)
    }
    await this.run(['udevadm', 'settle'])
  }

  /** Plugs in a NIC; it stays over power cuts until it is pulled out. Whether the guest has seen it is for its own tools to tell. */
  async attachNic(nic: Port): Promise<void> {
    await nic.make()
    await this.#monitor.ask('netdev_add', wireOf(nic))
    // First the wire: what the guest asks for at once (DHCP) would wait long for its next try.
    await nic.connect()
    await this.#monitor.ask('device_add', nicOf(nic, ports - 1 - this.#nics.length))
    this.#nics.push(nic)
  }

  /** Pulls a NIC out and waits until the guest has let go of it. */
  async detachNic(nic: Port): Promise<void> {
    const { id } = nicOf(nic, 0)
    const gone = this.#monitor.waitFor('DEVICE_DELETED', (content) => content.device === id, hotplugMs)
    await Promise.all([gone, this.#monitor.ask('device_del', { id })])
    await this.#monitor.ask('netdev_del', { id: wireOf(nic).id })
    this.#nics.splice(this.#nics.indexOf(nic), 1)
  }

  /** Plugs the cable of a NIC out, or in again: the guest sees its carrier go and come. A power cut plugs it in. */
  async plugCable(nic: Port, plugged: boolean): Promise<void> {
    await this.#monitor.ask('set_link', { name: nicOf(nic, 0).id, up: plugged })
  }

  /** Makes a drive answer with I/O errors until `healDrive`; reads and writes unless told otherwise. */
  async failDrive(id: string, fault: DriveFault = {}): Promise<void> {
    const drive = this.#drive(id)
    if (drive.failing) throw new Error(`drive ${id} fails already`)
    const both = fault.reads === undefined && fault.writes === undefined
    const kinds = [
      ...(both || fault.reads ? ['read'] : []),
      ...(both || fault.writes ? ['write', 'write-zeroes', 'discard', 'flush'] : []),
    ]
    await this.#monitor.ask('blockdev-add', {
      driver: 'blkdebug',
      'node-name': faultName(drive),
      image: fileName(drive),
      discard: 'unmap',
      cache: { direct: false, 'no-flush': true },
      'inject-error': kinds.map((iotype) => ({
        event: 'none',
        iotype,
        errno: 5,
        once: false,
        ...(fault.atByte === undefined ? {} : { sector: Math.floor(fault.atByte / 512) }),
      })),
    })
    await this.#monitor.ask('blockdev-reopen', { options: [formatNode(drive, faultName(drive))] })
    drive.failing = true
  }

  /** Lets an NVMe drive warn in its health log; the bits are those of the log's critical warning, 0 for none. */
  async warnOfDrive(id: string, criticalWarning: number): Promise<void> {
    await this.#monitor.ask('qom-set', {
      path: `/machine/peripheral/device-${id}`,
      property: 'smart_critical_warning',
      value: criticalWarning,
    })
  }

  /** Ends what `failDrive` began. */
  async healDrive(id: string): Promise<void> {
    const drive = this.#drive(id)
    await this.#monitor.ask('blockdev-reopen', { options: [formatNode(drive, fileName(drive))] })
    await this.#monitor.ask('blockdev-del', { 'node-name': faultName(drive) })
    drive.failing = false
  }

  /** What is on a drive now, seen from the machine. What the guest still holds in its page cache is not on it. */
  async driveContent(id: string): Promise<DriveContent> {
    const drive = this.#drive(id)
    if (drive.format === 'raw') return readContent(drive.path)
    const copy = join(this.#directory, `${id}.copy`)
    const flat = ['/usr/bin/qemu-img', 'convert', '-O', 'raw']
    try {
      if (this.#qemu && drive.attached) {
        // Only QEMU knows what its own qcow2 holds: it keeps tables in memory. So it serves the drive over NBD.
        const socket = join(this.#directory, 'nbd')
        await this.#monitor.ask('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } })
        const node = formatName(drive)
        await this.#monitor.ask('block-export-add', {
          type: 'nbd',
          id: 'content',
          'node-name': node,
          name: 'content',
        })
        await runTool([...flat, '-f', 'raw', `nbd+unix:///content?socket=${socket}`, copy])
        await this.#monitor.ask('nbd-server-stop')
      } else {
        await runTool([...flat, '-f', 'qcow2', drive.path, copy])
      }
      return await readContent(copy)
    } finally {
      await rm(copy, { force: true })
    }
  }

  /** Hash of all bytes of a drive. */
  async driveHash(id: string): Promise<string> {
    return (await this.driveContent(id)).hash
  }

  /** Writes to a drive behind the guest's back; raw drives only. The guest's page cache may still show the old bytes. */
  async writeDrive(id: string, offset: number, bytes: Buffer): Promise<void> {
    const drive = this.#drive(id)
    if (drive.format !== 'raw') throw new Error(`drive ${id} is not raw; write to it inside the guest`)
    const file = await open(drive.path, 'r+')
    await file.write(bytes, 0, bytes.length, offset).finally(() => file.close())
  }

  /** Fills the filesystem under a directory of the guest until only `leaveBytes` are free; returns the file that fills it. */
  async fillFilesystem(directory: string, leaveBytes = 0): Promise<string> {
    const path = `${directory.replace(/\/$/, '')}/.lab-filler`
    const asked = await this.run(['stat', '-f', '-c', '%a %S', directory])
    const [blocks = 0, blockBytes = 0] = asked.stdout.trim().split(' ').map(Number)
    const bytes = blocks * blockBytes - leaveBytes
    await this.run(['fallocate', '-l', String(bytes), path])
    // Metadata of the filler itself and reserved blocks make the first figure inexact; the rest is filled by writing.
    if (leaveBytes === 0) {
      await this.run(['dd', 'if=/dev/zero', `of=${path}`, 'bs=4k', 'oflag=append', 'conv=notrunc'], {
        allowFailure: true,
      })
    }
    return path
  }

  /** Saves memory and drives under a name. Only in guests with `snapshots`. */
  async snapshot(name: string): Promise<void> {
    await this.#snapshotJob('snapshot-save', name)
    await this.waitReachable()
  }

  /** Goes back to a snapshot: memory, processes and drives. Drives must be attached as they were then. */
  async restore(name: string): Promise<void> {
    await this.#snapshotJob('snapshot-load', name)
    await this.waitReachable()
  }

  /** The last lines of the guest's serial console. */
  async consoleTail(lines = 40): Promise<string> {
    const text = await readFile(this.#consolePath, 'utf8').catch(() => '(no console yet)')
    const last = text.replaceAll(/\0+/g, '…').split('\n').slice(-lines)
    return `--- last lines of the guest's console ---\n${last.join('\n')}`
  }

  /** Ends the guest at once and removes its drives; its console is kept as `last-console.log` in the cache. */
  async close(): Promise<void> {
    await this.powerCut()
    await copyFile(this.#consolePath, join(cacheDirectory(), 'last-console.log')).catch(() => undefined)
    await rm(this.#directory, { recursive: true, force: true })
    await this.#slot.release()
  }

  /** Same as `close`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  get #consolePath(): string {
    return join(this.#directory, 'console.log')
  }

  get #monitor(): Qmp {
    if (!this.#qmp) throw new Error('the guest is off')
    return this.#qmp
  }

  #drive(id: string): Drive {
    const drive = this.#drives.find((one) => one.id === id)
    if (!drive) throw new Error(`no drive ${id}; there are ${this.driveIds.join(', ')}`)
    return drive
  }

  async #makeDrive(options: DriveOptions, format: 'raw' | 'qcow2', backing?: string): Promise<void> {
    const id = options.id ?? options.serial
    if (this.#drives.some((drive) => drive.id === id))
      throw new Error(`there is a drive ${id} already; give another id`)
    if (this.#snapshots && options.model === 'nvme')
      throw new Error('QEMU cannot save a guest with NVMe drives')
    const path = join(this.#directory, `${id}.${format}`)
    await makeDrive(path, options.sizeBytes, format, backing)
    this.#drives.push({
      id,
      serial: options.serial,
      path,
      format,
      model: options.model ?? (this.#snapshots ? 'virtio' : 'nvme'),
      readOnly: options.readOnly ?? false,
      zoned: options.zoned ?? false,
      removable: options.removable ?? false,
      attached: true,
      failing: false,
      port: 0,
    })
  }

  async #serials(): Promise<string[]> {
    const listed = await this.run(['lsblk', '--nodeps', '--noheadings', '--output', 'SERIAL'])
    return listed.stdout.split('\n').map((line) => line.trim())
  }

  async #snapshotJob(command: string, name: string): Promise<void> {
    if (!this.#snapshots) throw new Error('boot the guest with `snapshots: true`')
    // A connection would not survive the guest's return to another time.
    this.#dropMaster()
    const devices = this.#drives.filter((drive) => drive.attached && !drive.readOnly).map(formatName)
    await this.#monitor.job(command, { tag: name, vmstate: devices[0], devices }, 120_000)
  }

  #sshOptions(): string[] {
    return [
      ...['-F', 'none', '-i', this.#image.keyPath, '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes'],
      ...['-o', `UserKnownHostsFile=${this.#image.knownHostsPath}`, '-o', 'HostKeyAlias=garrison-lab'],
      ...['-o', 'ConnectTimeout=20', '-o', 'LogLevel=ERROR'],
    ]
  }

  #shareOptions(): string[] {
    return [
      '-F',
      'none',
      '-o',
      `ControlPath=${join(this.#directory, 'ssh')}`,
      '-o',
      'BatchMode=yes',
      '-o',
      'LogLevel=ERROR',
    ]
  }

  #session(command: string): string[] {
    if (!this.#master) throw new Error('the guest is not connected: it is off, or rebooted by itself')
    return ['/usr/bin/ssh', ...this.#shareOptions(), 'root@127.0.0.1', command]
  }

  async #remoteExit(argv: readonly string[], outcome: Outcome): Promise<number> {
    if (typeof outcome.exit !== 'number' || (outcome.exit === 255 && !(await this.#connected()))) {
      throw new Error(
        `in the guest: ${argv.join(' ')}: the connection was lost\n${outcome.stderr}\n${await this.consoleTail()}`,
      )
    }
    return outcome.exit
  }

  async #connected(): Promise<boolean> {
    const check = ['/usr/bin/ssh', ...this.#shareOptions(), '-O', 'check', 'root@127.0.0.1']
    return (await runTool(check, { allowFailure: true })).exit === 0
  }

  async #openMaster(): Promise<boolean> {
    this.#dropMaster()
    const path = join(this.#directory, 'ssh')
    await rm(path, { force: true })
    const master = startTool([
      '/usr/bin/ssh',
      ...this.#sshOptions(),
      ...['-M', '-N', '-S', path, '-o', 'ServerAliveInterval=0', '-p', String(this.#port), 'root@127.0.0.1'],
    ])
    this.#master = master
    const gone = endOf(master).then(() => true)
    while (!(await this.#connected())) {
      if (await Promise.race([gone, pause(50, false)])) {
        this.#master = undefined
        return false
      }
    }
    return true
  }

  #dropMaster(): void {
    this.#master?.kill('SIGKILL')
    this.#master = undefined
  }

  #dropConnections(): void {
    this.#dropMaster()
    this.#qmp?.close()
    this.#qmp = undefined
  }

  async #connectQmp(socket: string, deadline: number): Promise<Qmp> {
    for (;;) {
      const session = await Qmp.connect(socket).catch((error: Error) => error)
      if (!(session instanceof Error)) return session
      if (!this.#qemu) throw new Error(`QEMU did not start: ${this.#qemuErrors}`)
      if (performance.now() > deadline) throw session
      await pause(20)
    }
  }
}

/** Names of guests' directories, followed by the pid of the process that they belong to. */
const directoryPrefix = 'garrison-lab-'

/** Removes the drives of guests whose process was killed before it could. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = new RegExp(`^${directoryPrefix}(\\d+)-`).exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`))
      await rm(join(tmpdir(), name), { recursive: true, force: true })
  }
}

const formatName = (drive: Drive) => `drive-${drive.id}`
const fileName = (drive: Drive) => `file-${drive.id}`
const faultName = (drive: Drive) => `fault-${drive.id}`

/**
 * The power can only be cut by killing QEMU, after which the machine's page cache still holds every write that QEMU made. So
 * fsync on the machine proves nothing and `no-flush` leaves it out; a flush still makes QEMU write out its own qcow2 tables.
 */
const cache = { direct: false, 'no-flush': true }

const fileNode = (drive: Drive) => ({
  driver: 'file',
  'node-name': fileName(drive),
  filename: drive.path,
  discard: 'unmap',
  'read-only': drive.readOnly,
  cache,
})

const formatNode = (drive: Drive, file: string) => ({
  driver: drive.format,
  'node-name': formatName(drive),
  file,
  discard: 'unmap',
  'read-only': drive.readOnly,
  cache,
})

const packageNode = (path: string) => ({
  driver: 'raw',
  'node-name': 'packages',
  'read-only': true,
  file: { driver: 'file', filename: path, 'read-only': true },
})

/** Eight root ports share one PCI slot, from slot 8 on. */
const portAddress = (port: number) => `${(8 + Math.floor(port / 8)).toString(16)}.${port % 8}`

function deviceProperties(drive: Drive): Record<string, unknown>[] {
  const id = `device-${drive.id}`
  const bus = `port-${drive.port}`
  const serial = drive.serial
  const node = formatName(drive)
  // SeaBIOS starts from the device with this index wherever it is plugged in.
  const boot = drive.id === 'root' ? { bootindex: 0 } : {}
  if (drive.removable)
    return [
      { driver: 'virtio-scsi-pci', id, bus },
      { driver: 'scsi-hd', id: `${id}-disk`, bus: `${id}.0`, drive: node, serial, removable: true },
    ]
  if (drive.model === 'virtio') return [{ driver: 'virtio-blk-pci', id, bus, serial, drive: node, ...boot }]
  if (!drive.zoned) return [{ driver: 'nvme', id, bus, serial, drive: node, ...boot }]
  return [
    { driver: 'nvme', id, bus, serial },
    {
      driver: 'nvme-ns',
      id: `${id}-namespace`,
      bus: id,
      drive: node,
      zoned: true,
      'zoned.zone_size': 64 * 2 ** 20,
    },
  ]
}

const wireOf = ({ device }: Port) => ({
  type: 'tap',
  id: `wire-${device}`,
  ifname: device,
  script: 'no',
  downscript: 'no',
})

const nicOf = ({ device, mac }: Port, port: number) => ({
  driver: 'virtio-net-pci',
  id: `device-${device}`,
  netdev: `wire-${device}`,
  mac,
  bus: `port-${port}`,
  romfile: '',
})

/** Quotes argv for the one string that sshd hands to the guest's shell. */
function quote(argv: readonly string[]): string {
  return argv.map((one) => `'${one.replaceAll("'", `'\\''`)}'`).join(' ')
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      )
    })
  })
}

/** Whether an ssh server says its name on the port within a second; QEMU itself accepts connections from the start. */
function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1')
    const answer = (value: boolean) => {
      socket.destroy()
      resolve(value)
    }
    // A busy machine takes seconds to start the guest's sshd for a connection.
    socket.setTimeout(5000, () => answer(false))
    socket.once('data', (text) => answer(text.toString().startsWith('SSH-')))
    socket.once('error', () => answer(false))
    socket.once('close', () => answer(false))
  })
}
