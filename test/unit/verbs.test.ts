// The table of verbs, and everything that is made from it: arguments, help, man page, completions.

import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkedArgs, doorNeeded, parseCommandLine, pathOf, verbAt } from '../../agent/api/arguments.ts'
import { completionScript } from '../../agent/api/completion.ts'
import { helpText, shownVerbs } from '../../agent/api/help.ts'
import { manPage } from '../../agent/api/man.ts'
import { resourceNames, verbNames, verbOf } from '../../agent/api/verbs.ts'
import { loadLocal, loadOfDaemon, loadServed } from '../../agent/verbs/index.ts'
import { resources } from '../../provisioning/index.ts'

const plain = { colour: false, live: false, nowMs: 0 }

t.test('the table', async (t) => {
  t.same([...resourceNames].sort(), resources.map(({ id }) => id).sort(), 'knows every resource')
  for (const name of verbNames.filter((one) => one !== 'operate' && one !== 'daemon')) {
    const { door, daemon } = verbOf(name)
    const [served, local] = [await loadServed(name), await loadLocal(name)]
    t.equal(local !== null, door === 'local', `${name} runs where its door says`)
    t.equal(served !== null, door !== 'local' && !daemon)
    t.equal((await loadOfDaemon(name)) !== null, daemon === true)
    t.equal(verbAt(pathOf(name)), name)
  }
})

t.test('examples of the help are command lines that parse', async (t) => {
  for (const [name, { examples }] of shownVerbs()) {
    t.equal(examples.length, 2, name)
    for (const [command] of examples) {
      const [words = ''] = /garrison [^)>|]*/.exec(command) ?? []
      const { verb, values } = parseCommandLine(words.trim().split(' ').slice(1))
      t.equal(verb, name, command)
      t.doesNotThrow(() => checkedArgs(name, values))
    }
  }
})

t.test('command lines', async (t) => {
  t.match(parseCommandLine([]), { verb: null, help: true })
  t.match(parseCommandLine(['help']), { verb: null, help: true })
  t.match(parseCommandLine(['help', 'apply']), { verb: 'apply', help: true })
  t.match(parseCommandLine(['--version']), { verb: 'version' })
  t.match(parseCommandLine(['--json', 'status', '--fresh']), {
    verb: 'status',
    json: true,
    values: { fresh: true },
  })
  t.match(parseCommandLine(['--only', 'array', 'plan']), { verb: 'plan', values: { only: 'array' } })
  t.match(parseCommandLine(['vm', '--tag', 'role=web', 'start']), {
    verb: 'vm start',
    values: { tag: ['role=web'] },
  })
  t.match(parseCommandLine(['jobs', '--host', 'site-2', 'follow']), { verb: 'jobs follow', host: 'site-2' })
  t.match(parseCommandLine(['drives', 'show', 'sda']), { verb: 'drives show', values: { drive: 'sda' } })
  t.match(parseCommandLine(['why', 'volumes', 'images']), {
    verb: 'why',
    values: { subject: 'volumes', name: 'images' },
  })
  t.match(parseCommandLine(['apply', '--allow=disruptive']), { values: { allow: 'disruptive' } })
  t.match(parseCommandLine(['check', '--', '--odd.yaml']), { values: { file: '--odd.yaml' } })
  for (const [line, message] of [
    ['stauts', 'there is no verb stauts; did you mean status?'],
    ['template', 'template needs a word after it: list, show, check, new'],
    ['drives shwo sda', 'drives takes no further word: shwo'],
    ['apply --alow safe', '--alow is not a flag of apply; did you mean --allow?'],
    ['apply --allow', '--allow needs a value: RISK'],
    ['status --fresh=yes', '--fresh takes no value'],
    ['apply --only array --only root', '--only is given twice'],
    ['--fresh', '--fresh needs a verb before it'],
    ['status -x', '-x is not a flag of status'],
    ['status now', 'status takes no further word: now'],
  ] as const)
    t.throws(() => parseCommandLine(line.split(' ')), { message }, line)
})

t.test('arguments are checked alike whoever gives them', async (t) => {
  t.same(checkedArgs('apply', {}), { allow: undefined, only: undefined })
  t.same(checkedArgs('status', { fresh: true }), { fresh: true })
  for (const [name, values, message] of [
    [
      'apply',
      { allow: 'destroy-data' },
      /one of safe, disruptive, destroys-data, not destroy-data; did you mean destroys-data/,
    ],
    ['apply', { onli: 'array' }, /no argument onli; did you mean only/],
    ['drives show', {}, /needs DRIVE/],
    ['status', [], /one JSON object/],
    ['status', { toString: true }, /no argument toString/],
    ['why', { subject: 'drive', name: 7 }, /a text of one line/],
    ['why', { subject: 'drive', name: '' }, /a text of one line/],
  ] as const)
    t.throws(() => checkedArgs(name, values), { code: 'request.invalid', message })
  t.same(doorNeeded('apply', { allow: 'destroys-data', only: undefined }), {
    door: 'admin',
    by: 'apply --allow destroys-data',
  })
  t.match(doorNeeded('apply', { allow: 'disruptive', only: undefined }), { door: 'operate' })
  t.match(doorNeeded('plan', { only: undefined, desired: '/x' }), { door: 'local' })
})

t.test('help fits one screen of 80 columns', async (t) => {
  for (const name of [null, ...shownVerbs().map(([shown]) => shown)]) {
    const lines = helpText(name, plain).split('\n')
    t.ok(lines.length <= 30, `${name}: ${lines.length} lines`)
    for (const line of lines) t.ok(line.length <= 80, line)
  }
})

t.test('the man page is without fault', async (t) => {
  const page = manPage('1.2.3')
  const folder = t.testdir({ 'garrison.8': page })
  const { status, stderr, stdout } = spawnSync(
    '/usr/bin/groff',
    ['-ww', '-man', '-Tutf8', join(folder, 'garrison.8')],
    { encoding: 'utf8' },
  )
  t.equal(status, 0)
  t.equal(stderr, '')
  for (const [name] of shownVerbs()) t.match(stdout.replace(/\u001b\[\d*m/g, ''), `garrison ${name}`)
})

t.test('bash completes from the table', async (t) => {
  const folder = t.testdir({ script: completionScript('bash') })
  const bin = join(folder, 'bin')
  mkdirSync(bin)
  writeFileSync(
    join(bin, 'garrison'),
    `#!/bin/sh\necho '{"drives":[{"serial":"AWS1A01"},{"serial":"AWS1A02"}]}'\n`,
  )
  chmodSync(join(bin, 'garrison'), 0o755)
  const complete = (...words: readonly string[]): string => {
    const { stdout, stderr } = spawnSync(
      '/bin/bash',
      [
        '--norc',
        '-c',
        `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _garrison; echo "\${COMPREPLY[*]}"`,
        join(folder, 'script'),
        ...words,
      ],
      { encoding: 'utf8', env: { PATH: `${bin}:/usr/bin:/bin` } },
    )
    t.equal(stderr, '')
    return stdout.trim()
  }
  t.equal(complete('garrison', 'st'), 'status')
  t.equal(complete('garrison', '--json', 'st'), 'status')
  t.equal(complete('garrison', 'apply', '--al'), '--allow')
  t.equal(complete('garrison', 'apply', '--allow', ''), 'safe disruptive destroys-data')
  t.equal(complete('garrison', 'apply', '--only', 'vo'), 'volumes')
  t.equal(complete('garrison', 'drives', ''), 'show replace')
  t.equal(complete('garrison', 'drives', 'replace', 'x', ''), 'AWS1A01 AWS1A02')
  t.equal(complete('garrison', 'why', 'drive', 'AWS'), 'AWS1A01 AWS1A02')
  t.notMatch(complete('garrison', ''), /operate|stop/)
})
