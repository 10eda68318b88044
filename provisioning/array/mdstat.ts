// The kernel's own list of md arrays, /proc/mdstat (drivers/md/md.c, md_seq_show), and what it says of their progress.

/** One device of an array. `number` is the kernel's running number: not the slot, and it can repeat. */
export interface MdstatMember {
  readonly kernelName: string
  readonly number: number
  readonly faulty: boolean
  readonly spare: boolean
  readonly replacement: boolean
  readonly journal: boolean
}

/** A resync, recovery, reshape or check. `percent` and `minutesLeft` are null while it waits or where the kernel cannot tell. */
export interface MdstatProgress {
  readonly action: 'resync' | 'recovery' | 'reshape' | 'check' | 'repair'
  readonly waits: 'delayed' | 'pending' | 'remote' | null
  readonly percent: number | null
  readonly minutesLeft: number | null
  readonly speedKibPerSecond: number | null
}

/** One array. `slots` is `UU_` as printed, null where the kind of array has none (raid0, linear, containers). */
export interface MdstatArray {
  readonly kernelName: string
  readonly active: boolean
  readonly readOnly: 'no' | 'auto' | 'yes'
  /** raid5, raid1, linear, …; null when inactive without one. */
  readonly personality: string | null
  /** `1.2`, `0.90`, `external:imsm`, …. A line without `super` is 0.90. */
  readonly metadata: string
  readonly members: readonly MdstatMember[]
  /** Blocks of 1 KiB. */
  readonly blocks: number | null
  readonly wantedDevices: number | null
  readonly workingDevices: number | null
  readonly slots: string | null
  readonly progress: MdstatProgress | null
}

const memberPattern = /^([A-Za-z][\w!.-]*)\[(\d+)\]((?:\([A-Z]\))*)$/
/** Beyond this a time left says only that nothing moves (`finish=623207095.3min speed=0K/sec`). */
const believableMinutes = 60 * 24 * 365

function parseProgress(text: string): MdstatProgress | null {
  const waiting = /\b(resync|recovery|reshape|check|repair)\s*=\s*(DELAYED|PENDING|REMOTE)\b/.exec(text)
  if (waiting)
    return {
      action: waiting[1] as MdstatProgress['action'],
      waits: waiting[2]?.toLowerCase() as 'delayed' | 'pending' | 'remote',
      percent: null,
      minutesLeft: null,
      speedKibPerSecond: null,
    }
  const moving = /\b(resync|recovery|reshape|check|repair)\s*=\s*([\d.]+)%/.exec(text)
  if (!moving) return null
  const minutes = Number(/\bfinish=([\d.]+)min/.exec(text)?.[1] ?? Number.NaN)
  const speed = Number(/\bspeed=(\d+)K\/sec/.exec(text)?.[1] ?? Number.NaN)
  return {
    action: moving[1] as MdstatProgress['action'],
    waits: null,
    percent: Number(moving[2]),
    minutesLeft: speed > 0 && minutes < believableMinutes ? minutes : null,
    speedKibPerSecond: Number.isNaN(speed) ? null : speed,
  }
}

function parseArray(kernelName: string, text: string): MdstatArray {
  const words = text.split(/\s+/)
  const members: MdstatMember[] = []
  let personality: string | null = null
  for (const word of words.slice(1)) {
    const [, name, number, flags = ''] = memberPattern.exec(word) ?? []
    if (name !== undefined)
      members.push({
        kernelName: name.replaceAll('!', '/'),
        number: Number(number),
        faulty: flags.includes('(F)'),
        spare: flags.includes('(S)'),
        replacement: flags.includes('(R)'),
        journal: flags.includes('(J)'),
      })
    else if (/^(raid\d+|linear|multipath|faulty)$/.test(word) && members.length === 0) personality = word
    else if (word === 'blocks') break
  }
  const [, wanted, working] = /\[(\d+)\/(\d+)\]/.exec(text) ?? []
  return {
    kernelName,
    active: words[0] === 'active',
    readOnly: text.includes('(auto-read-only)') ? 'auto' : text.includes('(read-only)') ? 'yes' : 'no',
    personality,
    metadata: /\bsuper (\S+)/.exec(text)?.[1] ?? '0.90',
    members,
    blocks: Number(/(\d+) blocks\b/.exec(text)?.[1] ?? Number.NaN) || null,
    wantedDevices: wanted === undefined ? null : Number(wanted),
    workingDevices: working === undefined ? null : Number(working),
    slots: /\[([U_]+)\]/.exec(text)?.[1] ?? null,
    progress: parseProgress(text),
  }
}

/** Parses /proc/mdstat. Lines of an array belong together up to the next one, however they are wrapped or indented. */
export function parseMdstat(mdstat: string): readonly MdstatArray[] {
  const arrays: { name: string; text: string }[] = []
  for (const line of mdstat.split('\n')) {
    const [, name, text] = /^(md\w*) : (.*)$/.exec(line) ?? []
    if (name !== undefined) arrays.push({ name, text: text ?? '' })
    else if (/^(Personalities|unused devices)\b/.test(line)) continue
    else {
      const last = arrays.at(-1)
      if (last) last.text += ` ${line.trim()}`
    }
  }
  return arrays.map(({ name, text }) => parseArray(name, text))
}
