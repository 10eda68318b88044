// LVM's own text backup of a group (/etc/lvm/backup/GROUP), which it keeps on root and removes with the group.

/** The logical volumes that LVM's text backup of a group (/etc/lvm/backup/GROUP) lists. */
export function volumesInBackup(text: string): readonly string[] {
  const names: string[] = []
  const open: string[] = []
  for (const line of text.split('\n')) {
    const [, name] = /^\s*([\w.+-]+)\s*\{/.exec(line) ?? []
    if (name !== undefined) {
      if (open.at(-1) === 'logical_volumes') names.push(name)
      open.push(name)
    } else if (/^\s*\}/.test(line)) open.pop()
  }
  return names
}
