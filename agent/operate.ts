// The root side, a composition root: puts the parts of this host together and serves them on the sockets of systemd.

import { createHash } from 'node:crypto'
import { chmod } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { pino } from 'pino'
import { parseDocument } from '../provisioning/document.ts'
import { resources } from '../provisioning/index.ts'
import { HostError } from '../provisioning/problem.ts'
import { catalogueOf, expandTemplates } from '../provisioning/vms/template.ts'
import { contextsOf, type Parts, type ReadDocument } from './api/context.ts'
import { Jobs } from './api/jobs.ts'
import { passedSockets } from './api/passed-sockets.ts'
import { type Doorway, serve } from './api/server.ts'
import type { Args } from './api/verbs.ts'
import { version } from './api/version.ts'
import { readDesiredFiles, readOne, readTemplateFiles, withDropIn } from './host/desired-files.ts'
import { Ec2 } from './host/ec2.ts'
import { Imds } from './host/imds.ts'
import { answerMemory, Libvirt } from './host/libvirt.ts'
import { LinuxHost } from './host/linux-host.ts'
import { lockHolder, takeHold, takeLock } from './host/lock.ts'
import { LinuxPerformer } from './host/perform.ts'
import { Journal } from './journal/journal.ts'
import type { Connection } from './node-libvirt/index.ts'
import { loadServed } from './verbs/index.ts'

const usualIdleMs = 60_000

/** Puts together everything that verbs need on this host. `root` is `/` but in tests: where etc, run and var are. */
export function partsOf(root = '/'): Parts<Connection> {
  const documentFolder = join(root, 'etc/garrison')
  const lockPath = join(root, 'run/garrison/apply.lock')
  const journal = new Journal(join(root, 'var/lib/garrison/journal'))
  const claims = new Set<string>()
  let parsed: ReadDocument | null = null
  const libvirt = new Libvirt(
    async () => {
      const { connectOpen } = await import('./node-libvirt/index.ts')
      return connectOpen('qemu:///system', {
        systemFolder: join(root, 'run/libvirt'),
        connectDeadlineMs: 5000,
        // A restart of libvirtd takes half a second, and somebody waits.
        reconnect: { leastMs: 100, mostMs: 1000 },
      })
    },
    Date.now,
    answerMemory(join(root, 'run/garrison/libvirt-answered')),
  )
  const imds = new Imds()
  const ec2 = new Ec2({ imds, memoryPath: join(root, 'var/lib/garrison/ec2.json'), clock: Date.now })
  const reader = new LinuxHost({
    claims,
    imds,
    ec2,
    unfinishedSteps: () => journal.unfinishedSteps(),
    lockHolder: () => lockHolder(lockPath),
    libvirt: () => libvirt.connection('monitor'),
  })
  const readTemplates = async () => {
    const folders = [join(root, 'usr/share/garrison/templates'), join(documentFolder, 'templates')]
    const [shipped, own] = await Promise.all(folders.map(readTemplateFiles))
    return { shipped: shipped ?? [], own: own ?? [] }
  }
  const readTrimmed = async (path: string) => (await reader.readText(path))?.trim() ?? ''
  return {
    resources,
    reader,
    performer: new LinuxPerformer({ reader, claims, ec2, libvirt: () => libvirt.connection('control') }),
    journal,
    documentFolder,
    ownFolder: join(root, 'var/lib/garrison'),
    async templates(folder) {
      if (folder === undefined) {
        const { shipped, own } = await readTemplates()
        return catalogueOf(shipped, own)
      }
      const files = await readTemplateFiles(resolve(folder))
      if (files === null)
        throw new HostError('request.invalid', `there is no folder ${folder}`, {
          details: { verb: 'template list' },
        })
      return catalogueOf([], files)
    },
    async document(file, dropIns = []) {
      const [found, { shipped, own }] = await Promise.all([
        file === undefined ? readDesiredFiles(documentFolder) : [await readOne(file, 'desired.missing')],
        readTemplates(),
      ])
      const files = dropIns.reduce(withDropIn, found)
      const hash = createHash('sha256')
      for (const { path, text } of [...files, ...shipped, ...own])
        hash.update(`${path}\0${text.length}\0`).update(text)
      const digest = hash.digest('hex')
      // Reading it anew at each look is cheap, parsing it is not.
      if (parsed?.digest !== digest)
        parsed = { digest, desired: parseDocument(files, expandTemplates(catalogueOf(shipped, own))) }
      return parsed
    },
    lock: (who) => takeLock(lockPath, who, Date.now()),
    hold: (what, who) => takeHold(join(root, 'run/garrison/held'), what, who, Date.now()),
    jobs: new Jobs({
      folder: join(root, 'var/lib/garrison/jobs'),
      clock: Date.now,
      lock: (path, who) => takeLock(path, who, Date.now()),
      holder: lockHolder,
    }),
    async instance() {
      // Nitro's firmware gives the instance-id as the board's asset tag; the hypervisor of others may give anything.
      const assetTag = await readTrimmed('/sys/class/dmi/id/board_asset_tag')
      if (assetTag.startsWith('i-')) return assetTag
      // That metadata are silent for a moment must not make it another host: that is an error, and no machine-id.
      return (await imds.instance())?.instanceId ?? readTrimmed('/etc/machine-id')
    },
    libvirt: (use) => libvirt.connection(use),
    ownLibvirt: () => libvirt.own('monitor'),
    libvirtFolders: {
      run: join(root, 'run/libvirt'),
      kept: join(root, 'var/lib/libvirt'),
      log: join(root, 'var/log/libvirt'),
    },
    hostname: hostname(),
    version,
    clock: Date.now,
  }
}

/** The sockets that systemd passed, each a door by its name. */
const passedDoorways = (env: NodeJS.ProcessEnv): readonly Doorway[] =>
  passedSockets(env).map(({ name, fd }) => {
    if (name === 'shell') return { door: 'admin', only: name, fd }
    if (name !== 'read' && name !== 'operate' && name !== 'admin')
      throw new HostError('request.invalid', `systemd passed a socket named ${name}: no door`, {
        details: { verb: 'operate' },
      })
    return { door: name, fd }
  })

/** Every door as a socket in one folder. */
const doorwaysIn = (folder: string): readonly Doorway[] => [
  ...(['read', 'operate', 'admin'] as const).map((door) => ({ door, path: join(folder, `${door}.sock`) })),
  { door: 'admin', only: 'shell', path: join(folder, 'shell.sock') },
]

/** Serves until idle or told to stop. Throws when there is no socket to serve. */
export async function operate({ sockets, root, idle }: Args<'operate'>): Promise<void> {
  const log = pino({ base: null }, pino.destination({ dest: 1, sync: true }))
  const doorways = [...passedDoorways(process.env), ...(sockets === undefined ? [] : doorwaysIn(sockets))]
  if (doorways.length === 0)
    throw new HostError('request.invalid', 'systemd passed no socket: start garrison-operate.socket', {
      details: { verb: 'operate' },
    })
  const served = await serve({
    doorways,
    contextFor: contextsOf(partsOf(root)),
    load: loadServed,
    log,
    idleMs: idle === undefined ? usualIdleMs : Number(idle) * 1000,
  })
  // Made sockets are a test's or an administrator's own: nobody else's to use.
  for (const doorway of doorways) if ('path' in doorway) await chmod(doorway.path, 0o600)
  process.on('SIGTERM', served.stop)
  process.on('SIGINT', served.stop)
  log.info({ version, doors: doorways.map(({ door }) => door) }, 'serving')
  await served.left
  log.info('left')
}
