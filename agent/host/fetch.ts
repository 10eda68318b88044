// Fetches a file over HTTP/1.1 (RFC 9110), or from a path of this host, into its place: whole and verified, or not at all.
//
// INVARIANTS
// - A file gets its name only after every byte of it went through the digest that its checksum names.
// - Beside it `NAME.part` grows and `NAME.part.json` says what it is a part of; whatever those two say, the checksum decides.
// - Memory does not grow with the file: what has not been written yet is not read from the network.

import { createHash, type Hash } from 'node:crypto'
import { type FileHandle, open, stat, statfs } from 'node:fs/promises'
import { type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { getCACertificates } from 'node:tls'
import { HostError, type ProblemCode } from '../../provisioning/problem.ts'
import type { Action } from '../../provisioning/resource.ts'
import { toldSource } from '../../provisioning/told.ts'
import { checksumParts } from '../../provisioning/vms/image.ts'
import { type Origin, originPath } from '../../provisioning/vms/images.ts'
import { headBytes, imageObjection } from '../../provisioning/vms/qcow2.ts'
import { errnoOf, type GrowingFile, growFile, moveFile, removeFile, replaceFile } from './files.ts'
import { signedUrl } from './s3.ts'

/** What is to be fetched; see `Action`. */
export type Fetching = Omit<Extract<Action, { kind: 'fetch' }>, 'kind'>

/** How far a fetch has come. `totalBytes` is null while nobody has said it; `resumedBytes` were there when it began. */
export interface FetchProgress {
  readonly doneBytes: number
  readonly totalBytes: number | null
  readonly resumedBytes: number
}

/** How a fetch behaves; all of it has a default. */
export interface FetchOptions {
  /** A server that says nothing for so long is given up, and asked again. */
  readonly stallMs?: number
  /** The pause before another try; it doubles with each that brought nothing. */
  readonly pauseMs?: number
  /** Called at most ten times a second, and at the end. */
  readonly onProgress?: (progress: FetchProgress) => void
  /** So much may be lost by a power cut, and then is fetched again. */
  readonly syncBytes?: number
  /** Ends it: what has come is kept, and gone on with. */
  readonly signal?: AbortSignal | undefined
  /** Room on the filesystem of a folder. */
  readonly freeBytes?: (folder: string) => Promise<number>
}

const usualStallMs = 30_000
const usualPauseMs = 1000
const mostPauseMs = 30_000
/** Tries in a row that bring not one byte. */
const mostTries = 5
const mostRedirects = 5
const progressMs = 100
const usualSyncBytes = 64 * 2 ** 20
/** On a slow line: after so long it is made sure of what there is. */
const syncMs = 10_000
/** What is left free: a pool that is full stops the VMs in it. */
const spareBytes = 256 * 2 ** 20
const chunkBytes = 2 ** 20

const freeOn = async (folder: string): Promise<number> => {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}

/** A try that failed, and may well succeed when it is done again. */
class Interrupted extends Error {
  readonly afterMs: number
  constructor(message: string, afterMs = 0) {
    super(message)
    this.afterMs = afterMs
  }
}

/** S3 says that the bucket is in another region than the request was signed for. */
class Elsewhere extends Interrupted {
  readonly region: string
  constructor(region: string) {
    super(`its bucket is in ${region}`)
    this.region = region
  }
}

/** A URL without what may be a secret in it. */
const shown = ({ href }: URL): string => toldSource(href)

/** What is remembered of a file of which only a part is there. */
interface PartRecord {
  readonly source: string
  readonly checksum: string
  /** Says which version of the file the part is of: a strong ETag, or a date. */
  readonly validator: string | null
  readonly totalBytes: number | null
  /** So many bytes were on the disk for certain. */
  readonly syncedBytes: number
}

async function readWhole(path: string): Promise<string | null> {
  try {
    await using file = await open(path)
    return await file.readFile('utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null
    throw unreadable(path, error)
  }
}

const unreadable = (path: string, cause: unknown): HostError => {
  const errno = errnoOf(cause)
  if (errno === undefined) throw cause
  return new HostError('host.unreadable', `${path} could not be read (${errno})`, {
    details: { path, errno },
    cause,
  })
}

/** The record beside a part, when it is of this very file; what cannot be understood is not. */
function parseRecord(text: string | null, { source, checksum = '' }: Fetching): PartRecord | null {
  if (text === null) return null
  let record: Partial<PartRecord>
  try {
    record = JSON.parse(text) as Partial<PartRecord>
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
  const { validator = null, totalBytes = null, syncedBytes } = record
  if (record.source !== source || record.checksum !== checksum) return null
  return typeof syncedBytes === 'number' && Number.isSafeInteger(syncedBytes) && syncedBytes >= 0
    ? { source, checksum, validator, totalBytes, syncedBytes }
    : null
}

const sizeOf = async (path: string): Promise<number | null> => {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null
    throw unreadable(path, error)
  }
}

/** Gives a file's first bytes to `take`, in chunks. */
async function readInto(
  file: FileHandle,
  bytes: number,
  take: (chunk: Buffer) => Promise<void> | void,
): Promise<void> {
  const buffer = Buffer.allocUnsafe(chunkBytes)
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(chunkBytes, bytes - at), at)
    if (bytesRead === 0) throw new Interrupted(`it became shorter than ${bytes} bytes while it was read`)
    await take(buffer.subarray(0, bytesRead))
    at += bytesRead
  }
}

async function digestOf(path: string, algorithm: string): Promise<string> {
  const hash = createHash(algorithm)
  await using file = await open(path)
  await readInto(file, (await file.stat()).size, (chunk) => void hash.update(chunk))
  return hash.digest('hex')
}

/** One file on its way: what of it is there, and what is known of the rest. */
class Part {
  readonly path: string
  readonly #fetching: Fetching
  readonly #options: FetchOptions
  #hash: Hash
  #file: GrowingFile | null = null
  #synced = 0
  #syncedMs = performance.now()
  #toldMs = 0
  #resumed = 0
  validator: string | null = null
  totalBytes: number | null = null

  constructor(fetching: Fetching, options: FetchOptions) {
    this.path = `${fetching.path}.part`
    this.#fetching = fetching
    this.#options = options
    this.#hash = this.#newHash()
  }

  #newHash(): Hash {
    const { checksum } = this.#fetching
    return createHash(checksum === undefined ? 'sha256' : checksumParts(checksum).algorithm)
  }

  get bytes(): number {
    return this.#file?.bytes ?? 0
  }

  /** Whether it came in more than one piece, which may then be of different versions. */
  isPatched = false

  /** Goes on with what an earlier run has left, as far as it was on the disk for certain. */
  async resume(): Promise<void> {
    const record = parseRecord(await readWhole(`${this.path}.json`), this.#fetching)
    const size = await sizeOf(this.path)
    const bytes = record === null || size === null ? 0 : Math.min(record.syncedBytes, size)
    if (bytes === 0) return this.restart()
    this.validator = record?.validator ?? null
    this.totalBytes = record?.totalBytes ?? null
    await using file = await open(this.path)
    await readInto(file, bytes, (chunk) => void this.#hash.update(chunk))
    this.#file = await growFile(this.path, bytes, 0o600)
    this.#synced = bytes
    this.#resumed = bytes
    this.isPatched = true
  }

  /** Begins with nothing. */
  async restart(): Promise<void> {
    await this.#file?.close()
    this.#hash = this.#newHash()
    this.validator = null
    this.totalBytes = null
    this.#synced = 0
    this.#resumed = 0
    this.isPatched = false
    this.#file = await growFile(this.path, 0, 0o600)
    await this.record()
  }

  /** Writes down what is there for certain, so that another run can go on with it. */
  async record(): Promise<void> {
    await this.#file?.sync()
    this.#synced = this.bytes
    this.#syncedMs = performance.now()
    const { source, checksum = '' } = this.#fetching
    const { validator, totalBytes } = this
    const record: PartRecord = { source, checksum, validator, totalBytes, syncedBytes: this.#synced }
    await replaceFile(`${this.path}.json`, `${JSON.stringify(record)}\n`, 0o600)
  }

  /** Throws `image.size-differs` or `file.no-space` when the file can be known to have no place here. */
  async expect(totalBytes: number | null): Promise<void> {
    const { sizeBytes, path } = this.#fetching
    if (totalBytes !== null && sizeBytes !== undefined && totalBytes !== sizeBytes) {
      await this.discard()
      throw new HostError('image.size-differs', `it has ${totalBytes} bytes, not ${sizeBytes}`)
    }
    this.totalBytes = totalBytes
    const total = totalBytes ?? sizeBytes
    const free = await (this.#options.freeBytes ?? freeOn)(dirname(path))
    const room = free - spareBytes
    if ((total ?? this.bytes) - this.bytes > room || room <= 0)
      throw new HostError(
        'file.no-space',
        `${dirname(path)} has ${free} bytes free, of which ${spareBytes} are left alone; ${path} wants ${total === undefined ? 'more' : total - this.bytes}`,
        { details: { path, freeBytes: free } },
      )
  }

  async append(chunk: Uint8Array): Promise<void> {
    const most = this.#fetching.sizeBytes ?? this.totalBytes
    if (most !== null && this.bytes + chunk.length > most) {
      await this.discard()
      throw new HostError('image.size-differs', `it goes on after its ${most} bytes`)
    }
    await this.#file?.append(chunk)
    this.#hash.update(chunk)
    const { syncBytes = usualSyncBytes } = this.#options
    if (this.bytes - this.#synced >= syncBytes || performance.now() - this.#syncedMs >= syncMs) {
      await this.record()
      if (this.totalBytes === null) await this.expect(null)
    }
    this.tell(false)
  }

  /** Says how far it is. */
  tell(always: boolean): void {
    const nowMs = performance.now()
    if (!always && nowMs - this.#toldMs < progressMs) return
    this.#toldMs = nowMs
    this.#options.onProgress?.({
      doneBytes: this.bytes,
      totalBytes: this.totalBytes,
      resumedBytes: this.#resumed,
    })
  }

  /** What is wrong with all that has come, or null. */
  async objection(): Promise<{ readonly code: ProblemCode; readonly message: string } | null> {
    const { checksum, format } = this.#fetching
    const found = this.#hash.copy().digest('hex')
    if (checksum !== undefined && found !== checksumParts(checksum).digest)
      return {
        code: 'image.checksum-wrong',
        message: `its ${this.bytes} bytes have the checksum ${checksumParts(checksum).algorithm}:${found}, not ${checksum}`,
      }
    if (format === undefined) return null
    await using file = await open(this.path)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
    return imageObjection(format, buffer.subarray(0, bytesRead))
  }

  /** Gives it its name. Throws `file.exists` when another has it. */
  async publish(): Promise<void> {
    const { source, checksum } = this.#fetching
    const algorithm = checksum === undefined ? 'sha256' : checksumParts(checksum).algorithm
    const origin: Origin = {
      source: toldSource(source),
      checksum: `${algorithm}:${this.#hash.copy().digest('hex')}`,
      fetchedMs: Date.now(),
    }
    // Takes away too what a run that was killed may have left beside it.
    await this.record()
    // A base that many disks stand on must not change; QEMU, which is not root, reads it.
    await this.#file?.seal(0o444)
    this.tell(true)
    await this.close()
    await replaceFile(originPath(this.#fetching.path), `${JSON.stringify(origin)}\n`, 0o644)
    await moveFile(this.path, this.#fetching.path)
    await removeFile(`${this.path}.json`)
  }

  /** Leaves nothing of it. */
  async discard(): Promise<void> {
    await this.close()
    await removeFile(`${this.path}.json`)
    await removeFile(this.path)
  }

  async close(): Promise<void> {
    const file = this.#file
    this.#file = null
    await file?.close()
  }
}

/** Certificates do not mend themselves within seconds. */
const isCertificateError = (code: string): boolean => /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL/.test(code)

/** What a failed request or a broken body means. */
function networkError(error: unknown, url: URL): Error {
  if (error instanceof HostError || error instanceof Interrupted) return error
  if (!(error instanceof Error)) return new Error(String(error))
  const code = 'code' in error ? String(error.code) : ''
  if (isCertificateError(code))
    return new HostError('image.fetch-failed', `${shown(url)}: its certificate is not accepted (${code})`, {
      cause: error,
    })
  // Everything else that Node's HTTP says has a code; what has none is a defect.
  return code === '' ? error : new Interrupted(`${code}: ${error.message}`)
}

let authorities: readonly string[] | null = null

/** Who may vouch for a server: whom Node trusts, and whom this host does. */
function trusted(): string[] {
  authorities ??= [...new Set([...getCACertificates('bundled'), ...getCACertificates('system')])]
  return [...authorities]
}

/** The head of an answer to a GET; the body follows as it is read. Errors of the network are `Interrupted`. */
function get(
  url: URL,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const options = {
    agent: false as const,
    signal,
    headers: { 'user-agent': 'garrison', 'accept-encoding': 'identity', ...headers },
  }
  const request =
    url.protocol === 'https:'
      ? requestHttps(url, { ...options, ca: trusted() }, resolve)
      : requestHttp(url, options, resolve)
  request.on('error', (error) => reject(networkError(error, url)))
  request.end()
  return promise
}

/** Where a redirect leads. Throws `image.redirect-refused`. */
function redirected(from: URL, location: string | undefined): URL {
  const to = location === undefined ? null : URL.parse(location, from)
  const refused = (why: string) =>
    new HostError('image.redirect-refused', `${shown(from)} leads to ${why}`, {
      details: { from: shown(from) },
    })
  if (to === null) throw refused('no URL at all')
  if (to.protocol !== 'http:' && to.protocol !== 'https:') throw refused(`a ${to.protocol} URL`)
  if (to.username !== '' || to.password !== '') throw refused('a URL with a user or a password')
  return to
}

/** Follows redirects to the answer that is none. */
async function follow(url: URL, headers: Readonly<Record<string, string>>, signal: AbortSignal) {
  let at = url
  for (let redirects = 0; redirects <= mostRedirects; redirects += 1) {
    const response = await get(at, headers, signal)
    const { statusCode = 0 } = response
    const { location, 'x-amz-bucket-region': region } = response.headers
    const isElsewhere =
      [301, 307, 400].includes(statusCode) && location === undefined && typeof region === 'string'
    if (!isElsewhere && ![301, 302, 303, 307, 308].includes(statusCode)) return { response, at }
    response.destroy()
    if (isElsewhere) throw new Elsewhere(region)
    at = redirected(at, location)
  }
  throw new HostError('image.redirect-refused', `${shown(url)} leads on more than ${mostRedirects} times`)
}

/** What tells one version of a file from another, for If-Range: a strong ETag, or else the date (RFC 9110, 13.1.5). */
const validatorOf = ({ etag, 'last-modified': modified }: IncomingHttpHeaders): string | null =>
  etag !== undefined && !etag.startsWith('W/') ? etag : (modified ?? null)

const lengthOf = ({ 'content-length': length }: IncomingHttpHeaders): number | null =>
  length === undefined || !/^\d{1,15}$/.test(length) ? null : Number(length)

/** The range of `bytes 0-9/100`; of one that cannot be satisfied a star stands for the range. Null when it is anything else. */
function contentRange({ 'content-range': range = '' }: IncomingHttpHeaders) {
  const [, from, to, total] = /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)$/i.exec(range) ?? []
  if (total === undefined) return null
  const number = (text: string | undefined) => (text === undefined || text === '*' ? null : Number(text))
  return { from: number(from), to: number(to), total: number(total) }
}

const retryAfterMs = ({ 'retry-after': after = '' }: IncomingHttpHeaders): number =>
  /^\d{1,5}$/.test(after) ? Math.min(Number(after) * 1000, mostPauseMs) : 0

/** Whether the rest of the part follows in this answer. When not, the part begins anew. */
async function continues(part: Part, response: IncomingMessage): Promise<boolean> {
  const { headers } = response
  const range = contentRange(headers)
  const length = lengthOf(headers)
  const validator = validatorOf(headers)
  const isSame = part.validator === null || validator === null || validator === part.validator
  const isNext =
    range?.from === part.bytes &&
    range.to !== null &&
    (length === null || length === range.to - part.bytes + 1)
  const isWhole = range?.total === null || range?.to === (range?.total ?? 0) - 1
  const isSameLength = part.totalBytes === null || range?.total === null || range?.total === part.totalBytes
  if (isSame && isNext && isWhole && isSameLength) {
    part.validator ??= validator
    part.isPatched = true
    await part.expect(range?.total ?? part.totalBytes)
    return true
  }
  await part.restart()
  return false
}

/** One try over the network: true when all of the file is there. */
async function tryUrl(url: URL, part: Part, stallMs: number, signal: AbortSignal): Promise<boolean> {
  const stalled = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const rest = () => clearTimeout(timer)
  const watch = () => {
    rest()
    timer = setTimeout(() => stalled.abort(), stallMs)
  }
  watch()
  const offset = part.bytes
  const headers: Record<string, string> =
    offset === 0
      ? {}
      : { range: `bytes=${offset}-`, ...(part.validator !== null && { 'if-range': part.validator }) }
  let at = url
  try {
    const answer = await follow(url, headers, AbortSignal.any([signal, stalled.signal]))
    const { response } = answer
    at = answer.at
    try {
      rest()
      if (!(await accepts(part, response, at, offset)))
        return part.totalBytes !== null && part.bytes === part.totalBytes
      watch()
      for await (const chunk of response) {
        rest()
        await part.append(chunk as Buffer)
        watch()
      }
    } finally {
      response.destroy()
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason
    if (stalled.signal.aborted) throw new Interrupted(`nothing came for ${stallMs / 1000} s`)
    throw networkError(error, at)
  } finally {
    rest()
  }
  if (part.totalBytes !== null && part.bytes < part.totalBytes)
    throw new Interrupted(`it ended after ${part.bytes} of ${part.totalBytes} bytes`)
  part.totalBytes ??= part.bytes
  return true
}

/** Whether the body of an answer goes on with the part. Throws when there is nothing to be had. */
async function accepts(part: Part, response: IncomingMessage, at: URL, offset: number): Promise<boolean> {
  const { statusCode = 0, statusMessage = '', headers } = response
  const encoding = headers['content-encoding'] ?? 'identity'
  const refused = (why: string) =>
    new HostError('image.not-offered', `${shown(at)} ${why}`, { details: { status: statusCode } })
  if (statusCode === 200 || statusCode === 206) {
    if (encoding !== 'identity')
      throw refused(`is sent encoded (${encoding}), though it was asked for as it is`)
    if (statusCode === 206 && offset > 0) return continues(part, response)
    if (statusCode === 206) throw refused('answers with a part, though all was asked for')
    // All of it comes, since the server knows no ranges or since the file has changed.
    if (offset > 0) await part.restart()
    part.validator = validatorOf(headers)
    await part.expect(lengthOf(headers))
    await part.record()
    return true
  }
  if (statusCode === 416 && offset > 0) {
    // All was there already, or the file has become shorter.
    const total = contentRange(headers)?.total ?? null
    if (total === offset) part.totalBytes = total
    else await part.restart()
    return false
  }
  const answer = `answers ${statusCode} ${statusMessage}`.trimEnd()
  if (statusCode >= 500 || [408, 425, 429].includes(statusCode))
    throw new Interrupted(answer, retryAfterMs(headers))
  throw refused(answer)
}

/** Fetches over the network until all is there; goes on where a try was cut off. */
async function fetchUrl(
  source: string,
  part: Part,
  { stallMs = usualStallMs, pauseMs = usualPauseMs }: FetchOptions,
  signal: AbortSignal,
): Promise<void> {
  let fruitless = 0
  let highest = part.bytes
  let region: string | undefined
  for (;;) {
    // A signature is good for one try.
    const url = source.startsWith('s3:') ? await signedUrl(source, region) : new URL(source)
    try {
      if (await tryUrl(url, part, stallMs, signal)) return
      throw new Interrupted('it gave no range that fits what was there')
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error
      await part.record()
      fruitless = part.bytes > highest ? 1 : fruitless + 1
      if (fruitless >= mostTries)
        throw new HostError(
          'image.fetch-failed',
          `${shown(url)}: ${error.message}; tried ${fruitless} times, ${part.bytes} bytes are kept`,
          { details: { bytes: part.bytes }, cause: error },
        )
      const isMoved = error instanceof Elsewhere && error.region !== region
      if (error instanceof Elsewhere) region = error.region
      const doubled = isMoved ? 0 : Math.min(pauseMs * 2 ** (fruitless - 1), mostPauseMs)
      await sleep(Math.max(doubled, error.afterMs), undefined, { signal })
    }
    highest = Math.max(highest, part.bytes)
  }
}

/** Copies from a path of this host. */
async function fetchPath(source: string, part: Part, signal: AbortSignal): Promise<void> {
  const opened = await open(source).catch((cause: unknown) => {
    const errno = errnoOf(cause)
    if (errno !== 'ENOENT') throw unreadable(source, cause)
    throw new HostError('image.not-offered', `there is no ${source}`, { details: { source } })
  })
  await using file = opened
  const facts = await file.stat()
  if (!facts.isFile())
    throw new HostError('image.not-offered', `${source} is no file`, { details: { source } })
  await part.restart()
  await part.expect(facts.size)
  await readInto(file, facts.size, async (chunk) => {
    signal.throwIfAborted()
    await part.append(chunk)
  })
}

/** Whether the file is there already. Throws `file.exists` when another is in its place. */
async function isThere({ path, checksum }: Fetching): Promise<boolean> {
  if ((await sizeOf(path)) === null) return false
  if (checksum === undefined) return true
  const { algorithm, digest } = checksumParts(checksum)
  const found = await digestOf(path, algorithm)
  if (found === digest) return true
  throw new HostError(
    'file.exists',
    `${path} is there and has the checksum ${algorithm}:${found}, not ${checksum}`,
    {
      details: { path },
    },
  )
}

/**
 * Fetches a file whole, unless it is there already. Errors: `image.checksum-wrong`, `image.size-differs` and what `imageObjection`
 * tells (nothing is kept), `image.fetch-failed`, `action.deadline` and `file.no-space` (what has come is kept and gone on with),
 * `image.not-offered`, `image.redirect-refused`, `image.no-credentials`, `file.exists`. One fetch per path at a time.
 */
export async function fetchFile(fetching: Fetching, options: FetchOptions = {}): Promise<void> {
  const { source, deadlineMs } = fetching
  if (await isThere(fetching)) return
  const told = toldSource(source)
  const part = new Part(fetching, options)
  const late = AbortSignal.timeout(deadlineMs)
  const signal = AbortSignal.any([late, ...(options.signal === undefined ? [] : [options.signal])])
  const bring = (): Promise<void> =>
    source.startsWith('/') ? fetchPath(source, part, signal) : fetchUrl(source, part, options, signal)
  try {
    await part.resume()
    await bring()
    let objection = await part.objection()
    if (objection !== null && part.isPatched) {
      await part.restart()
      await bring()
      objection = await part.objection()
    }
    if (objection !== null) {
      await part.discard()
      throw new HostError(objection.code, `${told}: ${objection.message}`, { details: { source: told } })
    }
    await part.publish()
  } catch (error) {
    const isEnded = signal.aborted && !(error instanceof HostError)
    if (part.bytes === 0) await part.discard()
    else if (isEnded) await part.record()
    if (!isEnded) throw error
    if (!late.aborted)
      throw new HostError('action.failed', `the fetch of ${told} was stopped; ${part.bytes} bytes are kept`, {
        details: { bytes: part.bytes },
        cause: error,
      })
    throw new HostError(
      'action.deadline',
      `${told} was not fetched within ${deadlineMs / 1000} s; ${part.bytes} bytes are kept`,
      { details: { bytes: part.bytes }, cause: error },
    )
  } finally {
    await part.close()
  }
}
