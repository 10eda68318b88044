// The allow-list of queries: all that the resources ask passes, nothing that changes a host does.
import t from 'tap'
import type { Argv } from '../../agent/host/exec.ts'
import { onlyReads } from '../../agent/host/queries.ts'
import { chronycTracking, timedatectlSynchronised } from '../../agent/report/host/clock-source.ts'
import { rpmInstallTimes } from '../../agent/report/host/reboot.ts'
import { systemctlFailed } from '../../agent/report/host/units.ts'
import { mdadmDetail, mdadmExamine } from '../../provisioning/array/mdadm.ts'
import { nvmeSmartLog } from '../../provisioning/array/nvme.ts'
import { wipefs } from '../../provisioning/array/wipefs.ts'
import { blkid } from '../../provisioning/block/blkid.ts'
import { btrfsFilesystemShow } from '../../provisioning/block/btrfs.ts'
import { dumpe2fs } from '../../provisioning/block/dumpe2fs.ts'
import { lsblk } from '../../provisioning/block/lsblk.ts'
import { lvmFullReport } from '../../provisioning/block/lvm.ts'
import { xfsInfo } from '../../provisioning/block/xfs-info.ts'
import { ipAddresses, ipNeighbours, ipProxies, ipRoutes, ipRules } from '../../provisioning/link/ip.ts'
import { sfdiskGrow, sfdiskJson } from '../../provisioning/root/sfdisk.ts'
import {
  aptCachePolicy,
  aptInstall,
  aptUpdate,
  dpkgConfigure,
  dpkgQuery,
} from '../../provisioning/software/dpkg.ts'
import { dnfInstall, dnfMakecache, dnfRepoquery, rpmQuery } from '../../provisioning/software/rpm.ts'
import {
  systemctlArchitecture,
  systemctlEnable,
  systemctlResetFailed,
  systemctlShow,
  systemctlStart,
} from '../../provisioning/systemd/systemctl.ts'
import { nmcliConnections } from '../../provisioning/uplinks/networkmanager.ts'
import { qemuImg } from '../../provisioning/vms/qemu-img.ts'
import { resize2fs } from '../../provisioning/volumes/ext4.ts'
import { matchpathcon } from '../../provisioning/volumes/selinux.ts'

const device = '/dev/nvme1n1'

const argvOf = (line: string): Argv => line.split(' ') as unknown as Argv

const asked: readonly Argv[] = [
  blkid(device),
  mdadmDetail('/dev/md/garrison'),
  mdadmExamine([device, '/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS1A:b@c']),
  nvmeSmartLog(device),
  wipefs(device),
  btrfsFilesystemShow('/usr/sbin/btrfs', '/'),
  dumpe2fs(device),
  lsblk(),
  lvmFullReport(),
  xfsInfo('/var/lib/a folder'),
  sfdiskJson(device),
  aptCachePolicy(['libvirt-daemon-system', 'qemu-system-x86']),
  dpkgQuery(),
  dnfRepoquery(['libvirt']),
  rpmQuery(['mdadm', 'lvm2']),
  systemctlShow(['libvirtd.service', 'dev-disk-by\\x2duuid-a.device']),
  systemctlArchitecture(),
  matchpathcon('/var/lib/libvirt'),
  chronycTracking(),
  timedatectlSynchronised(),
  rpmInstallTimes(),
  systemctlFailed(),
  ipAddresses(),
  ...(['inet', 'inet6'] as const).flatMap((family) => [ipRoutes(family), ipRules(family)]),
  ipNeighbours(),
  ipProxies(),
  nmcliConnections(),
  qemuImg('/srv/vms/a folder/web 1.qcow2', 'qcow2'),
  ...[
    '/usr/bin/udevadm settle --timeout=10',
    '/usr/bin/udevadm info --query=property --name=/dev/sda',
    '/usr/bin/getent passwd -- libvirt-qemu',
    '/usr/bin/getent group kvm',
    '/usr/bin/findmnt --json --bytes --target /var/lib',
    '/usr/sbin/lvm lvs --reportformat json -o lv_name garrison',
    '/usr/sbin/smartctl --json --all /dev/sda',
    '/usr/sbin/losetup --list --json',
    '/usr/bin/systemctl is-active libvirtd.service',
    '/usr/bin/systemctl list-units --type=service --all',
  ].map(argvOf),
]

const refused: readonly Argv[] = [
  sfdiskGrow(device, 1),
  aptUpdate(1),
  aptInstall(1, ['x']),
  dpkgConfigure(),
  dnfInstall(['x']),
  dnfMakecache(),
  systemctlEnable('x', true),
  systemctlStart('x'),
  systemctlResetFailed('x'),
  resize2fs(device),
  ...[
    '/usr/sbin/mdadm --create /dev/md/x --level=5 --raid-devices=3 /dev/a /dev/b /dev/c',
    '/usr/sbin/mdadm --zero-superblock /dev/sda',
    '/usr/sbin/mdadm --examine --zero-superblock /dev/sda',
    '/usr/sbin/mdadm --stop /dev/md0',
    '/usr/sbin/mdadm --detail --stop /dev/md0',
    '/usr/sbin/mdadm --assemble --scan',
    '/usr/sbin/mdadm /dev/md0 --add /dev/sda',
    '/usr/sbin/mdadm --monitor --scan --program=/bin/sh',
    '/usr/sbin/wipefs -a /dev/sda',
    '/usr/sbin/wipefs --no-act --all /dev/sda',
    '/usr/sbin/wipefs --all /dev/sda',
    '/usr/sbin/wipefs --backup --no-act /dev/sda',
    '/usr/sbin/wipefs /dev/sda',
    '/usr/sbin/sfdisk -N 1 /dev/sda',
    '/usr/sbin/sfdisk --json --delete /dev/sda',
    '/usr/sbin/sfdisk /dev/sda',
    '/usr/sbin/sfdisk --relocate gpt-bak-std /dev/sda',
    '/usr/sbin/lvremove -f vg/lv',
    '/usr/sbin/lvm lvremove vg/lv',
    '/usr/sbin/lvm pvs --config log{file="/etc/passwd"}',
    '/usr/sbin/lvm',
    '/usr/sbin/pvs --devicesfile x',
    '/usr/sbin/vgs --profile x',
    '/usr/sbin/blkid -g',
    '/usr/sbin/blkid',
    '/usr/sbin/blkid --probe --garbage-collect',
    '/usr/sbin/blkid --probe -c /etc/passwd /dev/sda',
    '/usr/sbin/blockdev --setro /dev/sda',
    '/usr/sbin/blockdev --getro --rereadpt /dev/sda',
    '/usr/sbin/tune2fs -L x /dev/sda',
    '/usr/sbin/tune2fs -l -U random /dev/sda',
    '/usr/bin/btrfs filesystem resize max /',
    '/usr/bin/btrfs filesystem label / x',
    '/usr/bin/rpm -e mdadm',
    '/usr/bin/rpm --query -a --pipe sh',
    '/usr/bin/rpm --query --eval %(id)',
    '/usr/bin/rpm --query --queryformat',
    '/usr/bin/dnf install repoquery',
    '/usr/bin/dnf remove list',
    '/usr/bin/dnf versionlock add list',
    '/usr/bin/dnf repoquery --setopt=x=y a',
    '/usr/bin/dpkg -i x.deb',
    '/usr/bin/apt-cache gencaches',
    '/usr/bin/apt-get install x',
    '/usr/bin/systemctl stop show',
    '/usr/bin/systemctl start is-active',
    '/usr/bin/systemctl --no-pager stop x',
    '/usr/bin/systemctl show --host=other x',
    '/usr/bin/systemctl reboot',
    '/usr/bin/systemctl',
    '/usr/bin/udevadm trigger',
    '/usr/bin/udevadm info --cleanup-db',
    '/usr/bin/udevadm settle --exit-if-exists=/x --reload',
    '/usr/sbin/nvme format /dev/nvme1n1',
    '/usr/sbin/nvme sanitize /dev/nvme1n1',
    '/usr/sbin/nvme smart-log /dev/nvme1n1 --force',
    '/usr/sbin/smartctl -t long /dev/sda',
    '/usr/sbin/smartctl -s off /dev/sda',
    '/usr/sbin/losetup --find --show /tmp/x',
    '/usr/bin/qemu-img info --output=json -- /srv/vms/a.qcow2',
    '/usr/bin/qemu-img info --format=qcow2 json:{}',
    '/usr/bin/qemu-img info --format=qcow2 --image-opts driver=raw',
    '/usr/bin/qemu-img create --format=qcow2 /srv/vms/a.raw 1M',
    '/usr/sbin/ip link set dev eth0 down',
    '/usr/sbin/ip -json -details address flush dev eth0',
    '/usr/sbin/ip -json -details -N -4 route del default',
    '/usr/sbin/ip -json -details address show -batch /tmp/x',
    '/usr/sbin/ip -batch /tmp/x -json -details address show',
    '/usr/sbin/ip netns exec x id',
    '/usr/bin/nmcli --terse --escape yes --fields UUID,DEVICE,STATE,FILENAME connection delete',
    '/usr/bin/nmcli connection show --show-secrets',
    '/usr/bin/nmcli connection down x',
    '/usr/sbin/ip -json -details -N -4 route save',
    '/usr/sbin/losetup --list --detach-all',
    '/usr/sbin/losetup -D',
    '/usr/sbin/swapon -a',
    '/usr/sbin/dmsetup remove x',
    '/usr/sbin/dmsetup table --showkeys',
    '/usr/bin/journalctl --vacuum-size=1',
    '/usr/bin/journalctl --no-pager --rotate',
    '/usr/bin/virsh list',
    '/usr/bin/lsattr /dev/sda',
    '/bin/sh -c id',
    '/usr/bin/sh -c id',
    '/usr/bin/env lsblk',
    '/usr/local/bin/lsblk',
    'lsblk',
    '/usr/bin/../bin/lsblk',
    '/usr/bin//lsblk',
    '/usr/bin/lsblk/',
    '/usr/bin/lsblk --output',
    '/usr/bin/lsblk --sysroot=/x',
    '/usr/bin/lsblk /etc/passwd',
    '/usr/bin/lsblk -- --json',
    '/usr/bin/constructor',
    '/usr/bin/toString',
    '/usr/bin/__proto__',
  ].map(argvOf),
  ['/usr/sbin/mdadm', '--detail', '/dev/md0\n--stop'],
  ['/usr/bin/lsblk', ''],
]

t.test('what the resources ask passes', async (t) => {
  for (const argv of asked) t.ok(onlyReads(argv), argv.join(' '))
})

t.test('what changes a host, and what nobody has looked at, is refused', async (t) => {
  for (const argv of refused) t.notOk(onlyReads(argv), argv.join(' '))
})

/** Options that mean reading to some program. */
const isAskedElsewhere = /^--(all|examine|detail|query|eval|no-act|probe|json|show|scan|getro|no-pager|list)$/

t.test('an option of a mutating form makes of each query one that is refused', async (t) => {
  const options = new Set(
    refused.flatMap((argv) =>
      argv.slice(1).filter((one) => /^--[a-z]/.test(one) && !onlyReads([argv[0], one])),
    ),
  )
  const known = new Set(asked.flatMap((argv) => argv.slice(1)))
  let tried = 0
  for (const argv of asked) {
    const end = argv.indexOf('--')
    for (const option of options) {
      if (known.has(option) || isAskedElsewhere.test(option)) continue
      for (let at = 1; at <= (end === -1 ? argv.length : end); at += 1) {
        // After an option that takes a value it is that value.
        if (
          /^(-o|--(output|units|reportformat|configreport|queryformat|showformat|target))$/.test(
            argv[at - 1] ?? '',
          )
        )
          continue
        const [program, ...mixed] = argv.toSpliced(at, 0, option)
        if (program !== undefined && onlyReads([program, ...mixed])) t.fail([program, ...mixed].join(' '))
        tried += 1
      }
    }
  }
  t.ok(tried > 1000, `${tried} tried`)
})
