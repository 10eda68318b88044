// A DHCP server that says whatever a test wants, byte by byte, to whoever asks: well-formed answers, torn ones, several, refusals.
//
// Run as a program, node odd-dhcp.ts FILE LOG ADDRESS, it answers from ADDRESS what FILE says at that moment, and puts a dot into LOG each time.

import { createSocket } from 'node:dgram'
import { appendFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Namespace } from './namespaces.ts'

/** One answer: the address that is given, the options by code as bytes, and bytes after them instead of the end. */
export interface OddAnswer {
  readonly address: string
  readonly options: Readonly<Record<number, readonly number[]>>
  readonly tail?: readonly number[]
}

/** What is answered from now on; `refusals` NAKs come in the place of what was asked for, or with a question. */
export interface OddServer {
  readonly answers: readonly OddAnswer[]
  readonly refusals?: number
}

/** The bytes of an address. */
export const bytesOf = (address: string): readonly number[] => address.split('.').map(Number)

/** The bytes of a number of seconds. */
export const seconds = (count: number): readonly number[] =>
  [24, 16, 8, 0].map((shift) => Math.floor(count / 2 ** shift) & 0xff)

/** What a server with some sense offers in 192.0.2.0/24, and how that is changed; an option that is null is left out. */
export function answer(
  change: Readonly<Record<number, readonly number[] | null>> = {},
  address = '192.0.2.50',
  tail?: readonly number[],
): OddAnswer {
  const usual = {
    54: bytesOf('192.0.2.1'),
    51: seconds(3600),
    1: bytesOf('255.255.255.0'),
    3: bytesOf('192.0.2.1'),
    6: bytesOf('192.0.2.53'),
  }
  const options = Object.entries({ ...usual, ...change }).flatMap(([code, value]) =>
    value === null ? [] : [[Number(code), value] as const],
  )
  return { address, options: Object.fromEntries(options), ...(tail && { tail }) }
}

/** Starts the server in a namespace; `serve` says what it answers, and `asked` how often it has been asked since. */
export async function startOddDhcp(
  space: Namespace,
  folder: string,
  from: string,
): Promise<{ serve(server: OddServer): void; asked(): number }> {
  const [file, log] = [join(folder, 'odd-dhcp.json'), join(folder, 'odd-dhcp.log')]
  const serve = (server: OddServer): void => {
    writeFileSync(log, '')
    // Whole or not at all: it may be asked at this moment.
    writeFileSync(`${file}.new`, JSON.stringify(server))
    renameSync(`${file}.new`, file)
  }
  serve({ answers: [answer()] })
  await space.start([process.execPath, import.meta.filename, file, log, from])
  return { serve, asked: () => readFileSync(log).length }
}

const types = { offer: 2, request: 3, ack: 5, nak: 6 }

/** The type of a client's message. */
function typeOf(packet: Buffer): number {
  for (let at = 240; at + 2 < packet.length; at += 2 + (packet[at + 1] ?? 0))
    if (packet[at] === 53) return packet[at + 2] ?? 0
  return 0
}

/** The answer to a question, whole; 2 is the type of an offer. */
export function packetOf(
  question: Buffer,
  type: number,
  { address, options, tail = [255] }: OddAnswer,
): Buffer {
  const head = Buffer.alloc(240)
  head.set([2, 1, 6, 0], 0)
  head.set(question.subarray(4, 8), 4)
  head.writeUInt16BE(0x8000, 10)
  head.set(bytesOf(address), 16)
  head.set(question.subarray(28, 44), 28)
  head.set([0x63, 0x82, 0x53, 0x63], 236)
  const body = Object.entries(options).flatMap(([code, value]) => {
    // RFC 3396: what is longer than an option can be is several of them.
    const parts = Array.from({ length: Math.max(1, Math.ceil(value.length / 252)) }, (_, at) =>
      value.slice(252 * at, 252 * (at + 1)),
    )
    return parts.flatMap((part) => [Number(code), part.length, ...part])
  })
  const packet = Buffer.concat([head, Buffer.from([53, 1, type, ...body, ...tail])])
  return packet.length < 300 ? Buffer.concat([packet, Buffer.alloc(300 - packet.length)]) : packet
}

if (process.argv[1] === import.meta.filename) {
  const [file = '', log = '', from = ''] = process.argv.slice(2)
  const [heard, said] = [0, 1].map(() => createSocket({ type: 'udp4', reuseAddr: true }))
  heard?.on('message', (question) => {
    const { answers, refusals = 0 } = JSON.parse(readFileSync(file, 'utf8')) as OddServer
    const isRequest = typeOf(question) === types.request
    const send = (packet: Buffer) => said?.send(packet, 68, '255.255.255.255')
    const refusal: OddAnswer = { address: '0.0.0.0', options: { 54: bytesOf(from) } }
    for (let count = 0; count < refusals; count += 1) send(packetOf(question, types.nak, refusal))
    if (!isRequest || refusals === 0)
      for (const one of answers) send(packetOf(question, isRequest ? types.ack : types.offer, one))
    appendFileSync(log, '.')
  })
  heard?.bind(67, '0.0.0.0', () =>
    said?.bind(67, from, () => {
      said.setBroadcast(true)
      console.log('ready')
    }),
  )
}
