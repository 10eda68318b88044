// The verb `fleet init`: begins a fleet.

import { join, resolve } from 'node:path'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { usualLifetimes } from '../peers/authority.ts'
import { FleetFolder } from '../peers/folder.ts'
import { makeFleet, makeFleetAuthority, wantHostName } from '../peers/issuing.ts'
import { enteredFolder, folderPath, type Here, spanMs, usualName } from './fleet-here.ts'

/** The answer of `fleet init`. */
export interface BegunFleet {
  readonly fleet: string
  readonly fingerprint: string
  readonly host: string
  readonly authorityKey: string
}

const yearMs = 365 * 86_400_000

/** Makes the keys. Throws `fleet.exists`, `fleet.name-refused`, `fleet.denied`. */
export async function run(
  { name, offline, lifetime, folder }: Args<'fleet init'>,
  here: Here,
): Promise<BegunFleet> {
  const host = name ?? usualName()
  const hostMs = lifetime === undefined ? usualLifetimes.hostMs : spanMs(lifetime, 'fleet init', 2 * yearMs)
  wantHostName(host)
  const lifetimes = { ...usualLifetimes, hostMs }
  const nowMs = Date.now()
  const path = await folderPath(here, folder)
  // Before this process goes on as another user: a stick need not be theirs.
  const begun =
    offline === undefined
      ? null
      : await makeFleetAuthority(new FleetFolder(path), resolve(offline), lifetimes, nowMs)
  const entered = await enteredFolder(here, path)
  const authority = begun ?? (await makeFleetAuthority(entered, path, lifetimes, nowMs))
  const made = await makeFleet(entered, authority, host, lifetimes, nowMs)
  return {
    ...made,
    host,
    authorityKey: join(offline === undefined ? path : resolve(offline), 'authority.key'),
  }
}

/** What was made, and what comes next. */
export const render = ({ fleet, fingerprint, host, authorityKey }: BegunFleet): string =>
  [
    `Fleet ${fleet} begins with this host, ${host}.`,
    paragraph('  authority', fingerprint, 14),
    paragraph('  its key', authorityKey, 14),
    paragraph(
      '',
      'Keep that key where you keep what must not be lost: whoever has it can let any host in, and without it nobody can make an issuer.',
      2,
    ),
    'Next  garrison fleet invite',
  ].join('\n')

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
