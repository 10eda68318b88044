# Stands in for the system of a guest that has none: carries frames between the tap that QEMU holds and a tap of this namespace,
# so that they pass everything that libvirt has put on the guest's NIC.
#
#   ip netns exec VM python3 guest-wire.py QEMU-PID HOST-TAP OWN-TAP MAC

import ctypes, fcntl, os, re, select, struct, subprocess, sys

PIDFD_OPEN, PIDFD_GETFD = 434, 438
TUNSETIFF, TUNGETIFF = 0x400454CA, 0x800454D2
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

pid, host_tap, own_tap, mac = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)


def syscall(*args):
    result = libc.syscall(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def interface(number):
    return struct.unpack('16sH', fcntl.ioctl(number, TUNGETIFF, struct.pack('16sH22x', b'', 0))[:18])


qemu = syscall(PIDFD_OPEN, pid, 0)
# A tap is /dev/net/tun, a macvtap a device of its own.
taps = [int(one) for one in os.listdir(f'/proc/{pid}/fd') if re.match('/dev/(net/tun|tap[0-9])', os.readlink(f'/proc/{pid}/fd/{one}'))]
for guest in [syscall(PIDFD_GETFD, qemu, number, 0) for number in taps]:
    name, flags = interface(guest)
    if name.rstrip(b'\0').decode() == host_tap:
        break
else:
    sys.exit(f'{pid} holds no {host_tap}')
header = 10 if flags & IFF_VNET_HDR else 0
if header:
    header = struct.unpack('i', fcntl.ioctl(guest, 0x800454D7, struct.pack('i', 0)))[0]

own = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(own, TUNSETIFF, struct.pack('16sH22x', own_tap.encode(), IFF_TAP | IFF_NO_PI))
subprocess.run(['ip', 'link', 'set', own_tap, 'address', mac, 'up'], check=True)
os.set_blocking(guest, False)
print('ready', flush=True)
while True:
    for ready in select.select([guest, own, qemu], [], [])[0]:
        # The guest has ended.
        if ready == qemu:
            sys.exit()
        try:
            if ready == own:
                os.write(guest, bytes(header) + os.read(own, 65536))
            else:
                os.write(own, os.read(guest, 65536)[header:])
        except (BlockingIOError, OSError):
            pass
