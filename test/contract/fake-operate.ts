// The root side over a fake host, as a process of its own (node fake-operate.ts FOLDER IDLE_MS).

import { join } from 'node:path'
import { pino } from 'pino'
import { contextsOf } from '../../agent/api/context.ts'
import { serve } from '../../agent/api/server.ts'
import { loadServed } from '../../agent/verbs/index.ts'
import { fakeParts } from './fake-host.ts'

const [folder = '', idleMs = ''] = process.argv.slice(2)
const served = await serve({
  doorways: (['read', 'operate', 'admin'] as const).map((door) => ({
    door,
    path: join(folder, `${door}.sock`),
  })),
  contextFor: contextsOf(fakeParts(folder)),
  load: loadServed,
  log: pino({}, pino.destination({ dest: 1, sync: true })),
  idleMs: Number(idleMs),
})
process.on('SIGTERM', served.stop)
process.stdout.write('serving\n')
await served.left
