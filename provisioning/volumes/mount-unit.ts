// Mount units of systemd (systemd.mount(5)), written as files: names, contents, and where they are enabled.

/** Folder of the units that an administrator makes. */
const unitFolder = '/etc/systemd/system'

/** How long boot waits for the device of a volume: longer than mdadm waits (30 s) before it starts an array with a member missing. */
const deviceTimeoutSeconds = 60

/** First line of every unit of ours; a unit without it is somebody else's and is never replaced. */
export const unitMark = '# Written by Garrison from the desired document; changes here are undone.'

/** The unit name of a path, without suffix, as `systemd-escape --path` has it. The path is absolute and normalized. */
export function escapePath(path: string): string {
  const escaped = [...Buffer.from(path.slice(1), 'utf8')].map((byte, index) => {
    const character = String.fromCharCode(byte)
    if (character === '/') return '-'
    const plain = index === 0 ? /[\w:]/ : /[\w:.]/
    return plain.test(character) ? character : `\\x${byte.toString(16).padStart(2, '0')}`
  })
  return escaped.join('')
}

/** The files that mount one filesystem at one path. */
export interface MountUnit {
  readonly name: string
  readonly path: string
  readonly text: string
  /** The link whose presence means enabled. */
  readonly wantedPath: string
  /** The drop-in that bounds the wait for the device, and what it says. */
  readonly devicePath: string
  readonly deviceText: string
}

/**
 * The mount unit of a filesystem. `nofail` in Options keeps it out of what local-fs.target waits for, and WantedBy lets the boot go
 * on without it. In a unit file x-systemd.device-timeout is ignored (systemd.mount(5)), so the wait is bounded at the device's
 * unit. That device comes up only when its volume, group and array are, so nothing else need be ordered after the array; what
 * stands on the volume is ordered after the mount.
 */
export function mountUnit(volume: {
  readonly name: string
  readonly group: string
  readonly path: string
  readonly uuid: string
  readonly filesystem: 'xfs' | 'ext4'
}): MountUnit {
  const { name, group, path, uuid, filesystem } = volume
  const device = escapePath(`/dev/disk/by-uuid/${uuid}`)
  const unit = `${escapePath(path)}.mount`
  // A native unit gets no check of its filesystem unless it asks; xfs needs none.
  const check =
    filesystem === 'ext4'
      ? [`Requires=systemd-fsck@${device}.service`, `After=systemd-fsck@${device}.service`]
      : []
  return {
    name: unit,
    path: `${unitFolder}/${unit}`,
    text: [
      unitMark,
      '[Unit]',
      `Description=Volume ${name} of group ${group}`,
      'Documentation=man:garrison(8)',
      ...check,
      'Before=libvirtd.service virtqemud.service virtstoraged.service',
      '',
      '[Mount]',
      `What=/dev/disk/by-uuid/${uuid}`,
      `Where=${path.replaceAll('%', '%%')}`,
      `Type=${filesystem}`,
      'Options=nofail',
      '# Replaying a full log while the array resyncs can outlast the default of 90 s.',
      'TimeoutSec=300',
      '',
      '[Install]',
      'WantedBy=local-fs.target',
      '',
    ].join('\n'),
    wantedPath: `${unitFolder}/local-fs.target.wants/${unit}`,
    devicePath: `${unitFolder}/${device}.device.d/50-garrison.conf`,
    deviceText: [unitMark, '[Unit]', `JobRunningTimeoutSec=${deviceTimeoutSeconds}`, ''].join('\n'),
  }
}
