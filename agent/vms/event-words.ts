// What libvirt's events about a domain say, in words.

/** Details of a lifecycle event by libvirt's numbers (virDomainEventType and its details). */
const lifecycle: readonly (readonly [what: string, details: string])[] = [
  ['defined', 'new, changed, renamed, from a snapshot'],
  ['undefined', 'removed, renamed'],
  ['started', 'booted, migrated, restored, from a snapshot, woken up'],
  [
    'paused',
    'by somebody, migrated, I/O error, watchdog, restored, from a snapshot, API error, post-copy, post-copy failed',
  ],
  ['resumed', 'by somebody, migrated, from a snapshot, post-copy, post-copy failed'],
  ['off', 'shut down, killed, crashed, migrated, saved, did not start, from a snapshot'],
  ['shutting-down', 'by itself, from inside, from outside'],
  ['suspended', 'to memory, to disk'],
  ['crashed', 'panicked, crash loaded'],
]

const among = (words: string, number: number): string => words.split(', ')[number] ?? `reason ${number}`

/** The event as libvirt tells it, without the domain. */
export type Told = Readonly<Record<string, unknown>>

const number = (value: unknown): number => Number(value ?? -1)

const words: Readonly<Record<string, (told: Told) => readonly [what: string, detail: string]>> = {
  lifecycle({ event, detail }) {
    const [what, details] = lifecycle[number(event)] ?? [`event ${event}`, '']
    return [what, among(details, number(detail))]
  },
  reboot: () => ['reboots', ''],
  watchdog: ({ action }) => [
    'watchdog',
    among('nothing, pause, reset, power off, shut down, debug, NMI', number(action)),
  ],
  ioErrorReason: ({ srcPath, devAlias, action, reason }) => [
    'I/O error',
    `${devAlias} ${srcPath}: ${reason || 'no reason given'}; ${among('nothing, paused, told the guest', number(action))}`,
  ],
  blockJob2: ({ dst, type, status }) => [
    'block job',
    `${among('unknown, pull, copy, commit, active commit, backup', number(type))} of ${dst}: ${among('completed, failed, cancelled, ready', number(status))}`,
  ],
  deviceAdded: ({ devAlias }) => ['device added', String(devAlias)],
  deviceRemoved: ({ devAlias }) => ['device removed', String(devAlias)],
  deviceRemovalFailed: ({ devAlias }) => ['device not given up', String(devAlias)],
  agentLifecycle: ({ state }) => ['guest agent', among('unknown, connected, disconnected', number(state))],
  diskChange: ({ devAlias, oldSrcPath, newSrcPath }) => [
    'disk changed',
    `${devAlias}: ${oldSrcPath ?? 'none'} to ${newSrcPath ?? 'none'}`,
  ],
  trayChange: ({ devAlias, reason }) => ['tray', `${devAlias} ${among('open, closed', number(reason))}`],
  blockThreshold: ({ dev, excess }) => ['disk fills', `${dev}, ${excess} bytes beyond its threshold`],
  memoryFailure: ({ action }) => [
    'memory failure',
    among('ignored, told the guest, fatal, reset', number(action)),
  ],
  jobCompleted: () => ['job completed', ''],
  metadataChange: () => ['metadata changed', ''],
}

/** The kinds of events that are told, by node-libvirt's names. */
export const eventKinds = Object.keys(words) as readonly (keyof typeof words & string)[]

/** An event in words: what happened, and how or why. */
export const eventWords = (kind: string, told: Told): readonly [what: string, detail: string] =>
  words[kind]?.(told) ?? [kind, '']
