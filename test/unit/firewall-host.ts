// A host as the firewall sees it: answers of nft, ip, ss and systemctl, as texts that a test sets.
import type { HostReader } from '../../provisioning/host.ts'
import { readerOf } from './simulated-host.ts'

/** What the tools say. `table` is the JSON of nft, null where there is none; `file` what is loaded at boot. */
export interface FirewallHost {
  readonly table?: string | null
  readonly file?: string | null
  readonly unitFile?: string
  readonly firewalld?: boolean
  readonly sessions?: string
}

const links = JSON.stringify(
  [
    ['lo', '127.0.0.1', 8],
    ['eni', '203.0.113.10', 24],
    ['lni', '192.0.2.10', 24],
    ['lni.100', '198.51.100.10', 24],
  ].map(([ifname, local, prefixlen], at) => ({
    ifindex: at + 1,
    ifname,
    flags: ['UP', 'LOWER_UP'],
    mtu: 1500,
    operstate: 'UP',
    link_type: 'ether',
    address: `02:00:00:00:00:0${at}`,
    addr_info: [{ family: 'inet', local, prefixlen, scope: 'global', valid_life_time: 4294967295 }],
  })),
)

const routes = JSON.stringify([
  { type: 'unicast', dst: 'default', gateway: '203.0.113.1', dev: 'eni', protocol: '16', flags: [] },
])

/** One connection as ss prints it. */
export const sshLine = (local: string, peer: string): string =>
  `ESTAB 0 0 ${local} ${peer} users:(("sshd",pid=9,fd=4)) cubic bytes_sent:9 bytes_acked:9 lastsnd:5 lastrcv:5 lastack:5`

/** The reader of such a host. */
export function firewallReader(host: FirewallHost): HostReader {
  const { table = null, file = null, unitFile = 'enabled', firewalld = false, sessions = '' } = host
  const answer = (stdout: string, exit = 0, stderr = '') => ({ exit, stdout, stderr })
  const asked = (argv: readonly string[]) => {
    if (argv[0]?.endsWith('/nft'))
      return table === null ? answer('', 1, 'Error: No such file or directory') : answer(table)
    if (argv.includes('address')) return answer(links)
    if (argv.includes('route')) return answer(routes)
    if (argv[0]?.endsWith('/ss')) return answer(sessions)
    return answer(
      `Id=garrison-firewall.service\nActiveState=inactive\nUnitFileState=${unitFile}\n\nId=firewalld.service\nActiveState=${firewalld ? 'active' : 'inactive'}\nUnitFileState=\n`,
    )
  }
  return {
    ...readerOf({ files: new Map(), journal: [] }),
    query: async (argv) => asked(argv),
    readText: async () => file,
    facts: async () =>
      file === null
        ? null
        : { kind: 'file', sizeBytes: file.length, mode: 0o644, uid: 0, gid: 0, modifiedMs: 0 },
  }
}

/** What nft prints of a table that was loaded from a file. */
export function printedBy(transaction: string): string {
  const { nftables } = JSON.parse(transaction) as { nftables: { add?: Record<string, object> }[] }
  const entries = nftables.flatMap(({ add }) => (add === undefined ? [] : [add]))
  const numbered = entries.map((entry, at) =>
    Object.fromEntries(Object.entries(entry).map(([kind, fields]) => [kind, { ...fields, handle: at }])),
  )
  return JSON.stringify({ nftables: [{ metainfo: { json_schema_version: 1 } }, ...numbered.slice(1)] })
}
