// The part of the table of verbs that the daemon answers: what it sees, and what it has seen.

import type { Verb } from './verbs.ts'

/** Every verb that the daemon answers. */
export const reportVerbs = {
  report: () =>
    ({
      brief: 'show the health, VMs and drift of this host, from its daemon',
      help: 'The daemon looks every ten seconds; the root side is asked every five minutes. What could not be read is named with its age. A finding is told once it has been so long enough, and not while its cause is told; docs/usage/monitoring.md explains each.',
      examples: [
        ['garrison report', 'how this host is now'],
        ['garrison report --watch', 'again whenever something has changed, until Ctrl-C'],
      ],
      operands: {},
      flags: { watch: { kind: 'switch', brief: 'go on with each report that differs, until Ctrl-C' } },
      door: 'read',
      daemon: true,
      schema: 'garrison/report/1',
      json: {
        run: 'another one each time that the daemon starts',
        generation: 'rises with each report that differs from the one before',
        atMs: 'when it was made, epoch milliseconds',
        host: 'name, instance, bootedMs, version, startedMs',
        health: 'ok, notice, warning, high, or unknown',
        standing: 'settled, drifted or unknown: the host as a whole',
        findings: 'gravest first: code, severity, subject, text, remedy, sinceMs',
        hidden: 'what is so and is not told while its cause is: code, subject, because',
        drift: 'what the root side said: atMs, document, applying, resources; null when it never has',
        metrics: 'the last value of each metric, by its name and that of the part it is of',
        vms: 'each VM: uuid, name, power, reason, stale, stuckSinceMs, and what it uses',
        inventory: 'what the host is made of, or null',
        relay: 'CloudWatch through peers: whether it sends for others (offers), and who sends for it (by)',
        ages: 'when each part was read (host, vms, root, inventory): atMs, stale, problem',
      },
      streams: true,
    }) as const,
  history: () =>
    ({
      brief: 'show how a metric went',
      help: 'Minutes are kept for a day, quarters of an hour for two weeks, three hours for a year. Without METRIC: every metric, with what it means. A metric of drives, NICs, filesystems, arrays or VMs needs --of, unless there is one only.',
      examples: [
        ['garrison history cpu.busy', 'the last six hours, as a chart'],
        [
          'garrison history filesystem.free --of / --since 7d --json',
          'a week of one filesystem, for a script',
        ],
      ],
      operands: { metric: { kind: 'text', placeholder: 'METRIC', brief: 'as cpu.busy' } },
      flags: {
        of: { kind: 'text', placeholder: 'PART', brief: 'the drive, NIC, filesystem, array or VM' },
        since: {
          kind: 'since',
          placeholder: 'WHEN',
          brief: 'from then on: 90s, 30m, 2h, 7d, or a date such as 2026-11-20T21:00; 6h when left out',
        },
      },
      door: 'read',
      daemon: true,
      schema: 'garrison/history/1',
      json: {
        schema: 'garrison/history/1',
        metric: 'its name; null when none was asked for',
        part: 'what it is of, or null for the host as a whole',
        unit: 'percent, bytes, bytes-per-second, per-second, count, milliseconds or seconds',
        sinceMs: 'from when on, epoch milliseconds',
        untilMs: 'until when, epoch milliseconds',
        everyMs: 'how long each point is',
        points:
          'oldest first: atMs (its beginning), count, low, high, mean; spans without a value are left out',
        metrics: 'without METRIC: each metric with its unit, what it is of and its meaning',
      },
    }) as const,
  cloudwatch: () =>
    ({
      brief: 'show what CloudWatch is told, and what waits',
      help: 'What is measured goes to the disk first and is sent once a minute; while CloudWatch cannot be reached it waits there for up to two weeks and is then sent with its own times. In doubt is what was sent and never answered: it is asked after before it is sent again.',
      examples: [
        ['garrison cloudwatch', 'whether it arrives, what waits, and why'],
        ['garrison cloudwatch --json', 'the same for a script; times in epoch milliseconds'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      daemon: true,
      schema: 'garrison/cloudwatch/1',
      json: {
        schema: 'garrison/cloudwatch/1',
        atMs: 'when that was so, epoch milliseconds',
        told: 'the cloudwatch part of the desired document; null when there is none and nothing is sent',
        region: 'the Region that is told, or null',
        metrics:
          'waiting, doubtful, waitingSinceMs, acceptedMs (the last time), problem and failingMs, refused, askProblem',
        events: 'the same of log events; null when none are sent',
        counts: 'since the spool was begun: sent, dropped, expired, refused, unwritten, folded',
        spoolBytes: 'what the spool takes on the disk',
        skewMs: 'how far the clock is ahead of the server’s; 0 when they agree',
        series: 'how many series were told of within an hour, by metric',
        made: 'bytes of events made since the daemon began: reportBytes, changeBytes, spanMs',
        relayed: 'the peer that sends for this host, and since when (by, sinceMs); null while none does',
        relayedFor:
          'what this host has sent for peers since the daemon began, by their names: rows, requests, atMs',
      },
    }) as const,
  'cloudwatch cost': () =>
    ({
      brief: 'show what CloudWatch costs a month, dearest line first',
      help: 'Works out what the present configuration costs, from the series that were told of within an hour and the size of the report. Prices are list prices of one Region and month, without tax and free tier; cloudwatch.prices in the desired document names yours.',
      examples: [
        ['garrison cloudwatch cost', 'what is paid for, and what most'],
        ['garrison cloudwatch cost --json', 'the same for a script; amounts in US dollars'],
      ],
      operands: {},
      flags: {},
      door: 'read',
      daemon: true,
      schema: 'garrison/cloudwatch-cost/1',
      json: {
        schema: 'garrison/cloudwatch-cost/1',
        month: 'US dollars a month',
        ofHost: 'what of it is for this host alone',
        lines: 'dearest first: what, number, of, each, month',
        pricesOf: 'the year and month of the list prices',
        ownPrices: 'prices that the desired document names',
      },
    }) as const,
  'cloudwatch setup': () =>
    ({
      brief: 'make the dashboard of the hosts and the alarms of this one',
      help: 'Needs rights that the daemon has not: cloudwatch:PutDashboard, GetDashboard, PutMetricAlarm, DescribeAlarms, DeleteAlarms; run it with credentials that have them, or print it. What is as it should be is left alone, and an alarm of this host that is not wanted any more is removed. The dashboard finds every host that tells its metrics by itself.',
      examples: [
        ['garrison cloudwatch setup --topic TOPIC-ARN', 'make them, and tell a topic'],
        ['garrison cloudwatch setup --print > host.json', 'the same for CloudFormation'],
      ],
      operands: {},
      flags: {
        print: { kind: 'switch', brief: 'change nothing; print a template of CloudFormation' },
        topic: { kind: 'text', placeholder: 'ARN', brief: 'the SNS topic that alarms are told to' },
      },
      door: 'local',
      schema: 'garrison/cloudwatch-setup/1',
      json: {
        schema: 'garrison/cloudwatch-setup/1',
        region: 'where',
        made: 'kind (dashboard, alarm), name and change (made, changed, removed, as it was) of each',
        template: 'with --print the template, else null',
      },
    }) as const,
} satisfies Record<string, () => Verb>
