// Writing files: old or new but never torn, on full, read-only and shared filesystems too.
import { execFileSync, spawn } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  appendLine,
  createFile,
  makeFolder,
  moveFile,
  removeFile,
  replaceFile,
} from '../../agent/host/files.ts'

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'mounting needs root' }

/** A small filesystem of its own, gone after the test. */
const smallFilesystem = (t: Test, size: string): string => {
  const folder = mkdtempSync(`${tmpdir()}/garrison-`)
  execFileSync('/usr/bin/mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'garrison-test', folder])
  t.teardown(() => {
    execFileSync('/usr/bin/umount', [folder])
    rmdirSync(folder)
  })
  return folder
}

t.test('replaces a file whole, with its mode, and makes the folders', async (t) => {
  const folder = t.testdir({ old: 'old' })
  await replaceFile(`${folder}/a/b/new`, 'content\n', 0o640)
  t.equal(readFileSync(`${folder}/a/b/new`, 'utf8'), 'content\n')
  t.equal(statSync(`${folder}/a/b/new`).mode & 0o7777, 0o640)
  t.equal(statSync(`${folder}/a`).mode & 0o7777, 0o755)
  await replaceFile(`${folder}/old`, 'new', 0o600)
  t.equal(readFileSync(`${folder}/old`, 'utf8'), 'new')
  t.strictSame(readdirSync(folder).sort(), ['a', 'old'])
})

t.test('follows a link to the file that it names', async (t) => {
  const folder = t.testdir({ real: { conf: 'old' } })
  symlinkSync('real/conf', `${folder}/conf`)
  await replaceFile(`${folder}/conf`, 'new', 0o644)
  t.equal(readFileSync(`${folder}/real/conf`, 'utf8'), 'new')
  t.strictSame(readdirSync(`${folder}/real`), ['conf'])
})

t.test('what a crash left beside a file is removed by the next write, and nothing else', async (t) => {
  const folder = t.testdir({
    conf: 'old',
    '.conf.0123456789ab.new': 'torn',
    '.conf.keep.new': 'mine',
    '.other.0123456789ab.new': '',
  })
  await replaceFile(`${folder}/conf`, 'new', 0o644)
  t.strictSame(readdirSync(folder).sort(), ['.conf.keep.new', '.other.0123456789ab.new', 'conf'])
})

t.test('a writer killed at any moment leaves the old or the new file', async (t) => {
  const folder = t.testdir({})
  const [a, b] = ['a'.repeat(200_000), 'b'.repeat(300_000)]
  writeFileSync(`${folder}/conf`, a)
  const script = `
    import { replaceFile } from ${JSON.stringify(new URL('../../agent/host/files.ts', import.meta.url).href)}
    for (;;) for (const [letter, count] of [['b', 300000], ['a', 200000]])
      await replaceFile(process.argv[1], letter.repeat(count), 0o644)`
  for (let round = 0; round < 8; round += 1) {
    const writer = spawn(process.execPath, ['--input-type=module', '-e', script, `${folder}/conf`], {
      stdio: 'ignore',
    })
    const ended = new Promise((resolve) => writer.once('exit', resolve))
    await sleep(120 + round * 17)
    writer.kill('SIGKILL')
    await ended
    const found = readFileSync(`${folder}/conf`, 'utf8')
    t.ok(found === a || found === b, `${found.length} bytes`)
  }
  await replaceFile(`${folder}/conf`, 'end', 0o644)
  t.strictSame(readdirSync(folder), ['conf'])
})

t.test(
  'on a full filesystem the last good file stays and nothing is left beside it',
  needsRoot,
  async (t) => {
    const folder = smallFilesystem(t, '128k')
    await replaceFile(`${folder}/conf`, 'good', 0o644)
    await t.rejects(replaceFile(`${folder}/conf`, 'x'.repeat(200_000), 0o644), {
      code: 'file.no-space',
      message: `could not write ${folder}/conf (ENOSPC)`,
      details: { errno: 'ENOSPC' },
    })
    await t.rejects(createFile(`${folder}/other`, 'x'.repeat(200_000), 0o644), { code: 'file.no-space' })
    t.strictSame(readdirSync(folder), ['conf'])
    t.equal(readFileSync(`${folder}/conf`, 'utf8'), 'good')
  },
)

t.test('without inodes nothing is changed', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '1m,nr_inodes=3')
  await replaceFile(`${folder}/conf`, 'good', 0o644)
  await replaceFile(`${folder}/conf`, 'better', 0o644)
  writeFileSync(`${folder}/last`, '')
  await t.rejects(replaceFile(`${folder}/conf`, 'bad', 0o644), { code: 'file.no-space' })
  await t.rejects(makeFolder(`${folder}/folder`), { code: 'file.no-space' })
  t.equal(readFileSync(`${folder}/conf`, 'utf8'), 'better')
})

t.test('on a read-only filesystem every change is refused as such', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '1m')
  await replaceFile(`${folder}/conf`, 'good', 0o644)
  await appendLine(`${folder}/log`, 'line', 0o644)
  execFileSync('/usr/bin/mount', ['-o', 'remount,ro', folder])
  const code = 'file.read-only'
  await t.rejects(replaceFile(`${folder}/conf`, 'bad', 0o644), { code })
  await t.rejects(createFile(`${folder}/other`, 'bad', 0o644), { code })
  await t.rejects(removeFile(`${folder}/conf`), { code })
  await t.rejects(moveFile(`${folder}/conf`, `${folder}/to`), { code })
  await t.rejects(makeFolder(`${folder}/folder`), { code })
  await t.rejects(appendLine(`${folder}/log`, 'line', 0o644), { code })
  t.equal(readFileSync(`${folder}/log`, 'utf8'), 'line\n')
  t.equal(readFileSync(`${folder}/conf`, 'utf8'), 'good')
})

t.test('other errors name the file and the error number', async (t) => {
  const folder = t.testdir({ file: '' })
  await t.rejects(replaceFile(`${folder}/file/below`, '', 0o644), {
    code: 'file.exists',
    message: `could not write ${folder}/file/below (EEXIST)`,
  })
  await t.rejects(replaceFile(folder, '', 0o644), {
    code: 'file.unwritable',
    message: `could not write ${folder} (EISDIR)`,
    details: { path: folder, errno: 'EISDIR' },
  })
  t.strictSame(readdirSync(folder), ['file'])
})

t.test('creates a file only where there is none', async (t) => {
  const folder = t.testdir({})
  t.equal(await createFile(`${folder}/one`, 'first', 0o600), true)
  t.equal(await createFile(`${folder}/one`, 'second', 0o600), false)
  t.equal(readFileSync(`${folder}/one`, 'utf8'), 'first')
  const wins = await Promise.all(
    Array.from({ length: 40 }, (_, at) => createFile(`${folder}/two`, String(at), 0o600)),
  )
  t.equal(wins.filter(Boolean).length, 1)
  t.equal(readFileSync(`${folder}/two`, 'utf8'), String(wins.indexOf(true)))
  t.strictSame(readdirSync(folder).sort(), ['one', 'two'])
})

t.test('removes a file, a link, an empty folder, and what is not there', async (t) => {
  const folder = t.testdir({ file: '', empty: {}, full: { file: '' } })
  symlinkSync('full', `${folder}/link`)
  for (const name of ['file', 'empty', 'link', 'absent']) await removeFile(`${folder}/${name}`)
  await t.rejects(removeFile(`${folder}/full`), { code: 'file.exists' })
  t.strictSame(readdirSync(folder), ['full'])
  t.ok(existsSync(`${folder}/full/file`))
})

t.test('makes a folder and sets what is given, also when it is there', async (t) => {
  const folder = t.testdir({ there: { file: '' } })
  await makeFolder(`${folder}/a/b`, { mode: 0o2770 })
  t.equal(statSync(`${folder}/a/b`).mode & 0o7777, 0o2770)
  await makeFolder(`${folder}/there`, { mode: 0o700, ...(needsRoot.skip ? {} : { uid: 12, gid: 34 }) })
  const { mode, uid, gid } = statSync(`${folder}/there`)
  t.equal(mode & 0o7777, 0o700)
  if (!needsRoot.skip) t.strictSame([uid, gid], [12, 34])
  await makeFolder(`${folder}/there`)
  t.equal(statSync(`${folder}/there`).mode & 0o7777, 0o700, 'nothing given, nothing changed')
  chmodSync(`${folder}/there`, 0o755)
  await t.rejects(makeFolder(`${folder}/there/file`), { code: 'file.exists' })
})

t.test('moves a file, a folder and a link, and never over something', async (t) => {
  const folder = t.testdir({ file: 'f', folder: { inner: '' }, there: 'there', empty: {} })
  symlinkSync('nowhere', `${folder}/link`)
  for (const name of ['file', 'folder', 'link']) {
    for (const target of ['there', 'empty'])
      await t.rejects(moveFile(`${folder}/${name}`, `${folder}/${target}`), {
        code: 'file.exists',
        message: `could not move ${folder}/${name}: ${folder}/${target} exists already`,
      })
    await moveFile(`${folder}/${name}`, `${folder}/${name}-moved`)
  }
  t.strictSame(readdirSync(folder).sort(), ['empty', 'file-moved', 'folder-moved', 'link-moved', 'there'])
  t.ok(existsSync(`${folder}/folder-moved/inner`))
  await t.rejects(moveFile(`${folder}/absent`, `${folder}/x`), {
    code: 'file.unwritable',
    details: { errno: 'ENOENT' },
  })
})

t.test('completes a move that a crash cut in two', async (t) => {
  const folder = t.testdir({ from: 'content' })
  linkSync(`${folder}/from`, `${folder}/to`)
  await moveFile(`${folder}/from`, `${folder}/to`)
  t.strictSame(readdirSync(folder), ['to'])
  t.equal(readFileSync(`${folder}/to`, 'utf8'), 'content')
})

t.test('does not move from one filesystem to another', needsRoot, async (t) => {
  const [folder, other] = [t.testdir({ file: 'f', folder: {} }), smallFilesystem(t, '1m')]
  for (const name of ['file', 'folder'])
    await t.rejects(moveFile(`${folder}/${name}`, `${other}/${name}`), {
      code: 'file.unwritable',
      details: { errno: 'EXDEV' },
    })
  t.strictSame([readdirSync(folder).sort(), readdirSync(other)], [['file', 'folder'], []])
})

t.test('appends whole lines, also after a torn one', async (t) => {
  const folder = t.testdir({})
  for (const line of ['first', 'ünï']) await appendLine(`${folder}/a/log`, line, 0o640)
  appendFileSync(`${folder}/a/log`, 'torn')
  await appendLine(`${folder}/a/log`, 'last', 0o640)
  t.equal(readFileSync(`${folder}/a/log`, 'utf8'), 'first\nünï\ntorn\nlast\n')
  t.equal(statSync(`${folder}/a/log`).mode & 0o777, 0o640)
  symlinkSync('a/log', `${folder}/link`)
  await t.rejects(appendLine(`${folder}/link`, 'x', 0o640), {
    code: 'file.unwritable',
    details: { errno: 'ELOOP' },
  })
})

t.test('appending that fails leaves nothing of itself', needsRoot, async (t) => {
  const folder = smallFilesystem(t, '64k')
  await appendLine(`${folder}/log`, 'first', 0o640)
  await t.rejects(appendLine(`${folder}/log`, 'x'.repeat(100_000), 0o640), { code: 'file.no-space' })
  t.equal(readFileSync(`${folder}/log`, 'utf8'), 'first\n')
  await appendLine(`${folder}/log`, 'second', 0o640)
  t.equal(readFileSync(`${folder}/log`, 'utf8'), 'first\nsecond\n')
})
