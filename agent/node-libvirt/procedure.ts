// What a call is: its number, the format of its arguments and of its reply, and how long it may take.

import { type Codec, type DecodedMembers, type EncodedMembers, type Members, nothing, struct } from './xdr.ts'

/** The programs of the protocol: libvirt's own, QEMU's beside it, and keepalive; each in version 1. */
export const program = { remote: 0x20008086, qemu: 0x20008087, keepalive: 0x6b656570 } as const

/** One call: a `slow` one is for work that moves bytes or waits for a guest. */
export interface Procedure<Args, Reply> {
  readonly program: number
  readonly number: number
  readonly args: Codec<unknown, Args>
  readonly reply: Codec<Reply, never>
  readonly pace: 'quick' | 'slow'
  /** The ways of the bytes of a call that opens a stream, seen from here. */
  readonly stream?: 'in' | 'out' | 'both'
}

/** The arguments that a call takes. */
export type ArgsOf<P> = P extends Procedure<infer Args, unknown> ? Args : never

/** What a call resolves to. */
export type ReplyOf<P> = P extends Procedure<never, infer Reply> ? Reply : never

// biome-ignore lint/suspicious/noExplicitAny: a reply is of whatever type it is, and it is inferred.
type Shape = Codec<any, any> | Members

type Answer<R extends Shape> =
  R extends Codec<infer Out, never> ? Out : R extends Members ? DecodedMembers<R> : never

const codecOf = (shape: Shape): Codec<unknown, never> =>
  typeof shape.encode === 'function' ? (shape as Codec<unknown, never>) : struct(shape as Members)

/** A call of libvirt's own program. A reply of one member is that member. */
export const call = <const M extends Members, const R extends Shape = typeof nothing>(
  number: number,
  args: M,
  reply?: R,
): Procedure<EncodedMembers<M>, Answer<R>> => ({
  program: program.remote,
  number,
  args: struct(args),
  reply: codecOf(reply ?? nothing) as Codec<Answer<R>, never>,
  pace: 'quick',
})

/** The same call with the longer deadline of those that move bytes or wait for a guest. */
export const slow = <P extends Procedure<never, unknown>>(procedure: P): P => ({ ...procedure, pace: 'slow' })

/** The same call with a stream opened by it. */
export const streaming = <P extends Procedure<never, unknown>>(
  stream: 'in' | 'out' | 'both',
  procedure: P,
): P & { readonly stream: 'in' | 'out' | 'both' } => ({ ...procedure, stream })

/** The same call of QEMU's program. */
export const ofQemu = <P extends Procedure<never, unknown>>(procedure: P): P => ({
  ...procedure,
  program: program.qemu,
})
