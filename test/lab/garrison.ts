// Garrison in a lab guest: installs the built package, writes the desired document, asks verbs and follows an apply.
import { globSync } from 'node:fs'
import type { Guest, RemoteProcess, RunOutcome } from './guest.ts'

/** An answer of a verb with `--json`: its one object, or its lines. */
export interface VerbAnswer {
  readonly exit: number
  // biome-ignore lint/suspicious/noExplicitAny: the shapes are what the scenarios assert
  readonly lines: readonly any[]
  readonly stderr: string
}

/** The .deb that `npm run package` made; throws when it is not there. */
export function builtPackage(): string {
  const [deb] = globSync('dist/garrison_*.deb')
  if (deb === undefined) throw new Error('dist/garrison_*.deb is not there: npm run package makes it')
  return deb
}

/** Installs the .deb in the guest as an operator would. */
export async function installGarrison(guest: Guest): Promise<void> {
  await guest.copyIn(builtPackage(), '/var/tmp/garrison.deb')
  await guest.run(['apt-get', 'update'], { deadlineMs: 300_000 })
  await guest.run(['apt-get', 'install', '--yes', '--no-install-recommends', '/var/tmp/garrison.deb'], {
    deadlineMs: 300_000,
  })
}

/** The document of the scenarios: RAID5 of the unused drives, a volume for images and one raw. `more` replaces whole parts. */
export const documentOf = (more: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({
    version: 1,
    array: {},
    volumes: {
      group: 'garrison',
      logical: {
        images: { share: 50, mount: '/var/lib/libvirt/images' },
        backup: { size: '200MiB', filesystem: 'ext4', mount: '/srv/backup', mode: '0750' },
        raw: { size: '100MiB' },
      },
    },
    ...more,
  })

/** Puts the desired document where Garrison reads it. JSON is YAML. */
export const writeDocument = (guest: Guest, document: string): Promise<void> =>
  guest.writeFile('/etc/garrison/host.yaml', document)

/** Asks a verb with `--json` and parses every line of the answer. */
export async function garrison(
  guest: Guest,
  words: readonly string[],
  deadlineMs = 1_800_000,
): Promise<VerbAnswer> {
  const outcome = await guest.run(['garrison', ...words, '--json'], { deadlineMs, allowFailure: true })
  return answerOf(words, outcome)
}

/** What a verb that was asked with `--json` has answered; throws when a line is no JSON. */
export const answerOf = (words: readonly string[], { exit, stdout, stderr }: RunOutcome): VerbAnswer => ({
  exit,
  stderr,
  lines: stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      try {
        return JSON.parse(line)
      } catch (cause) {
        throw new Error(`garrison ${words.join(' ')} --json answered: ${line}\n${stderr}`, { cause })
      }
    }),
})

/** Starts an apply and leaves it running; its lines are JSON. */
export const startApply = (guest: Guest, words: readonly string[] = []): Promise<RemoteProcess> =>
  guest.start(['garrison', 'apply', ...words, '--json'])

/** Applies to the end; throws unless it settles, with everything it said. */
export async function settle(guest: Guest, words: readonly string[] = []): Promise<VerbAnswer> {
  const answer = await garrison(guest, ['apply', ...words])
  const last = answer.lines.at(-1)
  if (answer.exit !== 0 || last?.outcome !== 'settled')
    throw new Error(
      `apply ended with ${answer.exit}: ${JSON.stringify(answer.lines, null, 1)}\n${answer.stderr}`,
    )
  return answer
}

/** What a settled guest looks like from outside Garrison: arrays, groups, volumes, filesystems and mounts, without times. */
export async function shapeOf(guest: Guest): Promise<object> {
  const [md, lvs, mounts] = await Promise.all([
    guest.run(['mdadm', '--detail', '--scan']),
    guest.run(['lvs', '--noheadings', '--options', 'vg_name,lv_name,lv_size,lv_tags', '--units', 'm']),
    guest.run(['findmnt', '--json', '--list', '--output', 'TARGET,FSTYPE', '--types', 'xfs,ext4,btrfs']),
  ])
  return {
    arrays: md.stdout
      .split('\n')
      .filter((line) => line.includes('ARRAY'))
      .map((line) => line.replace(/^(ARRAY \S+).*( UUID=\S+).*$/, '$1$2'))
      .sort(),
    volumes: lvs.stdout
      .split('\n')
      .map((line) => line.trim())
      .filter(Boolean)
      .sort(),
    mounts: (JSON.parse(mounts.stdout).filesystems as { target: string; fstype: string }[])
      .map(({ target, fstype }) => `${target} ${fstype}`)
      .sort(),
  }
}
