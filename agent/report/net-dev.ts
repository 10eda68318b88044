// What the kernel counts for each network device: /proc/net/dev (proc(5)).

import { unexpected } from './unexpected.ts'

/** What went through a device, seen from whoever it is told of. */
export interface NicCounters {
  readonly receivedBytes: number
  readonly receivedPackets: number
  readonly receiveErrors: number
  readonly receiveDrops: number
  readonly sentBytes: number
  readonly sentPackets: number
  readonly sendErrors: number
  readonly sendDrops: number
}

const path = '/proc/net/dev'

/** The columns that are read, by the titles in the second line. */
const wanted = ['bytes', 'packets', 'errs', 'drop']

/** Reads /proc/net/dev: the devices by name, seen from the host. */
export function parseNetDev(text: string): ReadonlyMap<string, NicCounters> {
  const [, titles = '', ...lines] = text.trimEnd().split('\n')
  const [, receive = '', send = ''] = titles.split('|').map((part) => part.trim())
  const [receiveTitles, sendTitles] = [receive.split(/\s+/), send.split(/\s+/)]
  const places = [
    ...wanted.map((title) => receiveTitles.indexOf(title)),
    ...wanted.map((title) => {
      const at = sendTitles.indexOf(title)
      return at === -1 ? -1 : receiveTitles.length + at
    }),
  ]
  if (places.includes(-1)) throw unexpected(path, titles)
  const devices = new Map<string, NicCounters>()
  for (const line of lines) {
    // The kernel lets no name have a colon.
    const colon = line.indexOf(':')
    const values = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
    const numbers = places.map((at) => Number(values[at] ?? Number.NaN))
    if (colon === -1 || !numbers.every((number) => number >= 0)) throw unexpected(path, line)
    const [receivedBytes = 0, receivedPackets = 0, receiveErrors = 0, receiveDrops = 0] = numbers
    const [sentBytes = 0, sentPackets = 0, sendErrors = 0, sendDrops = 0] = numbers.slice(4)
    devices.set(line.slice(0, colon).trim(), {
      receivedBytes,
      receivedPackets,
      receiveErrors,
      receiveDrops,
      sentBytes,
      sentPackets,
      sendErrors,
      sendDrops,
    })
  }
  return devices
}

/** The same seen from the other end: what a tap device receives its guest has sent. */
export const fromOtherEnd = (counters: NicCounters): NicCounters => ({
  receivedBytes: counters.sentBytes,
  receivedPackets: counters.sentPackets,
  receiveErrors: counters.sendErrors,
  receiveDrops: counters.sendDrops,
  sentBytes: counters.receivedBytes,
  sentPackets: counters.receivedPackets,
  sendErrors: counters.receiveErrors,
  sendDrops: counters.receiveDrops,
})
