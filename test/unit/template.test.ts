// Templates of VMs: what a file may say, how a declaration is made whole from one, and where each mistake is told.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkedArgs, parseCommandLine } from '../../agent/api/arguments.ts'
import type { Parts } from '../../agent/api/context.ts'
import { loadLocal } from '../../agent/verbs/index.ts'
import * as templateNew from '../../agent/verbs/template-new.ts'
import { parseDocument } from '../../provisioning/document.ts'
import { HostError } from '../../provisioning/problem.ts'
import { machineSchema } from '../../provisioning/vms/schema.ts'
import {
  catalogueOf,
  compareVersions,
  expandTemplates,
  readTemplate,
  templateProblems,
} from '../../provisioning/vms/template.ts'
import type { DocumentFile } from '../../provisioning/written.ts'

const base = `name: base
version: 1.2.0
description: A VM to build on
parameters:
  cpus: { type: integer, description: Virtual CPUs, default: 2, minimum: 1, maximum: 8 }
  memory: { type: size, description: Memory, default: 2GiB, minimum: 512MiB, maximum: 64GiB }
  quiet: { type: boolean, description: No console, default: false }
vm:
  cpus: \${cpus}
  memory: \${memory}
  console: { serial: true }
  disks:
    root: { size: 20GiB, bus: virtio }
  nics: { lan: {} }
`

const child = `name: web
version: 0.1.0
description: A web server
extends: base
parameters:
  role: { type: choice, description: What it does, choices: [front, back], example: front }
  title: { type: string, description: A title, default: none, maxLength: 10 }
  cpus: { type: integer, description: Virtual CPUs, default: 4, minimum: 2 }
vm:
  tags: { role: "\${role}", title: "\${title}" }
  disks:
    data: { size: 10GiB }
`

/** How a template refers to a parameter. */
const ref = (name: string): string => `\${${name}}`

const file = (path: string, text: string): DocumentFile => ({ path, text })
const shipped = [file('base.yaml', base), file('web.yaml', child)]

const parse = (text: string, own: readonly DocumentFile[] = [], theirs = shipped) =>
  parseDocument([file('host.yaml', text)], expandTemplates(catalogueOf(theirs, own)))

/** What a document is refused for, a line per mistake. */
function refusals(text: string, own: readonly DocumentFile[] = [], theirs = shipped): readonly string[] {
  try {
    parse(text, own, theirs)
  } catch (error) {
    if (error instanceof HostError) return error.message.split('\n')
    throw error
  }
  return []
}

const vm = (lines: string): string =>
  `version: 1\nvms:\n  pools: {vms: {path: /srv/vms}}\n  machines:\n    web-1:\n${lines.replace(/^/gm, '      ')}\n`

const machine = (text: string, own: readonly DocumentFile[] = [], theirs = shipped) => {
  const found = parse(text, own, theirs).vms?.machines['web-1']
  if (found === undefined) throw new Error('web-1 is not there')
  return found
}

t.test('a declaration is made whole: base, then template, then what it says itself', async (t) => {
  const made = machine(
    vm(`template: {name: web, parameters: {role: back, memory: 4GiB}}
disks: {root: {size: 40GiB}}
tags: {site: "7"}`),
  )
  t.equal(made.cpus, 4, 'the default of the template stands before that of its base')
  t.equal(made.memory, '4GiB')
  t.match(made.disks, { root: { size: '40GiB', bus: 'virtio' }, data: { size: '10GiB' } })
  t.same(Object.keys(made.disks), ['root', 'data'], 'disks keep their order')
  t.same({ ...made.tags }, { role: 'back', title: 'none', site: '7' })
  t.match(made.template, { name: 'web', version: '0.1.0', base: '1.2.0' }, 'the exact versions are told')
})

t.test('every value says which file it is from', async (t) => {
  const { sources } = parse(vm('template: {name: web, parameters: {role: back}}'))
  const at = 'vms.machines.web-1'
  t.equal(sources[`${at}.disks.root.size`], 'base.yaml:13')
  t.equal(sources[`${at}.disks.data.size`], 'web.yaml:12')
  t.equal(sources[`${at}.cpus`], 'web.yaml:8', 'a default is from where the default is')
  t.equal(sources[`${at}.tags.role`], 'host.yaml:6', 'a parameter from where its value was given')
})

t.test('a mistake is told where it was written', async (t) => {
  const refused = (lines: string) => refusals(vm(lines))
  t.same(refused('template: {name: wbe}'), [
    'host.yaml:6:24: vms.machines.web-1.template.name: unknown template "wbe"; did you mean web?',
  ])
  t.same(refused('template: {name: web}'), [
    'host.yaml:6:7: vms.machines.web-1.template.parameters.role: must be given',
  ])
  t.same(refused('template: {name: web, parameters: {rol: back}}'), [
    'host.yaml:6:42: vms.machines.web-1.template.parameters.rol: unknown key "rol"; did you mean role?',
  ])
  t.same(refused('template: {name: web, parameters: {role: side}}'), [
    'host.yaml:6:48: vms.machines.web-1.template.parameters.role: must be front or back, not the text "side"',
  ])
  t.same(refused('template: {name: base, parameters: {cpus: 9, memory: 100MiB, quiet: maybe}}'), [
    'host.yaml:6:49: vms.machines.web-1.template.parameters.cpus: must be at most 8, not the number 9',
    'host.yaml:6:60: vms.machines.web-1.template.parameters.memory: must be at least 512MiB',
    'host.yaml:6:75: vms.machines.web-1.template.parameters.quiet: must be true or false, not the text "maybe"',
  ])
  t.same(refused('template: {name: web, parameters: {role: back, title: much too long a title}}'), [
    'host.yaml:6:61: vms.machines.web-1.template.parameters.title: must have at most 10 characters',
  ])
  t.same(refused('template: {name: base, version: 1.0.0}'), [
    'host.yaml:6:39: vms.machines.web-1.template.version: base 1.0.0 is not there; there is 1.2.0',
  ])
  t.match(refused('template: {name: base}\ncpus: many'), ['host.yaml:7:13: vms.machines.web-1.cpus: must be'])
})

t.test('a mistake of the template is told in its file', async (t) => {
  const wrong = base.replace('bus: virtio', 'buss: virtio')
  t.same(refusals(vm('template: {name: base}'), [file('templates/base.yaml', wrong)]), [
    'templates/base.yaml:13:26: vms.machines.web-1.disks.root.buss: unknown key "buss"; did you mean bus?',
  ])
  t.same(
    refusals(vm('template: {name: base}'), [
      file('templates/base.yaml', base.replace('version: 1.2.0', 'version: 1.2')),
    ]),
    ['templates/base.yaml:2:10: version: must be text, not the number 1.2'],
    'a broken file hides the shipped template of its name, and says why',
  )
  t.same(refusals('version: 1', [file('templates/base.yaml', 'nothing')]), [], 'nobody asked for it')
})

t.test(
  'its own templates hide all shipped ones of the name; the newest is taken, or the one asked for',
  async (t) => {
    const versions = ['1.9.0', '1.10.0', '0.20.0'].map((version) =>
      file(
        `templates/base-${version}.yaml`,
        base
          .replace('version: 1.2.0', `version: ${version}`)
          .replace('size: 20GiB', `size: ${version.length}0GiB`),
      ),
    )
    const theirs = [file('base.yaml', base.replace('1.2.0', '2.0.0'))]
    t.match(machine(vm('template: {name: base}'), versions, theirs), {
      template: { version: '1.10.0' },
      disks: { root: { size: '60GiB' } },
    })
    t.match(machine(vm('template: {name: base, version: 0.20.0}'), versions, theirs).template, {
      version: '0.20.0',
    })
    t.match(
      machine(vm('template: {name: web, base: 1.9.0, parameters: {role: back}}'), versions).template,
      { version: '0.1.0', base: '1.9.0' },
      'the base may be chosen too',
    )
  },
)

t.test('versions are compared by their numbers', async (t) => {
  const sorted = ['0.0.1', '0.0.10', '0.1.0', '0.2.0', '0.10.0', '1.0.0', '1.0.2', '9.0.0', '10.0.0']
  for (const [at, one] of sorted.entries())
    for (const [other, two] of sorted.entries())
      t.equal(Math.sign(compareVersions(one, two)), Math.sign(at - other), `${one} ${two}`)
})

t.test('a template extends one that extends none', async (t) => {
  const third = file('third.yaml', 'name: third\nversion: 1.0.0\ndescription: x\nextends: web\nvm: {}\n')
  t.same(refusals(vm('template: {name: third}'), [third]), [
    'third.yaml:4:10: extends: web itself extends base, and a template may only extend one that does not',
  ])
  const own = file('own.yaml', 'name: own\nversion: 1.0.0\ndescription: x\nextends: own\nvm: {}\n')
  t.match(refusals(vm('template: {name: own}'), [own]), [/^own\.yaml:4:10: extends: own itself extends own/])
  const lost = file('lost.yaml', 'name: lost\nversion: 1.0.0\ndescription: x\nextends: bsae\nvm: {}\n')
  t.same(refusals(vm('template: {name: lost}'), [lost]), [
    'lost.yaml:4:10: extends: unknown template "bsae"; did you mean base?',
  ])
  const other = file(
    'other.yaml',
    'name: other\nversion: 1.0.0\ndescription: x\nextends: base\nparameters: {cpus: {type: string, description: x, default: a}}\nvm: {}\n',
  )
  t.match(refusals(vm('template: {name: other}'), [other]), [
    /^other\.yaml:5:14: parameters\.cpus: base has it as integer, not string/,
  ])
})

t.test('a parameter is a whole value, whatever characters are in it', async (t) => {
  const texts = [
    `'"]]>&amp;<!--`,
    'line one\nline two',
    `\u2028 é 🦊 ${ref('cpus')} $${ref('cpus')}`,
    '- not: a list # nor a comment',
    '../../etc/passwd',
    'x'.repeat(65_536),
    '__proto__',
  ]
  const script = `name: script
version: 1.0.0
description: x
parameters: {text: {type: string, description: x, example: a, maxLength: 65536}}
vm: {cloudInit: {userData: {runcmd: [["\${text}"]], note: "echo \${HOME} $\${text}"}}}
`
  for (const text of texts) {
    const made = machine(
      vm(
        `template: {name: script, parameters: {text: ${JSON.stringify(text).replace('\u2028', '\\u2028')}}}`,
      ),
      [file('script.yaml', script)],
    )
    t.match(made.cloudInit?.userData, { runcmd: [[text]], note: `echo ${ref('HOME')} ${ref('text')}` })
  }
  const inside = script.replace(`$${ref('text')}`, ref('text'))
  t.match(refusals(vm('template: {name: script, parameters: {text: a}}'), [file('script.yaml', inside)]), [
    /^script\.yaml:5:.*must be the whole value; for these very characters write \$\$\{text\}$/,
  ])
  const unknown = script.replace(ref('text'), ref('txet'))
  t.match(refusals(vm('template: {name: script, parameters: {text: a}}'), [file('script.yaml', unknown)]), [
    /^script\.yaml:5:.*unknown parameter "txet"; did you mean text\?$/,
  ])
})

t.test('a file that is no template says so', async (t) => {
  const said = (text: string) =>
    readTemplate(file('x.yaml', text)).problems?.map(
      ({ line, path, message }) => `${line} ${path}: ${message}`,
    )
  const whole = (parameters: string) =>
    `name: x\nversion: 1.0.0\ndescription: y\nvm: {}\nparameters:\n  one: ${parameters}\n`
  t.same(said(''), ['1 : it is empty: write at least name, version, description and vm'])
  t.match(said('- a'), [/must be a map of keys/])
  t.match(said('name: X\nversoin: 1.0.0\n'), [
    /^1 description: must be given/,
    /^1 vm: must be given/,
    /^1 name: must be a lower-case letter/,
    /^2 versoin: unknown key "versoin"; did you mean version\?/,
  ])
  t.match(said(whole('{type: float, description: x, default: 1}')), [
    /^6 parameters\.one\.type: must be string, integer, size, boolean or choice, not the text "float"/,
  ])
  t.match(said(whole('{type: integer, description: x, default: 1, minimun: 1}')), [
    /^6 parameters\.one\.minimun: unknown key "minimun"; did you mean minimum\?/,
  ])
  t.match(said(whole('{type: integer, description: x}')), [/must have exactly one of default and example/])
  t.match(said(whole('{type: integer, description: x, default: 9, maximum: 8}')), [
    /^6 parameters\.one\.default: must be at most 8, not the number 9/,
  ])
  t.match(said(whole('{type: choice, description: x, choices: [a], example: b}')), [
    /^6 parameters\.one\.example: must be a, not the text "b"/,
  ])
  t.match(said(whole('{type: size, description: x, default: 1GiB, maximum: 1GB}')), [/must be a size/])
  t.match(said('!!js/function x: y'), [/tags|map of keys/])
})

t.test('the templates that ship are valid, each by itself', async (t) => {
  const folder = join(import.meta.dirname, '../../packaging/templates')
  const files = readdirSync(folder).map((name) => file(name, readFileSync(join(folder, name), 'utf8')))
  const catalogue = catalogueOf(files, [])
  t.same(catalogue.broken, [])
  t.same(
    catalogue.templates.map(({ name }) => name),
    ['appliance', 'database', 'linux-server', 'windows-server'],
  )
  for (const template of catalogue.templates) {
    t.equal(template.file, `${template.name}.yaml`)
    t.same(templateProblems(catalogue, template, machineSchema), [], template.name)
  }
})

t.test('a template is tried with its defaults and examples', async (t) => {
  const problems = (text: string) => {
    const catalogue = catalogueOf(shipped, [file('tried.yaml', text)])
    const template = catalogue.templates.find(({ file }) => file === 'tried.yaml')
    if (template === undefined) throw new Error('not read')
    return templateProblems(catalogue, template, machineSchema).map(
      ({ line, path, message }) => `${line} ${path}: ${message}`,
    )
  }
  t.same(problems(child), [])
  t.match(problems(child.replace('10GiB', '10GB')), [/^12 vm\.disks\.data\.size: must be a size/])
  t.match(problems(child.replace('size: 10GiB', 'bus: ide')), [/vm\.disks\.data\.bus: must be/])
  t.match(problems(child.replace(ref('role'), ref('rule'))), [
    /^10 vm\.tags\.role: unknown parameter "rule"; did you mean role/,
  ])
})

t.test('the page about templates shows what happens', async (t) => {
  const folder = join(import.meta.dirname, '../../packaging/templates')
  const catalogue = catalogueOf(
    readdirSync(folder).map((name) =>
      file(`/usr/share/garrison/templates/${name}`, readFileSync(join(folder, name), 'utf8')),
    ),
    [],
  )
  const page = readFileSync(join(import.meta.dirname, '../../docs/usage/templates.md'), 'utf8')
  const parts = async () => ({ templates: async () => catalogue }) as unknown as Parts
  const before = process.cwd()
  const within = t.testdir({})
  process.chdir(within)
  t.teardown(() => process.chdir(before))
  let shown = 0
  for (const [, language, name, text = ''] of page.matchAll(/^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm)) {
    if (language === 'yaml' && name !== undefined) {
      writeFileSync(name, text)
      if (name === 'host.yaml') {
        const { vms } = parseDocument([file(name, text)], expandTemplates(catalogue))
        t.match(vms?.machines, {
          'web-1': { memory: '4GiB', nics: { lan: {} } },
          'web-2': { memory: '8GiB', nics: { lan: { network: 'default' }, back: { bridge: 'br-back' } } },
        })
      }
    }
    if (language !== 'console') continue
    const [first = '', ...output] = text.trimEnd().split('\n')
    const line = parseCommandLine(first.replace(/^\$ garrison /, '').split(' '))
    if (line.verb === null) throw new Error(first)
    const verb = await loadLocal(line.verb)
    const answer = await verb?.run(checkedArgs(line.verb, line.values), { parts })
    const said = verb?.render(answer, { colour: false, live: false, nowMs: 0 }) ?? ''
    t.equal(said, output.join('\n'), first)
    shown += 1
  }
  t.equal(shown, 5)
})

t.test('a new template is valid as it is, and never written over', async (t) => {
  const within = t.testdir({})
  const catalogue = catalogueOf(shipped, [])
  const parts = async () => ({ templates: async () => catalogue }) as unknown as Parts
  const make = (name: string, base?: string) =>
    templateNew.run({ file: join(within, name), extends: base, templates: undefined }, { parts })
  for (const [name, base] of [['one.yaml'], ['two.yaml', 'base']] as const) {
    await make(name, base)
    const read = readTemplate(file(name, readFileSync(join(within, name), 'utf8')))
    if (read.problems) throw new Error(JSON.stringify(read.problems))
    t.same(templateProblems(catalogue, read.value, machineSchema), [])
    await t.rejects(make(name, base), { code: 'file.exists' })
  }
  await t.rejects(make('three.yaml', 'bsae'), { code: 'template.unknown', message: /did you mean base\?$/ })
  await t.rejects(make('three.yaml', 'web'), { code: 'request.invalid', message: /web itself extends base/ })
  for (const name of ['three.yml', 'Three.yaml', '.yaml', 'a b.yaml'])
    await t.rejects(make(name), { code: 'request.invalid' }, name)
  t.same(readdirSync(within).sort(), ['one.yaml', 'two.yaml'])
})
