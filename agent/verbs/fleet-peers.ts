// The verb `fleet peers`: the connections with the other hosts, and the certificate of this one.

import { ago, bytes, duration, moment, paint, paragraph, type Terminal } from '../api/terminal.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import { addressText } from '../peers/address.ts'
import type { Membership } from '../peers/fleet.ts'
import type { KnownHost } from '../peers/mesh.ts'
import type { DaemonContext } from './daemon-context.ts'

/** The answer of `fleet peers`. */
export interface FleetPeers {
  readonly membership: Membership
  readonly peers: readonly KnownHost[]
}

/** Throws `fleet.none`. */
export const run = async ({ fleet }: DaemonContext): Promise<FleetPeers> => ({
  membership: fleet.membership(),
  peers: fleet.hosts(),
})

const indent = 14

function peerText(terminal: Terminal, { host, link, seen, addresses, problem }: KnownHost): string {
  const label = `  ${host}`
  if (link === null) {
    const last = seen === null ? 'never seen' : `last seen ${ago(terminal.nowMs - seen.atMs)}`
    const why = problem === null ? '' : `: ${problem}`
    const where = addresses.length === 0 ? 'no address of it is known' : addresses.map(addressText).join(', ')
    return paragraph(label, `${paint(terminal, 'bad', 'not linked')}, ${last}${why} (${where})`, indent)
  }
  const { over, address, dialled, sinceMs, rttMs, role, sentBytes, receivedBytes, behind, issues } = link
  const parts = [
    `${dialled ? 'dialled' : 'came from'} ${address}${over === '-' ? '' : ` over ${over}`}`,
    `for ${duration(terminal.nowMs - sinceMs)}`,
    ...(rttMs === null ? [] : [`${rttMs} ms away`]),
    `role ${role}${issues ? ', issues certificates' : ''}`,
    `${bytes(sentBytes)} sent, ${bytes(receivedBytes)} received`,
    ...(behind ? [paint(terminal, 'warn', 'does not keep up')] : []),
  ]
  return paragraph(label, parts.join('; '), indent)
}

/** This host in the fleet, then each other. */
export function render({ membership, peers }: FleetPeers, terminal: Terminal): string {
  const { fleet, fingerprint, host, role, port, addresses, untilMs, issuerUntilMs, revoked } = membership
  const { renewProblem, discoverProblem } = membership
  const renew = renewProblem === null ? '' : `; ${paint(terminal, 'warn', `not renewed: ${renewProblem}`)}`
  return [
    `${paint(terminal, 'strong', host)} in fleet ${fleet}, role ${role}, port ${port}`,
    paragraph('  at', addresses.join(', '), indent),
    paragraph('  authority', fingerprint, indent),
    paragraph('  certificate', `until ${moment(untilMs)}${renew}`, indent),
    ...(issuerUntilMs === null ? [] : [paragraph('  issues', `until ${moment(issuerUntilMs)}`, indent)]),
    ...(discoverProblem === null
      ? []
      : [paragraph('  looking', `not told by EC2: ${discoverProblem}`, indent)]),
    ...(revoked.length === 0
      ? []
      : [paragraph('  revoked', revoked.map((one) => one.host).join(', '), indent)]),
    ...(peers.length === 0 ? ['No other host is known yet.'] : peers.map((one) => peerText(terminal, one))),
  ].join('\n')
}

/** Always 0: who is linked is an answer. */
export const exitOf = (): Exit => EXIT.done
