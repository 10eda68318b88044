// The Grafana dashboard that ships: every metric of the table, as Prometheus scrapes it; build.ts puts it into the package.

import { prometheusName } from '../agent/report/exposition.ts'
import { METRICS, type Metric, type MetricName } from '../provisioning/metrics.ts'

const grafanaUnit: Readonly<Record<Metric['unit'], string>> = {
  percent: 'percentunit',
  bytes: 'bytes',
  'bytes-per-second': 'Bps',
  'per-second': 'cps',
  count: 'short',
  milliseconds: 's',
  seconds: 's',
}

const datasource = { type: 'prometheus', uid: `\${source}` }
const [columns, height] = [3, 7]

/** Rows of panels, one for each scope. */
const rows = ['host', 'vm', 'filesystem', 'drive', 'array', 'nic'] as const

/** The dashboard as JSON (Grafana's import format). */
export function grafanaDashboard(): string {
  const panels: object[] = []
  let y = 0
  for (const row of rows) {
    const names = (Object.keys(METRICS) as MetricName[]).filter((name) => METRICS[name].per === row)
    panels.push({
      ...{ type: 'row', title: row === 'host' ? 'Host' : `Each ${row}`, collapsed: false, panels: [] },
      gridPos: { x: 0, y, w: 24, h: 1 },
    })
    y += 1
    for (const [at, name] of names.entries()) {
      const { unit, meaning } = METRICS[name]
      panels.push({
        ...{ type: 'timeseries', title: name, description: meaning, datasource },
        gridPos: {
          ...{ x: (at % columns) * (24 / columns), y: y + Math.floor(at / columns) * height },
          ...{ w: 24 / columns, h: height },
        },
        fieldConfig: { defaults: { unit: grafanaUnit[unit], min: 0 }, overrides: [] },
        targets: [
          {
            ...{ refId: 'A', datasource, expr: `${prometheusName(name)}{instance=~"$host"}` },
            legendFormat: row === 'host' ? '{{instance}}' : `{{instance}} {{${row}}}`,
          },
        ],
      })
    }
    y += Math.ceil(names.length / columns) * height
  }
  const dashboard = {
    ...{ title: 'Garrison hosts', uid: 'garrison-hosts', schemaVersion: 39, version: 1, editable: true },
    ...{ tags: ['garrison'], time: { from: 'now-6h', to: 'now' }, refresh: '1m' },
    templating: {
      list: [
        { name: 'source', label: 'Source', type: 'datasource', query: 'prometheus' },
        {
          ...{ name: 'host', label: 'Host', type: 'query', datasource, multi: true, includeAll: true },
          ...{ query: 'label_values(garrison_build_info, instance)', refresh: 2 },
        },
      ],
    },
    panels,
  }
  return `${JSON.stringify(dashboard, null, 1)}\n`
}
