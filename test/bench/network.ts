// What each mode costs a VM's traffic: TCP both ways and round trips of UDP to a host on the LAN, beside a bare veth through the same
// switch. All in namespaces of one run: a veth stands for the NIC of the VM, a macvlan for that of passthrough, and everything else
// is what `garrison apply` and a real libvirtd have made.
//
//   node test/bench/network.ts [ROUNDS [SECONDS]]     as root; 10 rounds of 2 s for each measure when left out

import { execFileSync } from 'node:child_process'
import { loadavg } from 'node:os'
import { type Namespace, namespaces } from '../contract/namespaces.ts'
import { everything, vmnetsWire } from '../contract/vmnets-world.ts'

const rounds = Number(process.argv[2] ?? 10)
const seconds = Number(process.argv[3] ?? 2)

const server = `
import socket, threading
def serve(port, each):
    listening = socket.create_server(('0.0.0.0', port))
    while True:
        threading.Thread(target=each, args=(listening.accept()[0],), daemon=True).start()
def sink(peer):
    buffer = bytearray(1 << 20)
    while peer.recv_into(buffer): pass
def source(peer):
    try:
        while True: peer.sendall(bytes(1 << 20))
    except OSError: pass
def echo():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(('0.0.0.0', 5003))
    while True: sock.sendto(*sock.recvfrom(2000))
for target, args in (serve, (5001, sink)), (serve, (5002, source)), (echo, ()):
    threading.Thread(target=target, args=args).start()
print('ready', flush=True)
`
const client = `
import json, socket, sys, time
to, seconds = sys.argv[1], float(sys.argv[2])
def bits(port, step):
    peer = socket.create_connection((to, port))
    begin, total = time.monotonic(), 0
    while (now := time.monotonic() - begin) < seconds: total += step(peer)
    return total * 8 / now / 1e9
whole, buffer = bytes(1 << 18), bytearray(1 << 20)
sends = bits(5001, lambda peer: peer.send(whole))
receives = bits(5002, lambda peer: peer.recv_into(buffer))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((to, 5003))
sock.settimeout(5)
took, end = [], time.monotonic() + seconds
while time.monotonic() < end:
    begin = time.perf_counter()
    sock.send(bytes(64))
    sock.recv(2000)
    took.append((time.perf_counter() - begin) * 1e6)
took.sort()
print(json.dumps({'sends': sends, 'receives': receives, 'p50': took[len(took) // 2], 'p99': took[len(took) * 99 // 100]}))
`

type Figures = Readonly<Record<'sends' | 'receives' | 'p50' | 'p99', number>>

const wire = await vmnetsWire()
const made = namespaces()
try {
  wire.declare(everything)
  const { line } = await wire.apply()
  if (line.outcome !== 'settled') throw new Error(JSON.stringify(line))

  const onHost = (...argv: readonly string[]) =>
    execFileSync('/usr/bin/nsenter', ['-t', String(wire.libvirtd.pid), '-n', '--', '/usr/sbin/ip', ...argv])
  const far = '192.0.2.40'

  /** A namespace with an `eth0` that is brought there, an address, and a gateway if there is one. */
  function place(label: string, address: string, gateway: string | null, plug: (space: Namespace) => void) {
    const space = made.make(label)
    plug(space)
    space.ip('address', 'add', address, 'dev', 'eth0')
    space.ip('link', 'set', 'eth0', 'up')
    if (gateway !== null) space.ip('route', 'add', 'default', 'via', gateway)
    return space
  }
  const onSwitch =
    (port: string) =>
    ({ name }: Namespace) => {
      const cable = ['link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name]
      wire.at('sw', '/usr/sbin/ip', ...cable)
      wire.at('sw', '/usr/sbin/ip', 'link', 'set', port, 'master', 'br0', 'up')
    }
  const onBridge =
    (port: string, bridge: string) =>
    ({ name }: Namespace) => {
      onHost('link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
      onHost('link', 'set', port, 'master', bridge, 'up')
    }
  const onSpareNic = ({ name }: Namespace) => {
    const cable = ['link', 'add', 'p-spare', 'type', 'veth', 'peer', 'name', 'spare', 'netns']
    wire.at('sw', '/usr/sbin/ip', ...cable, String(wire.libvirtd.pid))
    wire.at('sw', '/usr/sbin/ip', 'link', 'set', 'p-spare', 'master', 'br0', 'up')
    onHost('link', 'set', 'spare', 'up')
    onHost('link', 'add', 'link', 'spare', 'name', 'taken', 'type', 'macvlan', 'mode', 'passthru')
    onHost('link', 'set', 'taken', 'netns', name, 'name', 'eth0')
  }
  const lan = place('lan', `${far}/24`, '192.0.2.1', onSwitch('p-far'))
  const places = {
    'bare veth': place('bare', '192.0.2.30/24', null, onSwitch('p-bare')),
    routed: place('routed', '192.0.2.70/27', '192.0.2.65', onBridge('nic-routed', 'vm-default')),
    nat: place('nat', '10.77.0.9/24', '10.77.0.1', onBridge('nic-nat', 'vm-hidden')),
    passthrough: place('whole', '192.0.2.31/24', null, onSpareNic),
  }
  await lan.start(['/usr/bin/python3', '-c', server])

  const measured = Object.keys(places).map((name) => [name, [] as Figures[]] as const)
  const of = Object.fromEntries(measured) as Record<keyof typeof places, Figures[]>
  for (let round = 0; round < rounds; round += 1)
    for (const [name, space] of Object.entries(places)) {
      const { exit, stdout, stderr } = space.run(['/usr/bin/python3', '-c', client, far, String(seconds)])
      if (exit !== 0) throw new Error(`${name}: ${stderr}`)
      of[name as keyof typeof places].push(JSON.parse(stdout))
    }

  const median = (numbers: readonly number[]): number =>
    numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN
  console.log(
    `${rounds} rounds of ${seconds} s each, load ${loadavg()[0]?.toFixed(1)}; medians, and of the ratios to the bare veth of the same round`,
  )
  for (const [name, all] of measured) {
    const told = (key: keyof Figures, unit: string) => {
      const ratio = median(all.map((one, round) => one[key] / (of['bare veth'][round]?.[key] ?? Number.NaN)))
      return `${key} ${median(all.map((one) => one[key])).toFixed(1)} ${unit} (${ratio.toFixed(2)} x)`
    }
    const figures = [
      told('sends', 'Gbit/s'),
      told('receives', 'Gbit/s'),
      told('p50', 'µs'),
      told('p99', 'µs'),
    ]
    console.log(`${name.padEnd(12)} ${figures.join('   ')}`)
  }
} finally {
  await made.close()
  await wire.stop()
}
