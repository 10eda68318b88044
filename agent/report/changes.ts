// What has changed from one report to the next, as log events: findings that appear and end, drift of resources, VMs.

import type { Report } from './report-schema.ts'

/** What was last told; it is kept, so that a start of the daemon tells nothing twice. */
export interface LastTold {
  readonly findings: Readonly<Record<string, { readonly severity: string; readonly text: string }>>
  readonly resources: Readonly<Record<string, string>>
  readonly vms: Readonly<Record<string, string>>
}

/** Nothing has been told yet. */
export const nothingTold: LastTold = { findings: {}, resources: {}, vms: {} }

/** What of a report `changesOf` compares. */
export function toldOf({ findings, drift, vms }: Report, before: LastTold): LastTold {
  return {
    findings: Object.fromEntries(
      findings.map(({ code, subject = '', severity, text }) => [`${code} ${subject}`, { severity, text }]),
    ),
    // What the root side has not said again is as it was.
    resources:
      drift === null
        ? before.resources
        : Object.fromEntries(
            drift.resources.map(({ resource, standing, steps }) => [
              resource,
              [standing, ...steps.map(({ key }) => key)].join(' '),
            ]),
          ),
    vms: Object.fromEntries(vms.map(({ uuid, power, reason }) => [uuid, `${power} ${reason}`])),
  }
}

/** One event for each change. A finding whose text alone is another is none. */
export function changesOf(report: Report, before: LastTold, now: LastTold): readonly object[] {
  const changed = <T>(was: Readonly<Record<string, T>>, is: Readonly<Record<string, T>>, key: string) =>
    JSON.stringify(was[key]) !== JSON.stringify(is[key])
  return [
    ...report.findings.flatMap(({ code, subject, severity, text, remedy, sinceMs }) => {
      const was = before.findings[`${code} ${subject ?? ''}`]
      const change = was === undefined ? 'appeared' : 'changed'
      return was?.severity === severity
        ? []
        : [{ event: 'finding', change, code, subject, severity, text, remedy, sinceMs }]
    }),
    ...Object.entries(before.findings).flatMap(([key, { severity, text }]) => {
      const [code = '', ...subject] = key.split(' ')
      const named = subject.join(' ')
      return key in now.findings
        ? []
        : [
            {
              ...{ event: 'finding', change: 'ended', code },
              ...(named !== '' && { subject: named }),
              ...{ severity, text },
            },
          ]
    }),
    ...(report.drift?.resources ?? []).flatMap(({ resource, declared, standing, summary, steps, problem }) =>
      changed(before.resources, now.resources, resource)
        ? [{ event: 'drift', resource, declared, standing, summary, steps, problem }]
        : [],
    ),
    ...report.vms.flatMap(({ uuid, name, power, reason }) =>
      changed(before.vms, now.vms, uuid) ? [{ event: 'vm', uuid, name, power, reason }] : [],
    ),
    ...Object.keys(before.vms).flatMap((uuid) =>
      uuid in now.vms ? [] : [{ event: 'vm', uuid, power: 'gone' }],
    ),
  ]
}
