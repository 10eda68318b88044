// What a DHCP server answers: as servers do, damaged at random, and cut at every byte.

import t from 'tap'
import { oddnessOf, parseDhcpAnswer } from '../../provisioning/link/dhcp.ts'
import { answer, bytesOf, packetOf, seconds } from '../contract/odd-dhcp.ts'
import { seeded } from './simulated-host.ts'

const question = Buffer.alloc(300, 7)
const transaction = question.subarray(4, 8)
const offerOf = (...args: Parameters<typeof answer>) =>
  parseDhcpAnswer(packetOf(question, 2, answer(...args)), transaction)
const oddness = (...args: Parameters<typeof answer>): string => {
  const offer = offerOf(...args)
  return offer === null ? 'none' : oddnessOf(offer).join('; ')
}

t.test('an offer', async (t) => {
  t.same(offerOf({ 26: [5, 220] }), {
    ...{ kind: 'offer', server: '192.0.2.1', address: '192.0.2.50', prefix: 24, routers: ['192.0.2.1'] },
    ...{ leaseSeconds: 3600, mtu: 1500, torn: false },
  })
  t.equal(oddness(), '')
  t.equal(oddness({ 51: seconds(2 ** 32 - 1) }), '', 'for ever is usual')
  t.equal(oddness({ 1: bytesOf('255.255.255.252') }, '192.0.2.2'), '')
  t.equal(parseDhcpAnswer(packetOf(question, 6, answer()), transaction)?.kind, 'nak')
  t.equal(parseDhcpAnswer(packetOf(question, 9, answer()), transaction)?.kind, 'other')
  t.equal(parseDhcpAnswer(packetOf(question, 2, answer()), Buffer.from([1, 2, 3, 4])), null, 'of another')
})

t.test('what makes no sense in one', async (t) => {
  const odd: readonly (readonly [string, ...Parameters<typeof answer>])[] = [
    ['no address of a host', {}, '0.0.0.0'],
    ['no address of a host', {}, '255.255.255.255'],
    ['no address of a host', {}, '127.0.0.1'],
    ['no address of a host', {}, '239.1.1.1'],
    ['no address of a host', {}, '169.254.169.254'],
    ['whole network', {}, '192.0.2.0'],
    ['no network mask', { 1: null }],
    ['no network mask', { 1: bytesOf('255.0.255.0') }],
    ['no network mask', { 1: [255] }],
    ['a network of /1 ', { 1: bytesOf('128.0.0.0') }, '64.0.0.5'],
    ['router 192.0.2.50 is the address', { 3: bytesOf('192.0.2.50') }],
    ['router 127.0.0.1 is no host', { 3: bytesOf('127.0.0.1') }],
    ['for no time', { 51: [] }],
    ['for 1 s', { 51: seconds(1) }],
    ['no server is named', { 54: [1] }],
  ]
  for (const [words, ...args] of odd) t.match(oddness(...args), words)
})

t.test('cut at every byte and damaged at random it is an answer or none', async (t) => {
  const whole = packetOf(question, 2, answer({ 12: [27, 91, 50, 74] }))
  for (let length = 0; length < 240; length += 1)
    t.equal(parseDhcpAnswer(whole.subarray(0, length), transaction), null)
  const chance = seeded(20_261_121)
  for (let round = 0; round < 20_000; round += 1) {
    const packet = Buffer.from(whole.subarray(0, 240 + Math.floor(chance() * 61)))
    for (let at = 0; at < 4; at += 1) packet[236 + Math.floor(chance() * 60)] = Math.floor(chance() * 256)
    const read = parseDhcpAnswer(packet, transaction)
    if (read !== null && !/^[\x20-\x7e]*$/.test(oddnessOf(read).join())) t.fail(packet.toString('hex'))
  }
})
