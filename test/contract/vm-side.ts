// The side of VMs that have no system in them: their definition, and programs that a namespace behind a NIC runs in their place.

import { join } from 'node:path'

/** Carries frames between the tap that QEMU holds and one of a namespace; its head says how it is called. */
export const wirePath = join(import.meta.dirname, 'guest-wire.py')

/** A NIC: the network of libvirt that it is on, its MAC when it matters, and what else libvirt is to be told of it. */
export interface VmNic {
  readonly network: string
  readonly mac?: string
  readonly more?: string
}

/** The definition of a VM without a disk. */
export const vmXml = (name: string, nics: readonly VmNic[]): string =>
  `<domain type='qemu'><name>${name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='pc'>hvm</type></os>
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${nics
      .map(
        ({ network, mac, more = '' }) =>
          `<interface type='network'>${mac === undefined ? '' : `<mac address='${mac}'/>`}
            <source network='${network}'/><model type='e1000'/><rom enabled='no'/>${more}</interface>`,
      )
      .join('')}
      <memballoon model='none'/></devices></domain>`

/** `python3 -c listener PORT ADDRESS`: says `ready`, then for one connection who called and what it sent. */
export const listener = `
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET
server = socket.create_server((sys.argv[2], int(sys.argv[1])), family=family)
print('ready', flush=True)
server.settimeout(20)
peer, address = server.accept()
print(address[0], peer.recv(100).decode(), flush=True)
`

/** `python3 -c caller ADDRESS PORT`: connects within four seconds and sends a word. */
export const caller = `
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4)
peer.sendall(b'hello')
`

/** `python3 -c flood ADDRESS PORT SECONDS MBPS BYTES`: sends datagrams of that size at that rate. */
export const flood = `
import socket, sys, time
to, seconds, mbps, size = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begin, sent = time.monotonic(), 0
while (now := time.monotonic() - begin) < seconds:
    if sent * (size + 42) * 8 > now * mbps * 1e6:
        time.sleep(0.001)
        continue
    sender.sendto(bytes(size), to)
    sent += 1
`

/** `python3 -c gauge PORT FROM TO`: says `ready`, then how many Mbit/s of frames came between two moments after the first, in s. */
export const gauge = `
import socket, sys, time
begin, end = float(sys.argv[2]), float(sys.argv[3])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('0.0.0.0', int(sys.argv[1])))
server.settimeout(60)
print('ready', flush=True)
server.recv(2000)
first, bits = time.monotonic(), 0
while (now := time.monotonic() - first) < end:
    size = len(server.recv(2000))
    bits += (size + 42) * 8 if now >= begin else 0
print(bits / (end - begin) / 1e6, flush=True)
`
