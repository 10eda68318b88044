// What the verbs of the fleet read of the reports of other hosts, whatever version of Garrison made them.

import type { Tree } from '../peers/delta.ts'

/** A report in short. Null is what it does not say. */
export interface ReportSummary {
  readonly health: string | null
  readonly standing: string | null
  /** How many steps the host would perform by itself, and whether one is blocked. */
  readonly steps: number | null
  readonly blocked: boolean
  readonly high: number
  readonly warnings: number
  readonly vms: { readonly running: number; readonly all: number } | null
  /** Whether it sends to CloudWatch for peers, and the peer that sends for it. */
  readonly relay: { readonly offers: boolean; readonly by: string | null }
}

type Fields = Readonly<Record<string, Tree>>

const fieldsOf = (tree: Tree | undefined): Fields =>
  typeof tree === 'object' && tree !== null && !Array.isArray(tree) ? (tree as Fields) : {}
const listOf = (tree: Tree | undefined): readonly Fields[] | null =>
  Array.isArray(tree) ? tree.map(fieldsOf) : null
const textOf = (tree: Tree | undefined): string | null => (typeof tree === 'string' ? tree : null)

/** The report of a host in short. */
export function summaryOf(body: Tree): ReportSummary {
  const { health, standing, findings, drift, vms, relay } = fieldsOf(body)
  const found = listOf(findings) ?? []
  const counted = (severity: string): number => found.filter((one) => one.severity === severity).length
  const steps = listOf(fieldsOf(drift).resources)?.flatMap(({ steps: some }) => listOf(some) ?? []) ?? null
  const machines = listOf(vms)
  return {
    health: textOf(health),
    standing: textOf(standing),
    steps: steps?.length ?? null,
    blocked: steps?.some(({ blocked }) => typeof blocked === 'string') ?? false,
    high: counted('high'),
    warnings: counted('warning'),
    vms: machines && {
      running: machines.filter(({ power }) => power === 'running').length,
      all: machines.length,
    },
    relay: { offers: fieldsOf(relay).offers === true, by: textOf(fieldsOf(relay).by) },
  }
}

/** What a host that reports is called, and which instance it is; null when the report does not say. */
export function namesOf(body: Tree): { readonly host: string; readonly instance: string } | null {
  const { name, instance } = fieldsOf(fieldsOf(body).host)
  return typeof name === 'string' && typeof instance === 'string' ? { host: name, instance } : null
}
