// Golden plans: every folder test/plan/RESOURCE/CASE holds what was observed and desired, and the plan and findings that follow.
// GARRISON_GOLDEN=write writes plan.json and findings.json anew; read the difference before it is committed.

import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { type Desired, desiredSchema } from '../../provisioning/desired.ts'
import { resources } from '../../provisioning/index.ts'
import { problemOf, problems } from '../../provisioning/problem.ts'
import { type Resource, RISKS, type Step, stepKey } from '../../provisioning/resource.ts'

const write = process.env.GARRISON_GOLDEN === 'write'

const folders = (path: string): string[] =>
  readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))

const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'))

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

/** The file's content; absent is the empty list. Writes `value` first when golden files are written anew. */
const golden = (path: string, value: unknown): unknown => {
  if (write) {
    if (Array.isArray(value) && value.length === 0 && !path.endsWith('plan.json'))
      rmSync(path, { force: true })
    else writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)
  }
  return existsSync(path) ? readJson(path) : []
}

function checkSteps(t: Test, steps: readonly Step[]) {
  const keys = steps.map(stepKey)
  t.equal(new Set(keys).size, keys.length, 'no two steps have the same key')
  for (const step of steps) {
    const key = stepKey(step)
    t.ok(RISKS.includes(step.risk), `${key}: risk`)
    t.ok(step.because.length > 0, `${key}: says why`)
    t.ok(
      (step.after ?? []).every((other) => keys.includes(other) && other !== key),
      `${key}: comes after steps that there are`,
    )
    t.ok(
      step.blocked ? step.blocked.code in problems() : step.actions.length > 0,
      `${key}: does or is blocked`,
    )
    for (const action of step.actions) {
      if (action.kind === 'run')
        t.match(
          action.argv[0],
          /^\/usr\/(s?bin|lib)\/(?!(ba|da)?sh$|env$)/,
          `${key}: no shell, absolute path`,
        )
    }
  }
}

for (const id of folders(import.meta.dirname)) {
  t.test(id, async (t) => {
    const resource = resources.find((one) => one.id === id) as Resource
    t.ok(resource, 'is a resource')
    const cases = folders(join(import.meta.dirname, id))
    t.ok(cases.length > 0, 'has cases')
    for (const name of cases) {
      t.test(name, async (t) => {
        const path = (file: string) => join(import.meta.dirname, id, name, file)
        const document = parse(readFileSync(path('desired.yaml'), 'utf8')) as unknown
        const desired: Desired = { ...desiredSchema.parse(document), sources: {} }
        const observed = readJson(path('observed.json'))
        const plan = () => {
          try {
            return resource.plan(observed, desired)
          } catch (error) {
            const { code, message } = problemOf(error)
            return { code, message }
          }
        }
        const planned = plan()
        t.same(plain(planned), golden(path('plan.json'), planned), 'plan')
        t.same(plan(), planned, 'the same again')
        if (Array.isArray(planned)) checkSteps(t, planned)
        const findings = resource.check(observed)
        t.same(plain(findings), golden(path('findings.json'), findings), 'findings')
        t.ok(resource.describe(observed, desired).length <= 60, resource.describe(observed, desired))
        t.same(observed, readJson(path('observed.json')), 'planning changes nothing in what was observed')
      })
    }
  })
}
