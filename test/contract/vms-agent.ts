// The verbs of the root side over the VMs of one folder's libvirt, as a process of its own that may be killed at any moment.
//
//   node vms-agent.ts FOLDER VERB [ARGS [RESOURCES]]     ARGS as JSON; RESOURCES parted by commas, vms alone when absent
//
// Every line of the answer is {line, text, exit} on standard output; SIGTERM interrupts it and SIGHUP cancels it, as a job is.

import { type AnswerModule, contextsOf, type StreamModule } from '../../agent/api/context.ts'
import { type VerbName, verbOf } from '../../agent/api/verbs.ts'
import { partsOf } from '../../agent/operate.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { resources } from '../../provisioning/index.ts'
import { problemOf } from '../../provisioning/problem.ts'
import { inContainer } from './container-host.ts'

const [folder = '', verb = '', args = '{}', only = 'vms'] = process.argv.slice(2)
const parts = partsOf(folder)
const reader = inContainer(parts.reader)
const stopping = new AbortController()
process.on('SIGTERM', () => stopping.abort('interrupted'))
process.on('SIGHUP', () => stopping.abort('cancelled'))
const context = contextsOf({
  ...parts,
  reader,
  resources: resources.filter(({ id }) => only.split(',').includes(id)),
})('the test', stopping.signal)
const terminal = { colour: false, live: false, nowMs: Date.now() }
const tell = (line: unknown, text: string | null, exit: number | null): void => {
  process.stdout.write(`${JSON.stringify({ line, text, exit })}\n`)
}

const name = verb as VerbName
const module = await loadServed(name)
const asked = JSON.parse(args)
try {
  if (verbOf(name).streams) {
    const { run, render, exitOf } = module as StreamModule<VerbName>
    for await (const line of run(context, asked)) tell(line, render(line, terminal), exitOf(line))
  } else {
    const { run, render, exitOf } = module as AnswerModule<VerbName>
    const result = await run(context, asked)
    tell(result, render(result, terminal), exitOf(result))
  }
} catch (error) {
  const problem = problemOf(error)
  tell(problem, `${problem.code}: ${problem.message}`, 1)
}
// Connections to libvirt are kept and would keep the process.
process.exit()
