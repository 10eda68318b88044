// Carries TCP connections through a socket file, which namespaces share: to a server of this process from a place of the outpost.
//
//   node test/lab/relay.ts ADDRESS PORT FILE     listens there, and leads each connection to the socket file

import { connect, createServer, type NetConnectOpts, type Server } from 'node:net'
import { fileURLToPath } from 'node:url'

/** Leads each connection that comes to `listen` to `to`. Resolves when it listens. */
export async function relay(
  listen: { readonly path: string } | { readonly host: string; readonly port: number },
  to: NetConnectOpts,
): Promise<Server> {
  const server = createServer((near) => {
    const far = connect(to)
    near.pipe(far).pipe(near)
    // One that breaks off breaks the other off.
    near.on('error', () => far.destroy()).on('close', () => far.destroy())
    far.on('error', () => near.destroy()).on('close', () => near.destroy())
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(listen, resolve))
  return server
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [host = '', port = '', path = ''] = process.argv.slice(2)
  await relay({ host, port: Number(port) }, { path })
}
