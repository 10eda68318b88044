// What a fleet of three hosts that have the package installed does, in boxes or in guests, asked by their own command lines.

import type { Test } from 'tap'
import type { Report } from '../../agent/report/report-schema.ts'
import type { FleetPeers } from '../../agent/verbs/fleet-peers.ts'
import type { ToldReport } from '../../agent/verbs/fleet-report.ts'
import type { FleetStatus } from '../../agent/verbs/fleet-status.ts'
import { until as untilSo } from './fleet-world.ts'

/** Where a host is installed. */
interface Ground {
  /** Runs a program there, as root. */
  run(
    argv: readonly string[],
    options?: { readonly allowFailure?: boolean; readonly stdin?: string },
  ): Promise<{ readonly exit: number | string; readonly stdout: string }>
}

/** One host, by the name that it has in the fleet. */
export class InstalledHost<On extends Ground = Ground> {
  readonly name: string
  readonly on: On

  constructor(name: string, on: On) {
    this.name = name
    this.on = on
  }

  /** Runs a verb there; the answer is its last line. */
  async asked<T>(...words: readonly string[]): Promise<T> {
    const { stdout } = await this.on.run(['/usr/bin/garrison', ...words, '--json'], { allowFailure: true })
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '')
  }

  statuses = async () => (await this.asked<FleetStatus>('fleet', 'status')).hosts ?? []
  statusOf = async (name: string) => (await this.statuses()).find(({ host }) => host === name)
  sees = async (name: string) => (await this.statusOf(name))?.linked === true
  reportOf = (name: string) =>
    this.asked<Omit<ToldReport, 'report'> & { report: Report }>('fleet', 'report', name)
  membership = async () => (await this.asked<FleetPeers>('fleet', 'peers')).membership
  log = async () =>
    (await this.on.run(['/usr/bin/journalctl', '--no-pager', '--output=cat', '--unit=garrison.service']))
      .stdout
}

/** A notice of AWS that an instance ends, as the metadata tell it. */
export const retirement = JSON.stringify([
  {
    ...{ Code: 'instance-retirement', EventId: 'instance-event-1', State: 'active' },
    ...{ NotBefore: '21 Jan 2036 09:00:43 GMT', NotAfter: '', Description: 'the end' },
  },
])

/** The steps of the life of a fleet, in their order. The first host begins it, the second operates, the third looks. */
export function fleetSteps<Host extends InstalledHost>(
  hosts: readonly [Host, Host, Host],
  patienceMs: number,
) {
  const [first, second, third] = hosts
  const until = (what: string, isSo: () => Promise<boolean>, deadlineMs = patienceMs) =>
    untilSo(what, isSo, deadlineMs, patienceMs / 240)
  const allLinked = async () => {
    const seen = await Promise.all(hosts.map((host) => host.statuses()))
    return seen.every((all) => all.length === hosts.length && all.every(({ linked }) => linked))
  }
  const untilUnseen = (deadlineMs = patienceMs) =>
    until(
      `nobody sees ${third.name}`,
      async () => !(await first.sees(third.name)) && !(await second.sees(third.name)),
      deadlineMs,
    )
  return {
    until,
    allLinked,

    /** Begun on one, and the others let in by a token. */
    async enrol(t: Test, ...how: readonly string[]) {
      t.match(await second.asked('fleet', 'status'), { code: 'fleet.none' })
      await first.asked('fleet', 'init', '--name', first.name, ...how)
      for (const [{ name, on }, role] of [
        [second, 'operate'],
        [third, 'read'],
      ] as const) {
        const { token } = await first.asked<{ token: string }>(
          ...['fleet', 'invite', '--name', name, '--role', role],
        )
        const join = ['/usr/bin/garrison', 'fleet', 'join', '-', '--name', name, '--json']
        let joined: unknown
        await until('the port of the first is open', async () => {
          const { stdout } = await on.run(join, { stdin: `${token}\n`, allowFailure: true })
          joined = JSON.parse(stdout)
          return (joined as { code?: string }).code !== 'fleet.unreachable'
        })
        t.match(joined, { host: name, role })
      }
      await until('all are linked, without a start of anything', allLinked)
      t.equal((await second.statusOf(third.name))?.over, 'lni', 'by the first network of the document')
    },

    /** The same verbs from each. */
    async report(t: Test) {
      await until('each has been told of each', async () => {
        const seen = await Promise.all(hosts.map((host) => host.statuses()))
        return seen.flat().every(({ health }) => health !== undefined)
      })
      const ask = async (host: Host) => {
        const status = ['/usr/bin/garrison', 'fleet', 'status']
        const { stdout } = await host.on.run(status, { allowFailure: true })
        t.match(stdout, /^3 hosts, all seen$/m, host.name)
        for (const { name } of hosts) {
          if (name === host.name) continue
          t.match(await host.reportOf(name), { linked: true, report: { schema: 'garrison/report/1' } })
          t.match(await host.asked('--host', name, 'status'), { schema: 'garrison/status/1' })
        }
      }
      await Promise.all(hosts.map(ask))
    },

    /** What is acted on elsewhere is as the certificate allows. */
    async roles(t: Test) {
      t.match(await third.asked('--host', first.name, 'apply'), { code: 'fleet.role-refused' })
      t.match(await second.asked('--host', first.name, 'apply'), { outcome: 'settled' }, 'the role operate')
    },

    /** Cut on one network and on both: carried, not seen, healed. */
    async cut(t: Test, cableOfThird: (wire: 'lni' | 'eni', plugged: boolean) => Promise<unknown>) {
      await cableOfThird('lni', false)
      await until('seen over the other', async () => (await first.statusOf(third.name))?.over === 'eni')
      await cableOfThird('eni', false)
      await untilUnseen()
      const status = ['/usr/bin/garrison', 'fleet', 'status']
      const text = await second.on.run(status, { allowFailure: true })
      t.equal(text.exit, 4)
      const line = `^${third.name} +\\d+ (s|min) +not seen +\\? +\\? +last by (${first.name}|${second.name}) over eni$`
      t.match(text.stdout, new RegExp(line, 'm'))
      t.match(await first.asked('--host', third.name, 'report'), { code: 'fleet.unreachable' })
      for (const wire of ['lni', 'eni'] as const) await cableOfThird(wire, true)
      await until('it is back', allLinked)
    },

    /** What comes back after `gone` is a new process that goes on from what it knew. */
    async returns(t: Test, { name }: Host, gone: () => Promise<void>) {
      const told = async () => (await first.reportOf(name)).report
      const before = await told()
      await gone()
      await until('it is back', allLinked)
      await until('it reports', async () => (await told()).run !== before.run)
      t.ok((await told()).generation > before.generation, 'newer than what it told before')
    },

    /** New keys, while everyone stays linked. */
    async rotate(t: Test) {
      const ends = await Promise.all(hosts.map(async (host) => (await host.membership()).untilMs))
      const since = await Promise.all(hosts.map(async (host) => (await host.log()).length))
      const logged = async (at: number) => (await hosts[at]?.log())?.slice(since[at]) ?? ''
      for (const [at, host] of hosts.entries())
        await until(
          `${host.name} has a new certificate, and its port uses it`,
          async () =>
            (await host.membership()).untilMs > (ends[at] ?? Number.NaN) &&
            /new certificate/.test(await logged(at)),
          Math.max(patienceMs, 240_000),
        )
      for (const at of hosts.keys()) t.notMatch(await logged(at), /peer lost/)
      t.ok(await allLinked())
    },

    /** Out everywhere at once, told why, and refused by both. */
    async revoke(t: Test) {
      await first.asked('fleet', 'revoke', third.name)
      // Links are ended at once, where one that is cut is only given up.
      await untilUnseen(patienceMs / 3)
      t.match(await second.membership(), { revoked: [{ host: third.name }] }, 'the other has heard')
      for (const { name } of [first, second]) {
        const isTold = async () => /revoked/.test((await third.statusOf(name))?.problem ?? '')
        await until(`it is told why by ${name}`, isTold)
        t.match(await third.asked('--host', name, 'report'), { code: 'peer.refused', message: /revoked/ })
      }
      t.ok(await first.sees(second.name))
    },
  }
}
