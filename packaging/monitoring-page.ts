// The page about monitoring: its words, and the tables of metrics and findings as the daemon uses them; pages.ts writes it.

import { amount } from '../agent/report/amounts.ts'
import { FINDINGS, type FindingEntry } from '../agent/report/findings.ts'
import { METRICS, type Metric } from '../provisioning/metrics.ts'
import type { Severity } from '../provisioning/resource.ts'

const cell = (text: string): string => text.replaceAll('|', '\\|')

const severities: readonly Severity[] = ['notice', 'warning', 'high']

/** A time in words: `30 s`, `5 min`, `1 h`; `at once` for none. */
function time(ms: number): string {
  if (ms === 0) return 'at once'
  if (ms < 60_000) return `${ms / 1000} s`
  return ms < 3_600_000 ? `${ms / 60_000} min` : `${ms / 3_600_000} h`
}

/** From when a finding is so. */
function whenOf({ when, level }: FindingEntry): string {
  if (level === undefined) return when ?? ''
  const { metric, above, until } = level
  const { unit } = METRICS[metric]
  const from = severities.flatMap((one) => {
    const value = above[one]
    return value === undefined ? [] : [`above ${amount(unit, value)} ${one}`]
  })
  return `\`${metric}\` ${from.join(', ')}; until ${amount(unit, until)}`
}

const findingRows = Object.entries(FINDINGS as Readonly<Record<string, FindingEntry>>).map(
  ([code, entry]) =>
    `| \`${code}\` | ${cell(entry.meaning)} | ${cell(whenOf(entry))} | ${time(entry.appearMs)} / ${time(entry.clearMs)} | ${cell(entry.remedy)} | ${(entry.hiddenBy ?? []).map((one) => `\`${one}\``).join(', ')} |`,
)

const unitText: Readonly<Record<Metric['unit'], string>> = {
  percent: '%',
  bytes: 'bytes',
  'bytes-per-second': 'bytes/s',
  'per-second': '1/s',
  count: '',
  milliseconds: 'ms',
  seconds: 's',
}

const metricRows = Object.entries(METRICS as Readonly<Record<string, Metric>>).map(
  ([name, { unit, per, everySeconds, meaning }]) =>
    `| \`${name}\` | ${per} | ${unitText[unit]} | ${everySeconds} s | ${cell(meaning)} |`,
)

/** The page as Markdown. */
export const monitoringPage = (): string => `# Monitoring a host

\`garrison.service\` looks at the host by day and night, as a user without any rights. It judges what it sees, remembers it, and
tells: \`garrison report\` and \`garrison history\` here, the fleet ([fleet.md](fleet.md)), and CloudWatch where that is wanted.
It needs neither the desired document nor libvirt, the instance metadata or the Region to begin: what is not there is told.

## How is this host?
\`\`\`console
$ garrison report
op-rack2-h07    drifted    health: 1 high, 1 warning                seen 4 s ago
  host       cpu 12 %, memory 61 %, 97.3 GiB left, waits for drives 1 %, up 41 d
  vms        11 of 12 run
  resources  vms drifted; root, software, array, volumes, uplinks settled;
             looked 2 min ago
  HIGH     vm.io-error: web-3 was paused: a disk of it cannot be read or written
           Most often the filesystem of its disk is full or its drive fails:
           mend that, then garrison vm resume NAME.    since 2026-11-21 02:14:09
  WARNING  array.resyncing: md/garrison is not redundant until its recovery
           ends: 62 % are done, 24 min left
           Rollouts and reboots wait for it. Nothing to do.
                                                       since 2026-11-21 02:14:07
           1 finding more because of array.resyncing
\`\`\`

\`garrison report --watch\` goes on with each report that differs; \`--json\` prints one object, whose schema is
\`garrison schema report\` (JSON Schema, draft 2020-12):

    garrison report --json | jq '.findings[] | select(.severity == "high")'
    garrison report --json --watch | jq --unbuffered -c '[.generation, .health]'

A report is one snapshot. Its \`generation\` rises with each that differs from the one before, also over starts of the daemon (\`run\`
tells those apart). Exit codes are those of \`status\`: 0 settled, 2 drift, 4 unknown. Each part has its age under \`ages\`: \`host\`
(every 10 s), \`vms\` (every 10 s, disks and memory every 60 s, or every 10 min
while a VM is paused and nothing goes to its disks, and at once when libvirt tells of an event), \`root\` (what only root may see, from
\`garrison status\` of the root side: every 5 min, and within 30 s when an array, a link or a VM changes), \`inventory\` (once, and when drives, NICs
or memory change). What could not be read is named, keeps what was known of it, and is never called settled or off.

## How was it?
    garrison history                              every metric and what it means
    garrison history cpu.busy                     the last six hours as a chart
    garrison history filesystem.free --of / --since 7d --json

\`\`\`console
$ garrison history cpu.busy --since 30m
cpu.busy: now 12 %, mean 29 %, from 6.4 % to 89 %
100 % │
      │
      │                                    ▆▆▆▅▅▇▇▇▅▅▅▄▇▇▇▇▅▅
      │                                  ▇▇██████████████████
 50 % │                                  ████████████████████▇▇
      │                               ▆▆▆██████████████████████
      │                               █████████████████████████▆▆▆▁▁
  0 % │▅▅▆▆▆▅▅▇▇▇▆▆▆▆▆▅▅▆▆███▆▆▇▇▇▆▆▆▆██████████████████████████████▇▇▇▆▆▆▆▇▇███
       2026-11-21 02:14:00                                   2026-11-21 02:44:00
\`\`\`

Minutes are kept for a day, quarters of an hour for two weeks, three hours for 400 days, each with count, lowest, highest and mean, in
\`/var/lib/garrison/daemon/history.sqlite\`. It never grows beyond 128 MiB: then the oldest of the finest grain go first. A process
that is killed loses the minute that had not ended; a file that is damaged is put aside as \`history.sqlite.damaged\`, and where it cannot be opened
the daemon goes on with a history in memory and says so (\`agent.history-unwritable\`).

## Findings
A finding is told when it has been so for as long as *appears* says, and no more when it has not been so for as long as *clears*
says, so nothing flaps; a level that was passed is left only at its lower end. While its cause (*not told while*) is told of the
same part, or of what that part stands on, a finding is only counted: a filesystem on an array that has failed has nothing to add, one on
another drive has. What cannot be looked at any more stays as it was: not seeing a fault never ends it. Findings survive a start of the
daemon with their time.

\`garrison report\` also tells what \`garrison status\` finds (arrays, drives' health, volumes, uplinks, firewall, VMs), as it is.

| finding | meaning | from when on | appears / clears | what to do | not told while |
|---|---|---|---|---|---|
${findingRows.join('\n')}

Notices of EC2 are asked for every five seconds where there are instance metadata; \`garrison instance\` tells them in full.

## Metrics
What is not known has no value: there are no zeros that mean 'could not tell'. Rates are those since the value before; a counter
that went back gives none.

| metric | of | unit | every | meaning |
|---|---|---|---|---|
${metricRows.join('\n')}

## The daemon itself
| what happens | what it does |
|---|---|
| its event loop stands still for 30 s | systemd starts it anew (\`WatchdogSec\`), and the generation goes on |
| \`systemctl stop garrison\` | writes down the minute that has begun, tells peers, leaves within seconds |
| SIGKILL, a power cut | the same as any start: at most one minute of history is lost |
| no libvirt | \`libvirt.silent\` after 30 s; VMs keep what was known with its age; it connects by itself |
| a guest that hangs | \`vm.stuck\` after 2 min; the others are sampled as before |
| a filesystem that hangs | \`filesystem.silent\` after 30 s; no more than two are waited for |
| a full drive | \`agent.history-unwritable\`; everything else goes on |

    systemctl status garrison
    journalctl -u garrison -o cat | jq 'select(.level >= 50)'
    garrison history agent.memory

What it may do: [garrison.service](../../systemd/usr/lib/systemd/system/garrison.service) (exposure \`systemd-analyze security\`: 2.5 at most).
Who may read: members of \`garrison-read\`.

This page is made by \`npm run pages\`.
`
