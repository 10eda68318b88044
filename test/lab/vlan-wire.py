# Stands in for the VLANs of a kernel that has none: carries frames between a NIC, where they have the tag of the VLAN, and a tap
# of this namespace, where they have none.
#
#   ip netns exec LAN python3 vlan-wire.py NIC ID OWN-TAP

import fcntl, os, select, socket, struct, subprocess, sys

ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 3, 263, 8, 15
TP_STATUS_VLAN_VALID = 1 << 4
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
# What comes with a frame says what is left to do about its checksum and its size, so that nothing has to be done about it here.
HEADER = 10

nic, tag, own_tap = sys.argv[1], int(sys.argv[2]), sys.argv[3]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
wire.bind((nic, ETH_P_ALL))

own = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(own, TUNSETIFF, struct.pack('16sH22x', own_tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
# The switch knows the NIC by its MAC, as that of a VLAN interface would be.
mac = open(f'/sys/class/net/{nic}/address').read().strip()
subprocess.run(['ip', 'link', 'set', own_tap, 'address', mac, 'up'], check=True)
print('ready', flush=True)


def tag_of(ancillary):
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, _ = struct.unpack('IIIHHHH', value[:20])
            return tci & 0xFFF if status & TP_STATUS_VLAN_VALID else None


while True:
    for ready in select.select([wire, own], [], [])[0]:
        try:
            if ready == own:
                frame = os.read(own, 65600)
                addresses = HEADER + 12
                wire.send(frame[:addresses] + struct.pack('!HH', 0x8100, tag) + frame[addresses:])
            else:
                frame, ancillary, _, (_, _, direction, *_) = wire.recvmsg(65600, 64)
                if direction != socket.PACKET_OUTGOING and tag_of(ancillary) == tag:
                    os.write(own, frame)
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
