// Finds libvirt's unix sockets and connects to one: the daemon for everything or that of one driver, in full or only to read.

import { connect, type Socket } from 'node:net'
import { LibvirtConnectionError } from './errors.ts'

/** Where a URI leads. */
export interface Address {
  /** What the driver is asked to open: the URI without what was only for finding the way. */
  readonly name: string
  /** The sockets to try, in this order. */
  readonly sockets: readonly string[]
}

/** Which socket it is to be. */
export interface AddressOptions {
  /** Only to read: the sockets that anybody may open. */
  readonly readOnly?: boolean | undefined
  /** This socket and no other. */
  readonly socketPath?: string | undefined
  /** Where the sockets of the system's daemons are; `/run/libvirt` when left out. */
  readonly systemFolder?: string | undefined
  /** Where those of the user's own daemons are, which `…/session` is about; below `XDG_RUNTIME_DIR` when left out. */
  readonly sessionFolder?: string | undefined
}

/** The drivers that have a daemon of their own where libvirt runs as many. */
const daemons: Readonly<Record<string, string>> = {
  bhyve: 'virtbhyved',
  ch: 'virtchd',
  interface: 'virtinterfaced',
  lxc: 'virtlxcd',
  network: 'virtnetworkd',
  nodedev: 'virtnodedevd',
  nwfilter: 'virtnwfilterd',
  qemu: 'virtqemud',
  secret: 'virtsecretd',
  storage: 'virtstoraged',
  vbox: 'virtvboxd',
  vz: 'virtvzd',
  xen: 'virtxend',
}

/** Where the user's own daemons have their sockets. */
function sessionFolderOf(environment: NodeJS.ProcessEnv): string {
  const runtime = environment.XDG_RUNTIME_DIR
  if (runtime) return `${runtime}/libvirt`
  return `${environment.XDG_CACHE_HOME ?? `${environment.HOME ?? ''}/.cache`}/libvirt`
}

/**
 * Resolves a URI such as `qemu:///system` or `test+unix:///default?socket=/tmp/libvirt-sock`. A driver's own daemon comes
 * before the one for everything, as in libvirt; `?mode=direct` and `?mode=legacy` leave one of them out. Throws `invalid` for
 * a transport that is not a unix socket.
 */
export function addressOf(uri: string, options: AddressOptions = {}): Address {
  const parsed = /^([a-z][a-z0-9.-]*)(?:\+([a-z0-9]+))?:\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?$/i.exec(uri)
  if (parsed === null)
    throw new LibvirtConnectionError('invalid', `${JSON.stringify(uri)} is no URI of a libvirt driver`)
  const [, driver = '', transport = 'unix', host = '', path = '', query = ''] = parsed
  if (transport !== 'unix' || host !== '')
    throw new LibvirtConnectionError('invalid', `${uri} is not on this host: only unix sockets are spoken`)
  const parameters = new URLSearchParams(query)
  const named = options.socketPath ?? parameters.get('socket')
  const mode = parameters.get('mode') ?? 'auto'
  parameters.delete('socket')
  parameters.delete('mode')
  const rest = parameters.size === 0 ? '' : `?${parameters}`
  const name = `${driver}://${path}${rest}`
  if (named !== null && named !== undefined) return { name, sockets: [named] }
  const isSession = path === '/session'
  const folder = isSession
    ? (options.sessionFolder ?? sessionFolderOf(process.env))
    : (options.systemFolder ?? '/run/libvirt')
  // A session's daemon has no socket that is only for reading: who may open it at all is its user.
  const suffix = options.readOnly && !isSession ? '-sock-ro' : '-sock'
  const daemon = daemons[driver]
  return {
    name,
    sockets: [
      ...(daemon !== undefined && mode !== 'legacy' ? [`${folder}/${daemon}${suffix}`] : []),
      ...(mode === 'direct' ? [] : [`${folder}/libvirt${suffix}`]),
    ],
  }
}

const reasons: Readonly<Record<string, 'no-socket' | 'denied'>> = {
  ENOENT: 'no-socket',
  ECONNREFUSED: 'no-socket',
  ENOTDIR: 'no-socket',
  EACCES: 'denied',
  EPERM: 'denied',
}

const connectOnce = (path: string, signal: AbortSignal): Promise<Socket> => {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const socket = connect({ path, allowHalfOpen: false })
  const abort = () => {
    socket.destroy()
    reject(signal.reason)
  }
  socket.once('error', (cause: NodeJS.ErrnoException) => {
    signal.removeEventListener('abort', abort)
    const reason = reasons[cause.code ?? ''] ?? 'lost'
    reject(new LibvirtConnectionError(reason, `cannot connect to ${path}: ${cause.code}`, { cause }))
  })
  socket.once('connect', () => {
    signal.removeEventListener('abort', abort)
    socket.removeAllListeners('error')
    resolve(socket)
  })
  if (signal.aborted) abort()
  else signal.addEventListener('abort', abort, { once: true })
  return promise
}

/**
 * Connects to the first of the sockets at which somebody listens. Throws what the last one said; `denied` at one is not
 * overcome by another. When `signal` fires, its reason is thrown.
 */
export async function dial({ sockets }: Address, signal: AbortSignal): Promise<Socket> {
  let last: unknown = new LibvirtConnectionError('no-socket', 'no socket is known for this URI')
  for (const path of sockets) {
    try {
      return await connectOnce(path, signal)
    } catch (error) {
      if (!(error instanceof LibvirtConnectionError) || error.reason !== 'no-socket') throw error
      last = error
    }
  }
  throw last
}
