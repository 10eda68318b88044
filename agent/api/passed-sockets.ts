// The sockets that systemd passed to this process (sd_listen_fds(3)).

/** One of them, by its FileDescriptorName. */
export interface PassedSocket {
  readonly name: string
  readonly fd: number
}

const firstPassedFd = 3

/** Those that were passed to this very process; none when it was not started by a socket. */
export function passedSockets(env: NodeJS.ProcessEnv): readonly PassedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env
  if (Number(LISTEN_PID) !== process.pid || !LISTEN_FDS) return []
  const names = LISTEN_FDNAMES?.split(':') ?? []
  return [...Array(Number(LISTEN_FDS)).keys()].map((at) => ({
    name: names[at] ?? '',
    fd: firstPassedFd + at,
  }))
}
