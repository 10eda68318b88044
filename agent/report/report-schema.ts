// The shape of a report, as published: its types, its JSON Schema and what its documents say come from here. Only its types are
// loaded by the daemon.

import { z } from 'zod'
import type { Json } from '../../provisioning/resource.ts'

const severity = z.enum(['notice', 'warning', 'high'])
const standing = z
  .enum(['settled', 'drifted', 'unknown'])
  .describe('settled: nothing to do; drifted: steps are planned; unknown: it could not be read')
const epochMs = z.number().describe('epoch milliseconds')
const known = z.number().nullable()

const findingSchema = z.object({
  code: z.string().describe('what it is; the same over versions'),
  severity,
  subject: z.string().optional().describe('the part of the host that it is about'),
  text: z.string(),
  remedy: z.string().describe('what a person does next'),
  sinceMs: epochMs.describe('since when it is so, epoch milliseconds'),
})

const hiddenSchema = z.object({
  code: z.string(),
  subject: z.string().optional(),
  because: z.string().describe('the code of the finding that is its cause'),
})

const resourceSchema = z.object({
  resource: z.string(),
  declared: z.boolean().describe('whether the desired document says anything of it'),
  standing,
  summary: z.string(),
  steps: z.array(
    z.object({
      key: z.string(),
      summary: z.string(),
      risk: z.enum(['safe', 'disruptive', 'destroys-data']),
      blocked: z.string().nullable().describe('the code of what blocks it, or null'),
    }),
  ),
  problem: z.string().nullable().describe('the code of what kept it from being read, or null'),
})

const driftSchema = z.object({
  atMs: epochMs.describe('when the root side looked, epoch milliseconds'),
  document: z.string().nullable().describe('the code of what is wrong with the desired document, or null'),
  applying: z.object({ who: z.string(), sinceMs: epochMs }).nullable().describe('who applies now, or null'),
  resources: z.array(resourceSchema),
})

const vmSchema = z.object({
  uuid: z.string(),
  name: z.string(),
  power: z.string().describe('what it does, in libvirt’s words; unknown when nobody can tell'),
  reason: z.string(),
  stale: z.boolean().describe('whether that should have been read again long ago'),
  stuckSinceMs: epochMs.nullable().describe('since when its QEMU does not answer, or null'),
  cpuPercent: known.describe('100 is one processor'),
  memoryBytes: known,
  readPerSecond: known.describe('bytes'),
  writtenPerSecond: known.describe('bytes'),
  receivedPerSecond: known.describe('bytes'),
  sentPerSecond: known.describe('bytes'),
})

const inventorySchema = z.object({
  system: z.object({ distro: z.string(), release: z.string(), kernel: z.string(), arch: z.string() }),
  machine: z.object({ vendor: z.string(), model: z.string() }),
  processor: z.object({
    model: z.string(),
    sockets: z.number(),
    cores: z.number(),
    threads: z.number(),
  }),
  memoryBytes: z.number(),
  drives: z.array(
    z.object({ name: z.string(), model: z.string(), serial: z.string(), sizeBytes: z.number() }),
  ),
  nics: z.array(z.object({ name: z.string(), mac: z.string(), mtu: known, speedMbps: known })),
})

const ageSchema = z.object({
  atMs: epochMs.nullable().describe('when that was read last, epoch milliseconds; null when never'),
  stale: z.boolean().describe('whether it should have been read again long ago'),
  problem: z.string().nullable().describe('why it could not be read the last time, or null'),
})

/** One snapshot of a host. */
export const reportSchema = z
  .object({
    schema: z.literal('garrison/report/1'),
    run: z.string().describe('another one each time that the daemon starts'),
    generation: z
      .number()
      .int()
      .describe('rises with each report that differs from the one before, over starts of the daemon too'),
    atMs: epochMs.describe('when it was made, epoch milliseconds'),
    host: z.object({
      name: z.string(),
      instance: z.string().describe('the instance-id, or else the machine-id'),
      bootedMs: epochMs.nullable(),
      version: z.string().describe('of the agent'),
      startedMs: epochMs.describe('when the daemon began, epoch milliseconds'),
    }),
    health: z
      .enum(['ok', 'notice', 'warning', 'high', 'unknown'])
      .describe('the gravest finding; unknown when a part could not be read and nothing grave was found'),
    standing: standing.describe('of the host as a whole: unknown hides more than drifted'),
    findings: z.array(findingSchema).describe('gravest first'),
    hidden: z.array(hiddenSchema).describe('what is so and is not said while its cause stands'),
    drift: driftSchema.nullable().describe('what the root side said last; null when it never has'),
    metrics: z
      .record(z.string(), z.number())
      .describe(
        'the last value of each metric of the host: by its name, of a part by its name and the part’s',
      ),
    vms: z.array(vmSchema).describe('in the order of their names'),
    inventory: inventorySchema.nullable().describe('what the host is made of; null until that is read'),
    relay: z
      .object({
        offers: z.boolean().describe('whether it sends to CloudWatch for peers now'),
        by: z.string().nullable().describe('the peer that sends for it, while it does not reach the Region'),
      })
      .describe('CloudWatch through peers'),
    ages: z
      .object({ host: ageSchema, vms: ageSchema, root: ageSchema, inventory: ageSchema })
      .describe('how old each part is'),
  })
  .meta({ title: 'A report of Garrison on one host' })

/** One snapshot of a host. */
export type Report = z.infer<typeof reportSchema>

/** What a host is made of. */
export type Inventory = z.infer<typeof inventorySchema>

/** Its JSON Schema (draft 2020-12). */
export const reportJsonSchema = (): Json => z.toJSONSchema(reportSchema) as Json
