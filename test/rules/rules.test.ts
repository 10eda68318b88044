// The house rules, each proved first to find a planted violation and to leave a lawful sample alone, then held against every file.

import { dirname, join } from 'node:path'
import t from 'tap'
import { bareCodeOf, codeOf, importsOf, namesFrom, type Source, sources } from './sources.ts'

/** A rule names what is wrong, one text per violation. Planted samples must be found one by one, lawful ones must not be. */
interface Rule {
  readonly name: string
  find(files: readonly Source[]): readonly string[]
  readonly planted: readonly (readonly Source[])[]
  readonly lawful: readonly (readonly Source[])[]
}

const file = (path: string, text: string): readonly Source[] => [{ path, text }]

const isTypeScript = ({ path }: Source): boolean => path.endsWith('.ts')
const isProduct = ({ path }: Source): boolean => /^(agent|provisioning)\/.*\.ts$/.test(path)
const isProvisioning = ({ path }: Source): boolean => /^provisioning\/.*\.ts$/.test(path)

/** A rule over the lines of the files that it is for. */
const lines =
  (isFor: (file: Source) => boolean, read: (text: string) => string, isWrong: (line: string) => boolean) =>
  (files: readonly Source[]): readonly string[] =>
    files.filter(isFor).flatMap(({ path, text }) =>
      read(text)
        .split('\n')
        .flatMap((line) => (isWrong(line) ? [`${path}: ${line.trim()}`] : [])),
    )

const whole = (text: string): string => text

const targetOf = (path: string, target: string): string =>
  target.startsWith('.') ? join(dirname(path), target) : target

/** What several resources share is in folders of its own, which know no resource. */
const shared = ['block', 'libvirt', 'link', 'systemd']

/** Why a module may not import another, or null. The direction is: agent/verbs and main -> agent/* -> provisioning -> nothing. */
function importObjection(path: string, target: string): string | null {
  const [top = '', folder = ''] = path.split('/')
  const [targetTop = '', targetFolder = ''] = target.split('/')
  if (top === 'provisioning') {
    if (!target.startsWith('provisioning/'))
      return ['zod', 'yaml', 'fast-xml-parser', 'node:crypto'].includes(target)
        ? null
        : 'provisioning is pure and imports nothing that is not'
    const resource = path.split('/').length > 2 && !shared.includes(folder) ? folder : null
    const targetResource =
      target.split('/').length > 2 && !shared.includes(targetFolder) ? targetFolder : null
    if (targetResource === null || targetResource === resource) return null
    return resource === null
      ? path === 'provisioning/index.ts' ||
        (path === 'provisioning/desired.ts' && target === `provisioning/${targetResource}/schema.ts`)
        ? null
        : 'only provisioning/index.ts knows the resources'
      : 'resources do not import each other'
  }
  if (top !== 'agent') return null
  if (['test', 'packaging'].includes(targetTop)) return 'the product does not import its tests or packaging'
  if (folder === 'node-libvirt' && !target.startsWith('agent/node-libvirt/'))
    return targetTop === 'agent' || targetTop === 'provisioning'
      ? 'node-libvirt imports nothing of ours'
      : null
  const isRoot = path.split('/').length === 2 || folder === 'verbs'
  // What does things to VMs is made on the client of libvirt, as others would use it.
  if (folder === 'vms' && target === 'agent/node-libvirt/index.ts') return null
  // The one door to the disk is everybody's; so is what the verbs say of themselves.
  if (isRoot || targetTop !== 'agent' || folder === targetFolder || target === 'agent/host/files.ts')
    return null
  return 'siblings of agent meet only in the composition roots'
}

/** What may be had of node:fs outside agent/host/files.ts, which is the only file that writes. */
const reading =
  /^(access|constants|existsSync|FileHandle|FSWatcher|lstat|open|readdir|readdirSync|readFile|readFileSync|readlink|realpath|realpathSync|stat|statfs|statSync|watch)$/

/** Writers that are no files of the host, with what they write instead. */
const otherWriters: Readonly<Record<string, string>> = {
  'agent/main.ts writeSync': 'its own standard output',
  'agent/operate.ts chmod': 'a socket that it has just made',
  'agent/daemon.ts chmod': 'a socket that it has just made',
}

const declared = /\b(?:const|let|function|class|interface|type)\s+(\w+)/g

const region = 'us|eu|ap|sa|ca|me|af|il|mx|cn'
const place = 'north|south|east|west|central|northeast|northwest|southeast|southwest'

const rules: readonly Rule[] = [
  {
    name: 'imports go one way',
    find: (files) =>
      files.filter(isProduct).flatMap(({ path, text }) =>
        importsOf(text).flatMap((target) => {
          const objection = importObjection(path, targetOf(path, target))
          return objection === null ? [] : [`${path} imports ${target}: ${objection}`]
        }),
      ),
    planted: [
      file('provisioning/array/plan.ts', "import { plan } from '../volumes/plan.ts'"),
      file('provisioning/array/plan.ts', "import {\n  type A,\n  b,\n} from '../../agent/host/exec.ts'"),
      file('provisioning/engine.ts', "import { readFile } from 'node:fs/promises'"),
      file('provisioning/desired.ts', "import { plan } from './vms/plan.ts'"),
      file('provisioning/engine.ts', "const { plan } = await import('./array/plan.ts')"),
      file('provisioning/block/lvm.ts', "export * from '../array/mdadm.ts'"),
      file('provisioning/root/plan.ts', "import { execa } from 'execa'"),
      file('agent/api/server.ts', "import { Journal } from '../journal/journal.ts'"),
      file('agent/host/perform.ts', "import '../../test/lab/guest.ts'"),
      file('agent/node-libvirt/client.ts', "import { HostError } from '../../provisioning/problem.ts'"),
      file('agent/vms/stop.ts', "import { Rpc } from '../node-libvirt/rpc.ts'"),
      file('agent/vms/stop.ts', "import { execute } from '../host/exec.ts'"),
    ],
    lawful: [
      file(
        'provisioning/array/plan.ts',
        "import { z } from 'zod'\nimport { lsblk } from '../block/lsblk.ts'\nimport type { Step } from '../resource.ts'",
      ),
      file('provisioning/index.ts', "import { array } from './array/index.ts'"),
      file('provisioning/desired.ts', "import { vmsSchema } from './vms/schema.ts'"),
      file('agent/verbs/plan.ts', "import { Journal } from '../journal/journal.ts'"),
      file('agent/journal/journal.ts', "import { appendLine } from '../host/files.ts'"),
      file('agent/vms/stop.ts', "import type { Connection } from '../node-libvirt/index.ts'"),
    ],
  },
  {
    name: 'only agent/host/exec.ts starts processes',
    find: (files) =>
      files
        .filter((one) => isProduct(one) && one.path !== 'agent/host/exec.ts')
        .flatMap(({ path, text }) => [
          ...importsOf(text)
            .filter((target) =>
              /^(node:)?(child_process|cluster|worker_threads)$|^(execa|node-pty)$/.test(target),
            )
            .map((target) => `${path} imports ${target}`),
          // node:tty is had in this way where an import would cost every start.
          ...(
            codeOf(text).match(
              /\bprocess\.(binding|dlopen|execve|getBuiltinModule\((?!'node:tty'\)))|\brequire\(/g,
            ) ?? []
          ).map((way) => `${path} has ${way}`),
        ]),
    planted: [
      file('agent/verbs/plan.ts', "import { spawn } from 'node:child_process'"),
      file('agent/host/perform.ts', "import { execa } from 'execa'"),
      file('agent/host/imds.ts', "const { exec } = await import('node:child_process')"),
      file('agent/host/imds.ts', "process.getBuiltinModule('child_process')"),
    ],
    lawful: [file('agent/host/exec.ts', "import { execa } from 'execa'")],
  },
  {
    name: 'only agent/host/files.ts writes files',
    find: (files) =>
      files
        .filter((one) => isProduct(one) && one.path !== 'agent/host/files.ts')
        .flatMap(({ path, text }) => [
          ...namesFrom(text, /^(node:)?fs(\/promises)?$/)
            .filter((name) => !reading.test(name) && otherWriters[`${path} ${name}`] === undefined)
            .map((name) => `${path} imports ${name}`),
          ...importsOf(text)
            .filter((target) => /^(node:sqlite|node:v8|node:inspector)$|^fs-extra$/.test(target))
            .map((target) => `${path} imports ${target}`),
          ...(/\bimport\(\s*'(node:)?fs/.test(text) ? [`${path} imports node:fs at run time`] : []),
          ...(codeOf(text).match(/(?<![.\w])open\((?!.*\))?[^)]*\)/g) ?? [])
            .filter((call) => /O_WRONLY|O_RDWR|O_CREAT|O_APPEND|O_TRUNC|'(r\+|[aw])/.test(call))
            .map((call) => `${path} opens to write: ${call}`),
        ]),
    planted: [
      file('agent/journal/journal.ts', "import { appendFile } from 'node:fs/promises'"),
      file('agent/journal/journal.ts', "import { open, readdir, rm as remove } from 'node:fs/promises'"),
      file('agent/verbs/record.ts', "import * as fs from 'node:fs'"),
      file('agent/verbs/record.ts', "import fs from 'fs'"),
      file('agent/verbs/record.ts', "const { rm } = await import('node:fs/promises')"),
      file('agent/report/spool.ts', "import { DatabaseSync } from 'node:sqlite'"),
      file(
        'agent/host/lock.ts',
        "import { open } from 'node:fs/promises'\nawait open(path, constants.O_RDWR | constants.O_CREAT)",
      ),
      file('agent/host/lock.ts', "import { open } from 'node:fs/promises'\nawait open(path, 'a')"),
    ],
    lawful: [
      file('agent/host/files.ts', "import { open, rename } from 'node:fs/promises'"),
      file(
        'agent/host/linux-host.ts',
        "import { type FileHandle, open, stat } from 'node:fs/promises'\nawait open(path, constants.O_RDONLY | constants.O_EXCL)",
      ),
    ],
  },
  {
    name: 'provisioning has no clock, no chance, no process and no output',
    find: (files) => [
      ...lines(isProvisioning, bareCodeOf, (line) =>
        /(?<![.\w])(Date|performance|process|setTimeout|setInterval|setImmediate|fetch|console|globalThis|navigator|WebSocket|crypto)(?=[.(;)\]\s])(?!\s*[:=])|\bMath\.random\b|\bimport\.meta\b/.test(
          line,
        ),
      )(files),
      ...files.filter(isProvisioning).flatMap(({ path, text }) =>
        namesFrom(text, /^node:crypto$/)
          .filter((name) => name !== 'createHash')
          .map((name) => `${path} imports ${name} of node:crypto`),
      ),
    ],
    planted: [
      file('provisioning/engine.ts', 'const startedMs = Date.now()'),
      file('provisioning/array/plan.ts', 'const now = new Date()'),
      file('provisioning/array/plan.ts', 'if (Math.random() < 0.5) return []'),
      file('provisioning/array/plan.ts', 'const home = process.env.HOME'),
      file('provisioning/array/observe.ts', 'const answer = await fetch(url)'),
      file('provisioning/array/check.ts', 'console.log(observed)'),
      file('provisioning/array/observe.ts', "import { createHash, randomUUID } from 'node:crypto'"),
      file('provisioning/array/observe.ts', 'crypto.getRandomValues(bytes)'),
      file('provisioning/array/plan.ts', `const id = \`\${kind}-\${Date.now()}\``),
    ],
    lawful: [
      file(
        'provisioning/array/plan.ts',
        "import { createHash } from 'node:crypto'\n// Date.now() would not do.\nconst text = 'the process was killed: fetch it'\nconst process = 1",
      ),
      file(
        'provisioning/array/plan.ts',
        `const text = \`held by process \${pid}\${name ? \` (\${name}, a process )\` : ''} in process\``,
      ),
    ],
  },
  {
    name: 'a file opens with a sentence about itself',
    find: (files) =>
      files
        .filter(isTypeScript)
        .flatMap(({ path, text }) =>
          /^(#!.*\n)?(\/\/ .*\n)*?\/\/ .*[.:)](\n|$)/.test(text) ? [] : [`${path} does not`],
        ),
    planted: [
      file('agent/main.ts', "import t from 'tap'\n"),
      file('agent/main.ts', '// no sentence\nconst a = 1\n'),
      file('agent/main.ts', "import t from 'tap'\n// Too late.\n"),
    ],
    lawful: [
      file('agent/main.ts', '// Does this,\n// and that.\nconst a = 1\n'),
      file('agent/main.ts', '#!/usr/bin/env node\n// Does this.\n'),
    ],
  },
  {
    name: 'every export has a doc comment',
    find: (files) =>
      files.filter(isTypeScript).flatMap(({ path, text }) =>
        text.split('\n').flatMap((line, index, all) => {
          const isExport =
            /^export (default |async |abstract )*(const|let|function|class|interface|type(?! \{))\b/.test(
              line,
            )
          // An overload is documented at its first signature.
          const before = all[index - 1] ?? ''
          const name = /\bfunction (\w+)/.exec(line)?.[1]
          const overload = name !== undefined && before.startsWith(`export function ${name}(`)
          return isExport && !/\*\/\s*$/.test(before) && !overload ? [`${path}: ${line}`] : []
        }),
      ),
    planted: [
      file('agent/main.ts', '\nexport const a = 1\n'),
      file('agent/main.ts', '// not a doc comment\nexport async function a() {}\n'),
      file('agent/main.ts', '/** of another */\n\nexport interface A {}\n'),
    ],
    lawful: [file('agent/main.ts', '/** One. */\nexport const a = 1\nexport type { B } from "./b.ts"\n')],
  },
  {
    name: 'nothing is left to do',
    find: lines(
      ({ path }) => !path.startsWith('test/rules/'),
      whole,
      (line) =>
        /(\/\/|\*|#|<!--).*\b(TODO|FIXME|XXX|HACK)\b/.test(line) && !/[/([|](SKIP\||TODO\\b)/.test(line),
    ),
    planted: [
      file('agent/main.ts', 'const a = 1 // TODO mend'),
      file('systemd/x.service', '# FIXME: later'),
      file('agent/main.ts', '/**\n * HACK around it.\n */'),
      file('docs/x.md', '<!-- TODO: write -->'),
    ],
    lawful: [file('agent/main.ts', "const tapTodo = 'TODO'")],
  },
  {
    name: 'no code is commented out',
    find: lines(isTypeScript, whole, (line) =>
      /^\s*\/\/\s*(import\s.+\bfrom\b|export\s+(const|function|type|interface)|(const|let|var)\s+\S+\s*=|return\b.*[;)\]}]$|if\s*\(.*\)\s*(\{|return|throw)?$|for\s*\(|while\s*\(|\}\s*(else.*)?$|(await|throw|yield)\s+\w+\S*\(|[\w.]+\(.*\)[;,]?$|[\w.]+\s*=\s*\S+;?$)/.test(
        line,
      ),
    ),
    planted: [
      file('agent/main.ts', "// import t from 'tap'"),
      file('agent/main.ts', '  // const a = 1'),
      file('agent/main.ts', '  // return plan(observed)'),
      file('agent/main.ts', '    // await perform(action)'),
      file('agent/main.ts', '    // }'),
      file('agent/main.ts', '// t.equal(a, b)'),
      file('agent/main.ts', '// if (a) {'),
    ],
    lawful: [
      file(
        'agent/main.ts',
        '// Returns early, since plan() may be slow (it reads the host).\n// For each one, and if not, none.',
      ),
    ],
  },
  {
    name: 'every code of the table is used, and every remedy says something',
    find: (files) => {
      const table = files.find(({ path }) => path === 'provisioning/problem.ts')?.text ?? ''
      const rows = [...table.matchAll(/^ {2}'([a-z-]+\.[a-z-]+)': \{\n([\s\S]*?)^ {2}\},/gm)]
      const used = files
        .filter((one) => isProduct(one) && one.path !== 'provisioning/problem.ts')
        .map(({ text }) => codeOf(text))
        .join('\n')
      return rows.flatMap(([, code = '', row = '']) => [
        ...(used.includes(`'${code}'`) ? [] : [`${code} is in the table and never used`]),
        ...(/remedy:\s*(['"`]).{20,}/.test(row) ? [] : [`${code} has no remedy to speak of`]),
      ])
    },
    planted: [
      [
        {
          path: 'provisioning/problem.ts',
          text: "  'a.b': {\n    remedy: 'Look at it, then mend it.',\n  },\n",
        },
        { path: 'agent/main.ts', text: "// 'a.b'\n" },
      ],
      [
        { path: 'provisioning/problem.ts', text: "  'a.b': {\n    remedy: 'Mend it.',\n  },\n" },
        { path: 'agent/main.ts', text: "throw new HostError('a.b', 'gone')\n" },
      ],
    ],
    lawful: [
      [
        {
          path: 'provisioning/problem.ts',
          text: "  'a.b': {\n    remedy: 'Look at it, then mend it.',\n  },\n",
        },
        { path: 'agent/main.ts', text: "throw new HostError('a.b', 'gone')\n" },
      ],
    ],
  },
  {
    name: 'every code of a HostError, a refusal or a blocked step is in the table',
    find: (files) => {
      const table = files.find(({ path }) => path === 'provisioning/problem.ts')?.text ?? ''
      return files
        .filter(isProduct)
        .flatMap(({ path, text }) =>
          [
            ...codeOf(text).matchAll(
              /(?:new HostError\(|\bblocked\(|\brefuse\(|\bremedyOf\(|\berror\.code === |\bcode !== )\s*'([a-z-]+\.[a-z-]+)'/g,
            ),
          ].flatMap(([, code = '']) => (table.includes(`  '${code}': {`) ? [] : [`${path}: ${code}`])),
        )
    },
    planted: [
      file('agent/main.ts', "throw new HostError('no.such', 'gone')"),
      file('agent/main.ts', "if (error.code === 'no.such') return null"),
      file('provisioning/a/plan.ts', "blocked(\n  'no.such',\n  'text')"),
    ],
    lawful: [
      [
        { path: 'provisioning/problem.ts', text: "  'a.b': {\n" },
        { path: 'agent/main.ts', text: "throw new HostError('a.b', 'gone')\n" },
      ],
    ],
  },
  {
    name: 'no region, account, instance or address of one place',
    find: lines(
      ({ path }) => !path.startsWith('test/rules/'),
      whole,
      (line) =>
        new RegExp(`\\b(${region})(-gov|-iso[a-z]?)?-(${place})-\\d[a-z]?\\b`).test(line) ||
        /\barn:aws|(?<![\w-])\d{12}(?=['":/])|\b(i|eni|vol|subnet|vpc|ami)-0(?!123456789abcdef)[0-9a-f]{7,}\b/.test(
          line,
        ),
    ),
    planted: [
      file('agent/host/ec2.ts', "const region = 'us-west-2'"),
      file('docs/x.md', 'in eu-central-1a'),
      file('agent/host/ec2.ts', "'us-gov-east-1'"),
      file('agent/host/ec2.ts', "'arn:aws:outposts:x'"),
      file('docs/x.md', 'vol-0abcdef1234567890'),
    ],
    lawful: [file('agent/host/ec2.ts', "const wave = 'us-first'\nconst id = 'i-…'")],
  },
  {
    name: 'no drive, interface or path of one host in the product',
    find: lines(isProduct, codeOf, (line) =>
      /['"`/](nvme\d+n\d+|[sv]d[a-z]\d*|xvd[a-z]\d*|md\d+|dm-\d+|eth\d|en[ops]\d\w*)\b|\/(home|Users)\/\w/.test(
        line,
      ),
    ),
    planted: [
      file('provisioning/array/plan.ts', "const drive = '/dev/nvme1n1'"),
      file('provisioning/array/plan.ts', "const drive = 'sda'"),
      file('provisioning/array/plan.ts', "const path = '/dev/md127'"),
      file('agent/host/imds.ts', "const lni = 'eth1'"),
      file('agent/main.ts', "readFile('/home/me/x')"),
    ],
    lawful: [
      file('provisioning/array/plan.ts', "// nvme0n1 on one host\nconst at = path.startsWith('/dev/md/')"),
    ],
  },
  {
    name: 'no host name of a registry or mirror',
    find: lines(
      ({ path }) => !path.startsWith('test/rules/'),
      whole,
      (line) =>
        /\b((registry|deb|security|ftp|archive|mirrors?|proxy|download|dl)\.[a-z-]+\.(org|com|net|io))\b/.test(
          line,
        ),
    ),
    planted: [
      file('test/lab/image.ts', "'http://deb.example.org/debian'"),
      file('README.md', 'npm --registry https://registry.example.org'),
    ],
    lawful: [file('README.md', 'from the machine’s own apt sources')],
  },
  {
    name: 'no folder is called lib, utils or common',
    find: (files) =>
      files
        // systemd/ is laid out as it is installed.
        .filter(({ path }) => !path.startsWith('systemd/'))
        .flatMap(({ path }) =>
          dirname(path)
            .split('/')
            .some((folder) =>
              /^(lib|libs|utils?|common|helpers?|misc|shared|managers?|services?)$/.test(folder),
            )
            ? [path]
            : [],
        ),
    planted: [file('agent/utils/x.ts', ''), file('provisioning/array/common/x.ts', ''), file('lib/x.ts', '')],
    lawful: [file('systemd/usr/lib/x.conf', ''), file('agent/node-libvirt/x.ts', '')],
  },
  {
    name: 'names say what a thing is',
    find: (files) =>
      files
        .filter((one) => isProduct(one) && !/^agent\/verbs\/(fleet-)?status\.ts$/.test(one.path))
        .flatMap(({ path, text }) => [
          ...(/(^|\/|-)(state|status|info|data|manager|service|handler|utils?|helpers?|common|misc|lib)\.ts$/.test(
            path,
          ) &&
          // Named as the tool that it speaks to.
          !path.endsWith('/xfs-info.ts')
            ? [path]
            : []),
          ...[...codeOf(text).matchAll(declared)]
            .map(([, name = '']) => name)
            .filter(
              (name) =>
                /^(state|info|data|manager|service|handler|utils?|helpers?|misc|lib)$/.test(name) ||
                (/(State|Info|Data|Manager|Handler|Utils?|Helper|Misc)$/.test(name) &&
                  !/[xX]fsInfo$/.test(name)),
            )
            .map((name) => `${path}: ${name}`),
        ]),
    planted: [
      file('agent/host/state.ts', ''),
      file('agent/host/drive-helpers.ts', ''),
      file('agent/host/x.ts', 'const data = 1'),
      file('agent/host/x.ts', 'class VolumeManager {}'),
      file('agent/host/x.ts', 'interface DriveInfo {}'),
    ],
    lawful: [file('agent/host/x.ts', 'const services = 1\nconst database = 2')],
  },
  {
    name: 'no test is left out or alone',
    find: lines(
      ({ path }) => /^test\/.*\.ts$/.test(path) && !path.startsWith('test/rules/'),
      codeOf,
      (line) =>
        /\bt\.(test\.)?(only|skip|todo)\(|\b(skip|only|todo): true\b|\bt\.mock|\bmock(Import|Require)\b/.test(
          line,
        ),
    ),
    planted: [
      file('test/unit/x.test.ts', "t.only('x', () => {})"),
      file('test/unit/x.test.ts', "t.test.skip('x')"),
      file('test/unit/x.test.ts', "t.test('x', { skip: true }, () => {})"),
      file('test/unit/x.test.ts', "t.todo('x')"),
      file('test/unit/x.test.ts', "const { a } = await t.mockImport('../a.ts')"),
    ],
    lawful: [file('test/unit/x.test.ts', "t.test('x', { skip: !isRoot && 'needs root' }, () => {})")],
  },
  {
    name: 'the product does not ask whether it is being tested',
    find: lines(isProduct, codeOf, (line) =>
      /NODE_ENV|\bTAP\b|process\.env\.(CI|TEST)|\bisTest\b/.test(line),
    ),
    planted: [
      file('agent/main.ts', "if (process.env.NODE_ENV === 'test') return"),
      file('agent/main.ts', 'if (process.env.TAP) return'),
    ],
    lawful: [file('agent/main.ts', 'const { HOME } = process.env')],
  },
  {
    name: 'no error is dropped without a word',
    find: (files) =>
      files.filter(isProduct).flatMap(({ path, text }) =>
        text.split('\n').flatMap((line, index, all) => {
          const drops =
            /\bcatch\s*(\([^)]*\))?\s*\{\s*\}|\.catch\(\(\w*\)\s*=>\s*(\{\s*\}|undefined|null|false)\)/.test(
              line,
            ) ||
            (/\bcatch\s*(\([^)]*\))?\s*\{$/.test(line) && /^\s*\}/.test(all[index + 1] ?? ''))
          return drops && !/^\s*(\/\/|\*)/.test(all[index - 1] ?? '') ? [`${path}: ${line.trim()}`] : []
        }),
      ),
    planted: [
      file('agent/main.ts', 'try {\n  a()\n} catch {}'),
      file('agent/main.ts', 'try {\n  a()\n} catch (error) {\n}'),
      file('agent/main.ts', 'await a().catch(() => {})'),
      file('agent/main.ts', 'await a().catch(() => undefined)'),
    ],
    lawful: [
      file(
        'agent/main.ts',
        '// Its caller is told by another way.\nconst next = last.catch(() => undefined)',
      ),
      file('agent/main.ts', '} catch (cause) {\n  throw new HostError(code, text, { cause })\n}'),
    ],
  },
  {
    name: 'no shell, and every program by its absolute path',
    find: lines(isProduct, codeOf, (line) =>
      /\bshell: true|['"](\/usr)?\/bin\/((ba|da|z)?sh|env)['"]|\bargv: \[['"](?!\/)|\brun\(\[['"](?!\/)/.test(
        line,
      ),
    ),
    planted: [
      file('agent/host/exec.ts', 'execa(file, args, { shell: true })'),
      file('provisioning/x/plan.ts', "['/bin/sh', '-c', text]"),
      file('provisioning/x/plan.ts', "{ kind: 'run', argv: ['mdadm'] }"),
      file('provisioning/x/plan.ts', "run(['vgcreate'])"),
    ],
    lawful: [file('provisioning/x/plan.ts', "run(['/usr/sbin/vgcreate'])")],
  },
]

const files = sources()

t.test('there is something to hold the rules against', async (t) => {
  const paths = files.map(({ path }) => path)
  for (const path of [
    'agent/main.ts',
    'provisioning/engine.ts',
    'provisioning/problem.ts',
    'README.md',
    'test/run.ts',
  ])
    t.ok(paths.includes(path), path)
  t.notOk(paths.some((path) => path.includes('node_modules')))
})

for (const { name, find, planted, lawful } of rules) {
  t.test(name, async (t) => {
    for (const sample of planted)
      t.not(find(sample).length, 0, `finds ${JSON.stringify(sample.map(({ text }) => text))}`)
    for (const sample of lawful) t.same(find(sample), [], 'leaves the lawful alone')
    t.same(find(files), [], 'holds everywhere')
  })
}
