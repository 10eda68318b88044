// Files in which an administrator names devices to be used later: fstab(5), crypttab(5), systemd mount and swap units.

/** One name of a device in a file: a path, or UUID=, LABEL=, PARTUUID=, PARTLABEL=, ID=. */
export interface Naming {
  readonly kind: 'fstab' | 'crypttab' | 'mdadm-conf' | 'unit'
  readonly file: string
  readonly spec: string
}

const unescapeOctal = (field: string): string =>
  field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

const rows = (text: string): readonly (readonly string[])[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(/\s+/).map(unescapeOctal))

const unquoted = (spec: string): string => spec.replace(/^([A-Z]+=)?"(.*)"$/, '$1$2')

/** Devices that fstab mounts or swaps on; also those that other options name (`logdev=`, `x-systemd.device=`…). */
export const parseFstab = (text: string): readonly string[] =>
  rows(text).flatMap(([spec = '', , , options = '']) => [
    unquoted(spec),
    ...options
      .split(',')
      .flatMap((option) => /^(?:logdev|rtdev|journal_path|device)=(.+)$/.exec(option)?.[1] ?? []),
  ])

/** Devices that crypttab opens, and devices that hold their headers or keys. */
export const parseCrypttab = (text: string): readonly string[] =>
  rows(text).flatMap(([, spec = '', key = '', options = '']) => [
    unquoted(spec),
    ...(key.startsWith('/dev/') ? [key] : []),
    ...options.split(',').flatMap((option) => /^header=(.+)$/.exec(option)?.[1] ?? []),
  ])

/** The `What=` of a mount or swap unit; the last one counts. */
export const parseUnitWhat = (text: string): readonly string[] =>
  text
    .split('\n')
    .flatMap((line) => /^\s*What\s*=\s*(.*?)\s*$/.exec(line)?.[1] ?? [])
    .slice(-1)
    .map(unquoted)
