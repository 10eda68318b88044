// The part of the table of verbs that is about the fleet: who belongs to it, and how the others are.

import type { Verb } from './verbs.ts'
import { escapeKey } from './vm-verbs.ts'

const folder = {
  kind: 'path',
  placeholder: 'DIR',
  brief: 'where the keys are kept (/var/lib/garrison/fleet)',
} as const

const name = {
  kind: 'text',
  placeholder: 'NAME',
  brief: 'what this host is called in the fleet (its host name)',
} as const

/** Every verb about the fleet. */
export const fleetVerbs = {
  'fleet init': () =>
    ({
      brief: 'begin a fleet, with this host as its first',
      help: 'Makes the authority that every host of the fleet is known by, and lets this host issue certificates in its name. The key of the authority is needed again only when the issuer is renewed, every two years: with --offline it is left in DIR, to be taken to where no network reaches it.',
      examples: [
        ['garrison fleet init', 'the keys stay on this host'],
        ['garrison fleet init --offline /media/key', 'the key of the authority is left on a stick'],
      ],
      operands: {},
      flags: {
        name,
        offline: {
          kind: 'path',
          placeholder: 'DIR',
          brief: 'leave the key of the authority in this folder',
        },
        lifetime: {
          kind: 'text',
          placeholder: 'TIME',
          brief: 'how long certificates of hosts are good for: 90d (the default); renewed at half of it',
        },
        folder,
      },
      door: 'local',
      schema: 'garrison/fleet-init/1',
      json: {
        schema: 'garrison/fleet-init/1',
        fleet: 'its id',
        fingerprint: 'SHA-256 of the certificate of its authority',
        host: 'what this host is called in it',
        authorityKey: 'the file with the key of the authority',
      },
    }) as const,
  'fleet invite': () =>
    ({
      brief: 'make a token that lets one host into the fleet',
      help: 'Run where garrison fleet init was run. The token names the fleet by the fingerprint of its authority, so that who joins knows whom it joins, and opens it once. It is a secret until it is used: give it to one person, by a way that nobody else reads. The role is what the new host may ask of the others: read, operate (as the operate door) or admin.',
      examples: [
        ['garrison fleet invite --name h07', 'for the host h07 alone, good for an hour'],
        ['garrison fleet invite --role operate --for 15m', 'one that may operate the others'],
      ],
      operands: {},
      flags: {
        role: {
          kind: 'choice',
          placeholder: 'ROLE',
          brief: 'read (the default), operate or admin',
          choices: ['read', 'operate', 'admin'],
        },
        name: { ...name, brief: 'only the host that joins by this name' },
        for: {
          kind: 'text',
          placeholder: 'TIME',
          brief: 'how long it is good for: 1h (the default), at most 7d',
        },
        at: {
          kind: 'text',
          placeholder: 'ADDRESS',
          brief: 'where the new host finds this one: all its addresses when left out',
          many: true,
        },
        folder,
      },
      door: 'local',
      schema: 'garrison/fleet-invite/1',
      json: {
        schema: 'garrison/fleet-invite/1',
        token: 'the token: a secret',
        role: 'what the host that joins may ask of others',
        host: 'the name that must join with it, or null',
        untilMs: 'when it is past its time, epoch milliseconds',
        addresses: 'where the host that joins will ask: network, address and port',
      },
    }) as const,
  'fleet join': () =>
    ({
      brief: 'let this host join a fleet with a token',
      help: 'Makes a key that never leaves this host, proves that who answers is the fleet that the token names, and has the key signed there. From then on the daemon talks with the other hosts, and renews the certificate by itself. Give - for the token to have it read from standard input, where no list of processes shows it.',
      examples: [
        ['garrison fleet join garrison1.W1tdXQ', 'with the token that somebody was given'],
        ['garrison fleet join - --name h07', 'the token from standard input; by another name'],
      ],
      operands: {
        token: {
          kind: 'text',
          placeholder: 'TOKEN',
          brief: 'as garrison fleet invite printed it, or - for standard input',
          required: true,
        },
      },
      flags: { name, folder },
      door: 'local',
      schema: 'garrison/fleet-join/1',
      json: {
        schema: 'garrison/fleet-join/1',
        fleet: 'the id of the fleet',
        host: 'what this host is called in it',
        role: 'what it may ask of others',
        untilMs: 'until when its certificate is good, epoch milliseconds; it is renewed before',
      },
    }) as const,
  'fleet revoke': () =>
    ({
      brief: 'put a host out of the fleet',
      help: 'Run where the host was let in. Its certificates are trusted no more, wherever this is heard: the revocation is signed, goes from host to host at once, and is told to those that were away when they come back. The host can join again with a new token.',
      examples: [
        ['garrison fleet revoke h07', 'it is gone, stolen, or to be installed anew'],
        ['garrison fleet revoke h07 --json', 'the same for a script'],
      ],
      operands: {
        peer: { kind: 'text', placeholder: 'HOST', brief: 'its name in the fleet', required: true },
      },
      flags: { folder },
      door: 'local',
      schema: 'garrison/fleet-revoke/1',
      json: {
        schema: 'garrison/fleet-revoke/1',
        host: 'the host',
        enrolment: 'the id that all of its certificates bear',
      },
    }) as const,
  'fleet request': () =>
    ({
      brief: 'ask for this host to issue certificates',
      help: 'Prints a request that the key of the authority signs (garrison fleet sign), for a further issuer, or for one whose own certificate comes to its end. The key that it is for stays here.',
      examples: [
        ['garrison fleet request > request.pem', 'then carry it to where the key of the authority is'],
        ['garrison fleet request --json', 'the same for a script'],
      ],
      operands: {},
      flags: { folder },
      door: 'local',
      schema: 'garrison/fleet-request/1',
      json: { schema: 'garrison/fleet-request/1', request: 'the request (PKCS #10, PEM)' },
    }) as const,
  'fleet sign': () =>
    ({
      brief: 'sign the request of an issuer with the key of the authority',
      help: 'Needs no fleet, no daemon and no network: run it where the key of the authority is kept. Whoever is given the certificate can let hosts into the fleet for two years.',
      examples: [
        ['garrison fleet sign request.pem --authority /media/key > issuer.pem', 'then carry it back'],
        ['garrison fleet sign request.pem --authority . --lifetime 365d', 'good for a year'],
      ],
      operands: {
        request: {
          kind: 'path',
          placeholder: 'REQUEST',
          brief: 'what garrison fleet request printed',
          required: true,
        },
      },
      flags: {
        authority: {
          kind: 'path',
          placeholder: 'DIR',
          brief: 'the folder that authority.key is in',
          required: true,
        },
        lifetime: { kind: 'text', placeholder: 'TIME', brief: 'how long it is good for: 730d (the default)' },
      },
      door: 'local',
      schema: 'garrison/fleet-sign/1',
      json: {
        schema: 'garrison/fleet-sign/1',
        certificate: 'the certificate of the issuer (PEM)',
        untilMs: 'until when it is good, epoch milliseconds',
      },
    }) as const,
  'fleet accept': () =>
    ({
      brief: 'take the certificate that makes this host an issuer',
      help: 'The answer to garrison fleet request. Refused unless it belongs to that request and was signed by the authority of this fleet.',
      examples: [
        ['garrison fleet accept issuer.pem', 'from now on this host lets others in'],
        ['garrison fleet accept issuer.pem --json', 'the same for a script'],
      ],
      operands: {
        certificate: {
          kind: 'path',
          placeholder: 'FILE',
          brief: 'what garrison fleet sign printed',
          required: true,
        },
      },
      flags: { folder },
      door: 'local',
      schema: 'garrison/fleet-accept/1',
      json: {
        schema: 'garrison/fleet-accept/1',
        untilMs: 'until when this host can issue, epoch milliseconds',
      },
    }) as const,
  'fleet status': () =>
    ({
      brief: 'show how every host of the fleet is',
      help: 'As this host was told by the others. Not seen is not down: of a host that is missing it says who heard of it last, when, and over which network. Ends with 0 when all are seen and well, 2 when one has drifted or has a finding, 4 when one is not seen.',
      examples: [
        ['garrison fleet status', 'one line for each host'],
        ['garrison fleet status --json', 'the same for a script'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      daemon: true,
      schema: 'garrison/fleet-status/1',
      json: {
        schema: 'garrison/fleet-status/1',
        fleet: 'the id of the fleet',
        host: 'the host that was asked',
        atMs: 'when, epoch milliseconds',
        hosts:
          'each host: host, self, linked, seenMs, over, seenBy (host, atMs, over), health, standing, findings, vms (running, all), relay (offers, by), reportAtMs, problem',
      },
    }) as const,
  'fleet watch': () =>
    ({
      brief: 'tell what happens in the fleet, as it happens',
      help: 'Hosts that come and go, their VMs, their notices of EC2, and every change of health or drift. Events that came too fast are counted and left out: the next report says it all.',
      examples: [
        ['garrison fleet watch', 'until Ctrl-C'],
        ['garrison fleet watch --json', 'one object a line, for a script'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      daemon: true,
      schema: 'garrison/fleet-watch/1',
      json: {
        line: 'what (linked, lost, report, event), host, atMs, and what belongs to it: why; health and standing; event and missed',
      },
      streams: true,
    }) as const,
  'fleet report': () =>
    ({
      brief: 'show the last report of a host of the fleet',
      help: 'As that host told it, with when it was told. It is kept here also while that host cannot be reached.',
      examples: [
        ['garrison fleet report h07', 'its health, VMs and drift'],
        ['garrison fleet report h07 --json', 'the report whole, as garrison/report/1'],
      ],
      operands: {
        peer: { kind: 'text', placeholder: 'HOST', brief: 'its name in the fleet', required: true },
      },
      flags: {},
      door: 'read',
      daemon: true,
      schema: 'garrison/fleet-report/1',
      json: {
        schema: 'garrison/fleet-report/1',
        host: 'the host',
        receivedMs: 'when it was told, epoch milliseconds of the host that was asked',
        linked: 'whether that host is there now',
        report: 'the report as in garrison/report/1',
      },
    }) as const,
  shell: () =>
    ({
      brief: 'open a shell of root on a host of the fleet',
      help: 'A terminal over the fleet port, for when SSH is not there: over whichever network the host can still be reached. Off unless fleet.shell is on in the document of that host, and only for root on a host whose certificate has the role admin. What is typed goes there, Ctrl-C too; ^] (Ctrl and ]) leaves, and ends what runs there. It is recorded there, in /var/lib/garrison/shells, and written in its journal.',
      examples: [
        ['sudo garrison shell h07', 'until exit is typed there, or ^] pressed'],
        ['sudo garrison shell h07 --at 192.0.2.7', 'at an address that the fleet does not tell'],
      ],
      operands: {
        peer: { kind: 'text', placeholder: 'HOST', brief: 'its name in the fleet', required: true },
      },
      flags: {
        escape: escapeKey,
        at: {
          kind: 'text',
          placeholder: 'ADDRESS',
          brief: 'where that host is, beside what is known: 192.0.2.7, or with a port',
          many: true,
          kept: true,
        },
        term: {
          kind: 'text',
          placeholder: 'TERM',
          brief: 'the kind of terminal to tell it (that of this one)',
        },
        size: {
          kind: 'text',
          placeholder: 'SIZE',
          brief: 'columns x rows to begin with, such as 80x24 (that of this one)',
        },
        folder: { ...folder, kept: true },
      },
      door: 'admin',
      schema: 'garrison/shell/1',
      json: {},
      session: true,
    }) as const,
  'fleet peers': () =>
    ({
      brief: 'show the connections with the other hosts, and the certificate of this one',
      help: 'For each host where it is, over which network it is reached, how far away it is and what was sent; or why it is not reached and when it is tried again.',
      examples: [
        ['garrison fleet peers', 'who is linked with this host, and how'],
        ['garrison fleet peers --json', 'the same for a script'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      daemon: true,
      schema: 'garrison/fleet-peers/1',
      json: {
        schema: 'garrison/fleet-peers/1',
        membership:
          'fleet, fingerprint, host, role, port, addresses, untilMs, issuerUntilMs, renewProblem, discoverProblem, revoked',
        peers:
          'each host: host, addresses, link (over, address, dialled, sinceMs, rttMs, role, sentBytes, receivedBytes, behind, issues), seen, seenBy, generation, problem',
      },
    }) as const,
} satisfies Record<string, () => Verb>
