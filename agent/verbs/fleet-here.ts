// What the verbs share that work on the keys of this host in its fleet, without the daemon.

import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import type { Parts } from '../api/context.ts'
import type { VerbName } from '../api/verbs.ts'
import { FleetFolder } from '../peers/folder.ts'

/** What a verb that runs in the client is given. */
export interface Here {
  parts(root?: string): Promise<Parts>
}

/** Where the keys of this host are, or where they are said to be. */
export const folderPath = async (here: Here, named: string | undefined): Promise<string> =>
  named === undefined ? join((await here.parts()).ownFolder, 'fleet') : resolve(named)

/** The fleet folder of this host, or that which was named; as root this process goes on as its owner. Throws `fleet.denied`. */
export async function enteredFolder(here: Here, named: string | undefined): Promise<FleetFolder> {
  const folder = new FleetFolder(await folderPath(here, named))
  await folder.enter()
  return folder
}

/** What this host is called when nobody says otherwise: the first part of its host name. */
export const usualName = (): string => hostname().toLowerCase().split('.')[0] ?? ''

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** The span that `30s`, `15m`, `1h` or `90d` means, in milliseconds. Throws `request.invalid`. */
export function spanMs(text: string, verb: VerbName, mostMs: number): number {
  const [, number = '', unit = ''] = /^([1-9]\d{0,6})([smhd])$/.exec(text) ?? []
  const ms = Number(number) * (unitMs[unit] ?? Number.NaN)
  if (ms <= mostMs) return ms
  const most = `${Math.round(mostMs / 86_400_000)}d`
  throw new HostError('request.invalid', `${text} is no time such as 15m, 1h or 90d, of at most ${most}`, {
    details: { verb },
  })
}
