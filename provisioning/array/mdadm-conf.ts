// mdadm.conf(5), and the lines of `mdadm --detail --scan`, which have the same form.

/** One ARRAY line. `lines` are the first and last line number of it, counted from 0. */
export interface ArrayLine {
  /** `/dev/md/x`, `<ignore>`, …; null when the line gives none. */
  readonly device: string | null
  readonly uuid: string | null
  readonly name: string | null
  /** Names or patterns of `devices=`. */
  readonly devices: readonly string[]
  readonly inactive: boolean
  readonly lines: readonly [first: number, last: number]
}

/** What of a mdadm.conf matters: arrays, and the devices that DEVICE lines name (patterns too, `partitions` left out). */
export interface MdadmConf {
  readonly arrays: readonly ArrayLine[]
  readonly devices: readonly string[]
}

const keywords = [
  'devices',
  'array',
  'inactive-array',
  'mailaddr',
  'mailfrom',
  'program',
  'create',
  'homehost',
  'homecluster',
  'auto',
  'policy',
  'part-policy',
  'sysfs',
  'monitordelay',
]

/** mdadm takes any abbreviation of at least three letters, in either case. */
const keywordOf = (word: string): string | undefined =>
  word.length < 3 ? undefined : keywords.find((keyword) => keyword.startsWith(word.toLowerCase()))

const wordsOf = (line: string): readonly string[] =>
  [...line.replace(/(^|\s)#.*$/, '').matchAll(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g)].map(([word]) =>
    word.replace(/["']/g, ''),
  )

const normalUuid = (uuid: string | undefined): string | null => {
  const digits = uuid?.replace(/[^0-9a-f]/gi, '').toLowerCase()
  return digits?.length === 32 ? (digits.match(/.{8}/g)?.join(':') ?? null) : null
}

/** Parses mdadm.conf. A line that does not begin with a keyword goes on with the one before. */
export function parseMdadmScan(text: string): MdadmConf {
  const entries: { keyword: string; words: string[]; first: number; last: number }[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const [first, ...rest] = wordsOf(line)
    if (first === undefined) continue
    const keyword = /^\s/.test(line) ? undefined : keywordOf(first)
    const last = entries.at(-1)
    if (keyword !== undefined) entries.push({ keyword, words: rest, first: index, last: index })
    else if (last) {
      last.words.push(first, ...rest)
      last.last = index
    }
  }
  return {
    arrays: entries
      .filter(({ keyword }) => keyword.endsWith('array'))
      .map(({ keyword, words, first, last }) => {
        const tags = new Map(
          words.flatMap((word): [string, string][] => {
            const [, key, value] = /^([\w-]+)=(.*)$/.exec(word) ?? []
            return key === undefined || value === undefined ? [] : [[key.toLowerCase(), value]]
          }),
        )
        return {
          device: words.find((word) => !/^[\w-]+=/.test(word)) ?? null,
          uuid: normalUuid(tags.get('uuid')),
          name: tags.get('name') ?? null,
          devices: tags.get('devices')?.split(',') ?? [],
          inactive: keyword === 'inactive-array',
          lines: [first, last],
        }
      }),
    devices: entries
      .filter(({ keyword }) => keyword === 'devices')
      .flatMap(({ words }) => words.filter((word) => !['partitions', 'containers'].includes(word))),
  }
}

const begin = '# BEGIN garrison: written by garrison apply, which replaces what stands between these lines.'
const end = '# END garrison'

/** The array that the block written by Garrison remembers, with the serials of its members; null without such a block. */
export function rememberedArray(text: string): {
  readonly device: string
  readonly uuid: string
  readonly members: readonly string[]
} | null {
  const block = blockOf(text)
  const line = block === null ? undefined : parseMdadmScan(block).arrays[0]
  if (block === null || !line?.device || !line.uuid) return null
  const members = /^# members: (.*)$/m.exec(block)?.[1]?.split(' ') ?? []
  return { device: line.device, uuid: line.uuid, members }
}

function blockOf(text: string): string | null {
  const lines = text.split('\n')
  const from = lines.findIndex((line) => line.startsWith('# BEGIN garrison'))
  const to = lines.indexOf(end, from)
  return from === -1 || to === -1 ? null : lines.slice(from, to + 1).join('\n')
}

/**
 * The text with Garrison's block naming the array, and with every other ARRAY line of that array or of that name taken out:
 * mdadm refuses to assemble an array that two lines match. The same text when it says so already.
 */
export function withArray(
  text: string,
  array: { readonly device: string; readonly uuid: string; readonly members: readonly string[] },
): string {
  const block = blockOf(text)
  const outside = (block === null ? text : text.replace(`${block}\n`, '').replace(block, '')).split('\n')
  const kept = new Set(outside.keys())
  for (const { uuid, device, lines } of parseMdadmScan(outside.join('\n')).arrays)
    if (uuid === array.uuid || device === array.device)
      for (let line = lines[0]; line <= lines[1]; line += 1) kept.delete(line)
  const rest = outside
    .filter((_, index) => kept.has(index))
    .join('\n')
    .trimEnd()
  return [
    ...(rest === '' ? [] : [rest, '']),
    begin,
    ...(array.members.length > 0 ? [`# members: ${array.members.join(' ')}`] : []),
    `ARRAY ${array.device} UUID=${array.uuid}`,
    end,
    '',
  ].join('\n')
}
