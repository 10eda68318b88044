// The TCP connections of the host with others as ss (iproute2) tells them, with how much of what was sent has been acknowledged from
// afar: SSH sessions, and those with hosts of the fleet.

import type { HostReader } from '../host.ts'
import { HostError } from '../problem.ts'

/** An established connection with another host. `local` and `peer` are ADDRESS:PORT; `quietMs`: since anything came from there. */
export interface Session {
  /** Whether it is of sshd. The programs of other users are not told to who may not look into them, as the root side. */
  readonly ssh: boolean
  readonly local: string
  readonly peer: string
  readonly ackedBytes: number
  readonly quietMs: number
}

/** Asks for every TCP connection with its processes and counters. */
const ssConnections = (program: string): [string, ...string[]] => [
  program,
  '--no-header',
  '--tcp',
  '--numeric',
  '--info',
  '--oneline',
  '--processes',
]

/** Where distributions have it. */
const ssPrograms = ['/usr/bin/ss', '/usr/sbin/ss'] as const

const number = (line: string, name: string): number =>
  Number(new RegExp(` ${name}:(\\d+)`).exec(line)?.[1] ?? 0)

const isLoopback = (address: string): boolean => /^(127\.|\[::1\]|\[::ffff:127\.)/.test(address)

/** Every connection but those within the host. */
export const parseSessions = (stdout: string): readonly Session[] =>
  stdout.split('\n').flatMap((line) => {
    const [, local, peer, rest = ''] = /^ESTAB +\d+ +\d+ +(\S+) +(\S+)(.*)/.exec(line) ?? []
    if (local === undefined || peer === undefined || isLoopback(peer)) return []
    return {
      ssh: /^ +users:\(\("sshd/.test(rest),
      local,
      peer,
      ackedBytes: number(line, 'bytes_acked'),
      quietMs: Math.min(number(line, 'lastack'), number(line, 'lastrcv')),
    }
  })

/** The connections of the host; none where there is no ss to ask. */
export async function sessionsOf(reader: Pick<HostReader, 'query'>): Promise<readonly Session[]> {
  for (const program of ssPrograms)
    try {
      return parseSessions((await reader.query(ssConnections(program))).stdout)
    } catch (error) {
      if (!(error instanceof HostError && error.code === 'host.tool-missing')) throw error
    }
  return []
}

const livelyMs = 30_000

/** Those that somebody uses: heard of in the last half minute. */
export const lively = (sessions: readonly Session[]): readonly Session[] =>
  sessions.filter(({ quietMs }) => quietMs < livelyMs)

/** SSH sessions alone. */
export const ofSsh = (sessions: readonly Session[]): readonly Session[] => sessions.filter(({ ssh }) => ssh)

/** Connections with hosts of the fleet alone: those of which one end is a port of `ports`. */
export const ofPeers = (sessions: readonly Session[], ports: readonly number[]): readonly Session[] =>
  sessions.filter(
    ({ ssh, local, peer }) =>
      !ssh && ports.some((port) => [local, peer].some((end) => end.endsWith(`:${port}`))),
  )

const hostOf = (peer: string): string => peer.slice(0, peer.lastIndexOf(':'))

/**
 * Whether one of the sessions `used` before a change has had data acknowledged since `mark`, or somebody at the address of one
 * has come back with a new one.
 */
export const carriedAgain = (
  used: readonly Session[],
  mark: readonly Session[],
  now: readonly Session[],
): boolean =>
  now.some(({ ssh, local, peer, ackedBytes }) => {
    const same = (one: Session): boolean => one.local === local && one.peer === peer
    if (!used.some((one) => one.ssh === ssh && hostOf(one.peer) === hostOf(peer))) return false
    return ackedBytes > (mark.find(same)?.ackedBytes ?? 0)
  })
