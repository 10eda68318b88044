// The part of the table of verbs that is about the network.

import type { Verb } from './verbs.ts'

/** Every verb about the network. */
export const networkVerbs = {
  'network show': () =>
    ({
      brief: "show the way of a VM's traffic to the wire, and where it stops",
      help: 'Follows what a VM sends from its NIC over the bridge, the rules and the routes of this host to the uplink, as they are now, with what each has counted, up to the first place where nothing gets past. Says what is dropped by which rule. Without VM: of every VM. Ends with 3 when something stops it.',
      examples: [
        ['garrison network show web-1', 'where the traffic of web-1 goes, and where it stops'],
        ['garrison network show --json', 'of every VM, for a script'],
      ],
      operands: { vm: { kind: 'vm', placeholder: 'VM', brief: 'the VM' } },
      flags: {},
      door: 'read',
      schema: 'garrison/network-show/1',
      json: {
        schema: 'garrison/network-show/1',
        atMs: 'when the host was looked at, epoch milliseconds',
        paths:
          "for each NIC: vm, mac, to (libvirt's attachment), mode and why (null when the network is not declared), addresses (given by DHCP), hops in order: at, text, counts (received and sent, packets and bytes, dropped), notes, stop (null, or text and remedy; then it is the last)",
      },
    }) as const,
  'network pending': () =>
    ({
      brief: 'show the change to the network that waits to be confirmed',
      help: 'Says what was changed, which files and commands undo it, and when. Also what became of the change before. Ends with 2 while one is pending, and with 1 when one could not be undone whole.',
      examples: [
        ['garrison network pending', 'what is pending, and until when'],
        ['garrison network pending --json', 'the same for a script'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      schema: 'garrison/network-pending/1',
      json: {
        schema: 'garrison/network-pending/1',
        pending:
          'null, or the change: summary, armedAtMs, undoneAtMs, files, reload (what is run once they are back)',
        undoing: 'null, or the change that is being undone or could not be undone whole',
        last: 'null, or what became of the last one: summary, outcome (confirmed, undone), by, atMs, problems',
      },
    }) as const,
  'network confirm': () =>
    ({
      brief: 'keep the change to the network that is pending',
      help: 'Type it from a new session, so that it is proof that the host can be reached. The undo is disarmed, and an apply that waits goes on. Refused when nothing is pending.',
      examples: [
        ['garrison network confirm', 'keep it'],
        ['ssh host garrison network confirm --json', 'from elsewhere, which proves that ssh works'],
      ],
      operands: {},
      flags: {},
      door: 'operate',
      schema: 'garrison/network-confirm/1',
      json: { schema: 'garrison/network-confirm/1', last: 'as in garrison/network-pending/1' },
    }) as const,
  'network undo': () =>
    ({
      brief: 'undo the change to the network that is pending, now',
      help: 'What the deadline would do, at once. Also goes on with an undoing that could not be finished.',
      examples: [
        ['garrison network undo', 'put the old configuration back'],
        ['garrison network undo --json', 'the same for a script'],
      ],
      operands: {},
      flags: {},
      door: 'operate',
      schema: 'garrison/network-undo/1',
      json: { schema: 'garrison/network-undo/1', last: 'as in garrison/network-pending/1' },
    }) as const,
  'network probe': () =>
    ({
      brief: 'measure what the network of an interface lets pass',
      help: 'Asks the gateway by ARP and pings, from the interface as it is, from a second MAC and, with --address, from a second address; asks for DHCP, tagged frames and name servers; finds the largest packet that passes. The addresses, routes and link of the interface stay as they are. The record is kept with its date, and mode: auto of VM networks goes by it. Ends with 4 when it is not known whether a second MAC passes. A port of a switch that shuts down at a second MAC needs --own-mac.',
      examples: [
        ['garrison network probe lan --address 192.0.2.200', 'the uplink lan; nobody has that address'],
        ['garrison network probe ens6 --vlan 20 --json', 'an interface by its name, and VLAN 20 on it'],
      ],
      operands: {
        interface: {
          kind: 'text',
          placeholder: 'UPLINK',
          brief: 'an uplink of the document, or the name of an interface',
        },
      },
      flags: {
        address: {
          kind: 'text',
          placeholder: 'ADDRESS',
          brief: 'a free address of the network, to be tried for seconds',
        },
        vlan: {
          kind: 'text',
          placeholder: 'ID',
          brief: 'a VLAN to try beside those of the document',
          many: true,
        },
        'own-mac': { kind: 'switch', brief: 'send nothing with another MAC' },
      },
      door: 'operate',
      schema: 'garrison/network-probe/1',
      json: {
        schema: 'garrison/network-probe/1',
        'device, mac, mtu, atMs': 'the interface as it was, and when',
        'gateway, arp, ping': 'the router, and whether it answers: answers, silent, unknown',
        'secondMac, secondAddress': 'passes, dropped, unknown',
        'dhcp, dhcpBy': 'answers, silent, unknown; by the lease that there is, or by an offer to another MAC',
        pathMtu: 'bytes that reach the gateway whole, at most mtu; null when not known',
        'vlans, dns': 'id or server, and answers',
        notes: 'why something is not known',
        meaning: 'what follows for VM networks',
      },
    }) as const,
  'network measure': () =>
    ({
      brief: 'measure in a namespace of its own',
      help: 'Started by network probe.',
      examples: [],
      operands: {
        task: { kind: 'text', placeholder: 'TASK', brief: 'what to measure, as JSON', required: true },
      },
      flags: { record: { kind: 'path', placeholder: 'FILE', brief: 'where the record goes' } },
      door: 'local',
      schema: 'garrison/network-measure/1',
      json: { schema: 'garrison/network-measure/1', path: 'the record' },
      hidden: true,
    }) as const,
  'network restore': () =>
    ({
      brief: 'undo a change that nobody confirmed',
      help: 'Started by systemd: when the deadline of a change has passed, and at boot before the network is begun.',
      examples: [],
      operands: {
        folder: { kind: 'path', placeholder: 'DIR', brief: 'where the change is kept' },
      },
      flags: {},
      door: 'local',
      schema: 'garrison/network-restore/1',
      json: { schema: 'garrison/network-restore/1', last: 'as in garrison/network-pending/1, or null' },
      hidden: true,
    }) as const,
} satisfies Record<string, () => Verb>
