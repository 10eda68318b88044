// Reads this Linux host and changes nothing: /proc, sysfs, block devices, and the tools that queries.ts lets through.

import { randomInt } from 'node:crypto'
import { constants, existsSync } from 'node:fs'
import { open, readdir, readlink, realpath, stat, statfs } from 'node:fs/promises'
import { basename } from 'node:path'
import type {
  Answer,
  Capacity,
  DomainFacts,
  DriveSample,
  FileFacts,
  HostReader,
  IoActivity,
  LockHolder,
  MountTable,
  NetworkFacts,
  PoolFacts,
  UnfinishedStep,
} from '../../provisioning/host.ts'
import type { Ec2Question, Ec2Reading, InstanceEvents, InstanceFacts } from '../../provisioning/instance.ts'
import { HostError } from '../../provisioning/problem.ts'
import type { FromEc2 } from './ec2.ts'
import { type Argv, execute, lastLines } from './exec.ts'
import { absentOrThrow, errnoOf, isDenied } from './files.ts'
import type { Imds } from './imds.ts'
import { type ReadCalls, readDomains, readNetworks, readPools } from './libvirt-read.ts'
import { onlyReads } from './queries.ts'

/** Devices that this process holds open exclusively right now: the performer adds to it, the reader looks at it. */
export type Claims = Set<string>

/** What a LinuxHost is told by the composition root, because it lies outside of reading the host. */
export interface LinuxHostOptions {
  readonly claims: Claims
  unfinishedSteps(): Promise<readonly UnfinishedStep[]>
  lockHolder(): Promise<LockHolder | null>
  /** Throws `libvirt.unreachable`, `libvirt.denied`. */
  libvirt(): Promise<ReadCalls>
  readonly imds: Pick<Imds, 'instance' | 'events'>
  readonly ec2: FromEc2
}

const queryDeadlineMs = 30_000
const mostTextBytes = 16 * 2 ** 20
const mostHeadBytes = 64 * 2 ** 10
const chunkBytes = 2 ** 20
const edgeBytes = 16 * 2 ** 20
const blockBytes = 4096
const randomBlocks = 256
const watchMs = 250

const orNull = async <T>(path: string, reading: Promise<T>): Promise<T | null> => {
  try {
    return await reading
  } catch (error) {
    return absentOrThrow(path, error)
  }
}

/** As `orNull`, but absence is an error too. */
const orThrow = async <T>(path: string, reading: Promise<T>): Promise<T> => {
  const answer = await orNull(path, reading)
  if (answer === null) throw new HostError('host.unreadable', `${path} is not there`, { details: { path } })
  return answer
}

/** Reads to the end of file, since files of /proc and sysfs tell no size. */
async function readAll(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const chunks: Buffer[] = []
    let bytes = 0
    for (;;) {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(64 * 2 ** 10))
      if (bytesRead === 0) return Buffer.concat(chunks).toString('utf8')
      chunks.push(buffer.subarray(0, bytesRead))
      bytes += bytesRead
      if (bytes > mostTextBytes)
        throw new HostError('host.unreadable', `${path} is longer than 16 MiB`, { details: { path } })
    }
  } finally {
    await file.close()
  }
}

/** What a program says on standard error when it may not do what it was asked, with LC_ALL=C. */
const deniedWords =
  /permission denied|operation not permitted|must be super-user|must be root|you must be root/i

const zeros = Buffer.alloc(chunkBytes)

/** Where a drive is looked at: both its edges whole, and random blocks between; everything when it is small. */
function* samplePlaces(sizeBytes: number): Generator<readonly [offset: number, bytes: number]> {
  const edges =
    sizeBytes <= 2 * edgeBytes
      ? [[0, sizeBytes]]
      : [
          [0, edgeBytes],
          [sizeBytes - edgeBytes, sizeBytes],
        ]
  for (const [from = 0, to = 0] of edges)
    for (let at = from; at < to; at += chunkBytes) yield [at, Math.min(chunkBytes, to - at)]
  const middleBlocks = Math.floor((sizeBytes - 2 * edgeBytes) / blockBytes)
  if (middleBlocks <= 0) return
  const offsets = Array.from({ length: randomBlocks }, () => edgeBytes + randomInt(middleBlocks) * blockBytes)
  for (const offset of offsets.sort((a, b) => a - b)) yield [offset, blockBytes]
}

/** The HostReader of the machine that this process runs on. */
export class LinuxHost implements HostReader {
  readonly #options: LinuxHostOptions

  constructor(options: LinuxHostOptions) {
    this.#options = options
  }

  async query(argv: Argv, deadlineMs = queryDeadlineMs): Promise<Answer> {
    if (!onlyReads(argv))
      throw new HostError('host.query-refused', `not a query that only reads: ${argv.join(' ')}`, {
        details: { argv },
      })
    const { ended, exit, stdout, stderr } = await execute(argv, { deadlineMs, keep: 'all' })
    const details = { argv, stderr: lastLines(stderr) }
    if (ended === 'deadline')
      throw new HostError('host.deadline', `${argv[0]} did not answer within ${deadlineMs / 1000} s`, {
        details,
      })
    if (ended === 'overflow')
      throw new HostError('host.unreadable', `${argv[0]} answered more than 16 MiB`, { details })
    if (ended === 'signal')
      throw new HostError('host.unreadable', `${argv[0]} was ended by signal ${exit - 128}`, { details })
    if (exit !== 0 && deniedWords.test(stderr))
      throw new HostError('host.denied', `${argv[0]}: ${lastLines(stderr, 1)}`, { details })
    return { exit, stdout, stderr }
  }

  readText(path: string): Promise<string | null> {
    return orNull(path, readAll(path))
  }

  async list(path: string): Promise<readonly string[] | null> {
    return (await orNull(path, readdir(path)))?.sort() ?? null
  }

  resolve(path: string): Promise<string | null> {
    return orNull(path, realpath(path))
  }

  async facts(path: string): Promise<FileFacts | null> {
    const found = await orNull(path, stat(path))
    if (found === null) return null
    return {
      kind: found.isFile()
        ? 'file'
        : found.isDirectory()
          ? 'folder'
          : found.isBlockDevice()
            ? 'block'
            : 'other',
      sizeBytes: found.size,
      mode: found.mode & 0o7777,
      uid: found.uid,
      gid: found.gid,
      modifiedMs: Math.round(found.mtimeMs),
    }
  }

  async head(path: string, bytes: number): Promise<string | null> {
    const file = await orNull(path, open(path, constants.O_RDONLY | constants.O_NONBLOCK))
    if (file === null) return null
    try {
      const buffer = Buffer.alloc(Math.min(bytes, mostHeadBytes))
      const { bytesRead } = await orThrow(path, file.read(buffer, 0, buffer.length, 0))
      return buffer.subarray(0, bytesRead).toString('base64')
    } finally {
      await file.close()
    }
  }

  async capacity(path: string): Promise<Capacity | null> {
    const found = await orNull(path, statfs(path))
    if (found === null) return null
    return {
      sizeBytes: found.blocks * found.bsize,
      // What root may still use is not what is left for everybody else; the agent's own writes are root's, a VM's are not.
      freeBytes: found.bavail * found.bsize,
      inodes: found.files,
      freeInodes: found.ffree,
    }
  }

  /** Namespaces that no process is in (held by a bind mount or an open file alone) are not seen. */
  async mountTables(): Promise<readonly MountTable[]> {
    const own = await orThrow('/proc/self/ns/mnt', readlink('/proc/self/ns/mnt'))
    const tables = new Map<string, MountTable>()
    const pids = (await readdir('/proc')).flatMap((name) => (/^\d+$/.test(name) ? Number(name) : []))
    for (const pid of [process.pid, ...pids.sort((a, b) => a - b)]) {
      const namespace = await this.#mountNamespace(pid)
      if (namespace === null || tables.has(namespace)) continue
      const mountinfo = await this.#mountinfo(pid)
      // A process that has ended meanwhile tells nothing; another of the same namespace may follow.
      if (mountinfo !== null) tables.set(namespace, { pid, own: namespace === own, mountinfo })
    }
    return [...tables.values()]
  }

  async #mountNamespace(pid: number): Promise<string | null> {
    const path = `/proc/${pid}/ns/mnt`
    try {
      return await readlink(path)
    } catch (error) {
      // The kernel answers EACCES for a process that ended between the lookup of the path and this (proc_ns_readlink).
      return isDenied(errnoOf(error)) && !existsSync(`/proc/${pid}`) ? null : absentOrThrow(path, error)
    }
  }

  async #mountinfo(pid: number): Promise<string | null> {
    const path = `/proc/${pid}/mountinfo`
    try {
      return await readAll(path)
    } catch (error) {
      // The kernel answers EINVAL for a process that has no mount namespace any more (a zombie).
      return errnoOf(error) === 'EINVAL' ? null : absentOrThrow(path, error)
    }
  }

  async #openDevice(path: string, flags: number) {
    const facts = await this.facts(path)
    if (facts?.kind !== 'block')
      throw new HostError('host.unreadable', `${path} is not a block device`, { details: { path } })
    return open(path, flags)
  }

  async sample(device: string): Promise<DriveSample> {
    const name = basename(await orThrow(device, realpath(device)))
    const sectors = await orThrow(`/sys/class/block/${name}/size`, readAll(`/sys/class/block/${name}/size`))
    const sizeBytes = Number(sectors) * 512
    if (!(sizeBytes > 0))
      throw new HostError('host.unreadable', `${device} has no size`, { details: { device } })
    return orThrow(device, this.#sampleBytes(device, sizeBytes))
  }

  async #sampleBytes(device: string, sizeBytes: number): Promise<DriveSample> {
    const file = await this.#openDevice(device, constants.O_RDONLY)
    try {
      let sampledBytes = 0
      const buffer = Buffer.allocUnsafe(chunkBytes)
      for (const [offset, bytes] of samplePlaces(sizeBytes)) {
        for (let done = 0; done < bytes; ) {
          const { bytesRead } = await file.read(buffer, done, bytes - done, offset + done)
          if (bytesRead === 0)
            throw new HostError(
              'host.unreadable',
              `${device} ends at byte ${offset + done} of ${sizeBytes}`,
              {
                details: { device },
              },
            )
          done += bytesRead
        }
        sampledBytes += bytes
        const seen = buffer.subarray(0, bytes)
        if (!seen.equals(zeros.subarray(0, bytes)))
          return { sampledBytes, nonZeroAt: offset + seen.findIndex((byte) => byte !== 0) }
      }
      return { sampledBytes, nonZeroAt: null }
    } finally {
      await file.close()
    }
  }

  async exclusive(device: string): Promise<'free' | 'busy'> {
    const real = await orThrow(device, realpath(device))
    if (this.#options.claims.has(real)) return 'free'
    try {
      const file = await this.#openDevice(real, constants.O_RDONLY | constants.O_EXCL)
      await file.close()
      return 'free'
    } catch (error) {
      if (errnoOf(error) === 'EBUSY') return 'busy'
      return orThrow(device, Promise.reject(error))
    }
  }

  async ioActivity(kernelNames: readonly string[]): Promise<Readonly<Record<string, IoActivity>>> {
    const look = () =>
      Promise.all(
        kernelNames.map(async (name) => {
          const path = `/sys/class/block/${name}/stat`
          const fields = (await orThrow(path, readAll(path))).trim().split(/\s+/).map(Number)
          const [, , readSectors, , , , writtenSectors, , inFlight] = fields
          if (readSectors === undefined || writtenSectors === undefined || inFlight === undefined)
            throw new HostError('host.unexpected-answer', `${path} has only ${fields.length} fields`)
          return { readSectors, writtenSectors, inFlight }
        }),
      )
    const before = await look()
    await new Promise((resolve) => setTimeout(resolve, watchMs))
    const after = await look()
    return Object.fromEntries(
      kernelNames.map((name, index) => [
        name,
        {
          readSectors: (after[index]?.readSectors ?? 0) - (before[index]?.readSectors ?? 0),
          writtenSectors: (after[index]?.writtenSectors ?? 0) - (before[index]?.writtenSectors ?? 0),
          inFlight: after[index]?.inFlight ?? 0,
        },
      ]),
    )
  }

  unfinishedSteps(): Promise<readonly UnfinishedStep[]> {
    return this.#options.unfinishedSteps()
  }

  lockHolder(): Promise<LockHolder | null> {
    return this.#options.lockHolder()
  }

  async now(): Promise<number> {
    return Date.now()
  }

  async domains(): Promise<readonly DomainFacts[]> {
    return readDomains(await this.#options.libvirt())
  }

  async pools(): Promise<readonly PoolFacts[]> {
    return readPools(await this.#options.libvirt())
  }

  async networks(): Promise<readonly NetworkFacts[]> {
    return readNetworks(await this.#options.libvirt())
  }
  instance(): Promise<InstanceFacts | null> {
    return this.#options.imds.instance()
  }

  instanceEvents(): Promise<InstanceEvents | null> {
    return this.#options.imds.events()
  }

  ec2Network(question: Ec2Question): Promise<Ec2Reading> {
    return this.#options.ec2.network(question)
  }
}
