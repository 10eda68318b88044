// The allow-list of queries: which programs may be asked what, so that reading the host can never change it.

import type { Argv } from './exec.ts'

/** One way in which a program only reads. */
interface Form {
  /** The first arguments, word for word; a verb elsewhere is an operand of another verb. */
  readonly verb?: string
  /** Options that may be there; one that takes a value (as the next argument or after `=`) ends in `=`. */
  readonly options?: string
  /** One of these options must be there. */
  readonly must?: string
  /** Every other argument must match; without it there may be none. */
  readonly operands?: RegExp
}

const device = /^\/dev\/[\w./+:@=-]+$/
const path = /^\/[^\0\n]*$/
const word = /^\w[^\0\n]*$/

const lvmReport: Form = {
  options: '--all --nosuffix --noheadings --options= -o= --units= --reportformat= --select= --configreport=',
  operands: /^[\w/][\w./+:@=-]*$/,
}

const forms: Readonly<Record<string, readonly Form[]>> = {
  lsblk: [
    {
      options: '--json --bytes --all --nodeps --paths --list --inverse --noheadings --pairs --raw --output=',
      operands: device,
    },
  ],
  // Without --probe it reads and rewrites its cache.
  blkid: [
    {
      must: '--probe',
      options: '--info --no-part-details --output= --match-tag= --usages=',
      operands: device,
    },
  ],
  wipefs: [{ must: '--no-act', options: '--json --noheadings --parsable --output=', operands: device }],
  mdadm: [
    { must: '--detail --examine', options: '--scan --export --verbose --brief', operands: device },
    { must: '--examine-bitmap', operands: device },
    { must: '--detail-platform --version' },
  ],
  lvm: ['fullreport', 'pvs', 'vgs', 'lvs'].map((verb): Form => ({ ...lvmReport, verb })),
  sfdisk: [
    {
      must: '--json --dump --list --list-free --verify',
      options: '--bytes --output=',
      operands: device,
    },
  ],
  dumpe2fs: [{ must: '-h', operands: device }],
  xfs_info: [{ operands: path }],
  btrfs: ['show', 'usage'].map(
    (verb): Form => ({ verb: `filesystem ${verb}`, options: '--raw', operands: path }),
  ),
  'dpkg-query': [
    { must: '--show', options: '--showformat=', operands: word },
    { must: '--status --list', options: '--no-pager', operands: word },
  ],
  'apt-cache': [{ verb: 'policy', operands: word }],
  // --pipe, --eval and --define run commands.
  rpm: [{ must: '--query', options: '--all --whatprovides --queryformat=', operands: word }],
  dnf: [
    {
      verb: 'repoquery',
      options:
        '--quiet --cacheonly --installed --available --upgrades --latest-limit= --queryformat= --whatprovides=',
      operands: word,
    },
  ],
  systemctl: [
    'show',
    'list-units',
    'list-unit-files',
    'is-active',
    'is-enabled',
    'is-failed',
    'is-system-running',
  ].map(
    (verb): Form => ({
      verb,
      options: '--all --no-pager --no-legend --plain --value --quiet --property= --type= --state= --output=',
      operands: word,
    }),
  ),
  // Without an address family and with --kill it ends connections.
  ss: [{ options: '--no-header --tcp --numeric --info --oneline --processes' }],
  findmnt: [
    {
      options:
        '--json --list --noheadings --bytes --real --kernel --fstab --submounts --output= --target= --source= --mountpoint= --types=',
      operands: path,
    },
  ],
  udevadm: [
    { verb: 'settle', options: '--timeout=' },
    { verb: 'info', options: '--export-db --query= --name= --path= --property= --json=' },
  ],
  nvme: ['list', 'smart-log', 'id-ctrl', 'id-ns'].map(
    (verb): Form => ({ verb, options: '--output-format= --namespace-id=', operands: device }),
  ),
  smartctl: [
    { options: '--all --info --health --attributes --xall --json --device= --nocheck=', operands: device },
  ],
  losetup: [{ must: '--list', options: '--json --all --noheadings --raw --output=', operands: device }],
  getent: [
    { verb: 'passwd', operands: word },
    { verb: 'group', operands: word },
  ],
  // Without a format it guesses one, and may follow what a guest has written into its disk.
  'qemu-img': [
    {
      verb: 'info',
      must: '--format=qcow2 --format=raw',
      options: '--output= --force-share',
      operands: path,
    },
  ],
  // Its options stand before the object, and after `show` is only what chooses among what is shown.
  ip: ['', '-N ', '-N -4 ', '-N -6 '].flatMap((options) =>
    ['address', 'link', 'route', 'rule', 'neighbour'].map(
      (object): Form => ({ verb: `-json -details ${options}${object} show`, operands: /^[\w.:/-]+$/ }),
    ),
  ),
  nmcli: [{ verb: '--terse --escape yes --fields UUID,DEVICE,STATE,FILENAME connection show' }],
  nft: [{ verb: '--json list table', operands: /^(inet|bridge|garrison\w*)$/ }],
  uname: [{ must: '--machine' }],
  chronyc: [{ verb: '-c -n tracking' }],
  timedatectl: [{ verb: 'show', options: '--property= --value' }],
  matchpathcon: [{ options: '-V -n', operands: path }],
}

const words = (list = ''): readonly string[] => list.split(' ').filter((one) => one !== '')

function fits(args: readonly string[], { verb, options, must, operands }: Form): boolean {
  const first = words(verb)
  if (!first.every((one, at) => args[at] === one)) return false
  const [known, needed] = [words(options), words(must)]
  let isFound = must === undefined
  for (let at = first.length; at < args.length; at += 1) {
    const arg = args[at] ?? ''
    if (arg === '--') return isFound && args.slice(at + 1).every((one) => operands?.test(one) ?? false)
    if (needed.includes(arg)) isFound = true
    else if (known.includes(`${arg}=`)) {
      // The value is the next argument, whatever it looks like.
      at += 1
      if (at === args.length) return false
    } else if (arg.startsWith('-')) {
      const [, name] = /^(--[\w-]+=)/.exec(arg) ?? []
      if (!known.includes(name ?? arg)) return false
    } else if (!operands?.test(arg)) return false
  }
  return isFound
}

/** Whether this argv is known to change nothing: only exact options of known programs pass, so what is new is refused. */
export function onlyReads([program, ...args]: Argv): boolean {
  const [, name] = /^\/usr\/s?bin\/([\w-]+)$/.exec(program) ?? []
  if (name === undefined || !Object.hasOwn(forms, name)) return false
  return forms[name]?.some((form) => fits(args, form)) ?? false
}
