// The allow-list of queries: which programs may be asked what, so that reading the host can never change it.

import { basename, dirname } from 'node:path'
import type { Argv } from './exec.ts'

/** One way in which a program only reads. */
interface Form {
  /** The first arguments, word for word. */
  readonly verb?: readonly string[]
  /** Options without a value. */
  readonly flags?: string
  /** Options whose value follows, as the next argument or after `=`. */
  readonly valued?: string
  /** One of these must be there. */
  readonly must?: string
  /** Every other argument must match; without it there may be none. */
  readonly operands?: RegExp
}

const device = /^\/dev\/[A-Za-z0-9_][\w./+:@=-]*$/
const path = /^\/[^\0]*$/
const word = /^[A-Za-z0-9_][^\0]*$/

const lvmReport: Form = {
  flags: '-a --all --nosuffix --noheadings --readonly --nolocking --binary --nohints',
  valued: '-o --options --units --reportformat --separator -S --select --configreport',
  operands: /^(\/dev\/[\w./+:@=-]+|[A-Za-z0-9_+.][\w+./-]*)$/,
}

const forms: Readonly<Record<string, readonly Form[]>> = {
  lsblk: [
    {
      flags:
        '--json -J --bytes -b --all -a --nodeps -d --paths -p --list -l --inverse -s --noheadings -n --pairs -P --raw -r',
      valued: '--output -o --include -I --exclude -e',
      operands: device,
    },
  ],
  // Without --probe it reads and rewrites the cache in /run/blkid.
  blkid: [
    {
      must: '--probe -p',
      flags: '--probe -p --info -i --no-encoding -d --no-part-details -D',
      valued: '--output -o --match-tag -s --usages -u --match-types -n --size -S --offset -O',
      operands: device,
    },
  ],
  wipefs: [
    {
      must: '--no-act -n',
      flags: '--no-act -n --json -J --noheadings -i --parsable -p',
      valued: '--output -O',
      operands: device,
    },
  ],
  mdadm: [
    {
      must: '--detail -D',
      flags: '--detail -D --scan -s --export -Y --verbose -v --brief -b --test -t',
      operands: device,
    },
    {
      must: '--examine -E',
      flags: '--examine -E --scan -s --export -Y --verbose -v --brief -b',
      operands: device,
    },
    { must: '--examine-bitmap -X', flags: '--examine-bitmap -X', operands: device },
    { must: '--detail-platform --version -V', flags: '--detail-platform --version -V' },
  ],
  lvm: [
    { ...lvmReport, verb: ['fullreport'] },
    { ...lvmReport, verb: ['pvs'] },
    { ...lvmReport, verb: ['vgs'] },
    { ...lvmReport, verb: ['lvs'] },
    { verb: ['version'] },
  ],
  pvs: [lvmReport],
  vgs: [lvmReport],
  lvs: [lvmReport],
  dmsetup: [
    { verb: ['table'], operands: word },
    { verb: ['ls'], flags: '--tree', valued: '--target' },
    { verb: ['info'], flags: '-c -C --columns --noheadings', valued: '-o --separator', operands: word },
  ],
  sfdisk: [
    {
      must: '--json -J --dump -d --list -l --list-free -F --verify -V',
      flags: '--json -J --dump -d --list -l --list-free -F --verify -V --bytes',
      valued: '--output -o',
      operands: device,
    },
  ],
  blockdev: [
    {
      must: '--getsize64 --getro --getss --getpbsz --getiomin --getioopt --report',
      flags: '--getsize64 --getro --getss --getpbsz --getiomin --getioopt --report',
      operands: device,
    },
  ],
  dumpe2fs: [{ must: '-h', flags: '-h', operands: device }],
  tune2fs: [{ must: '-l', flags: '-l', operands: device }],
  xfs_info: [{ operands: path }],
  btrfs: [
    { verb: ['filesystem', 'show'], flags: '--raw --mounted --all-devices', operands: path },
    { verb: ['filesystem', 'usage'], flags: '--raw -b -T', operands: path },
    { verb: ['device', 'usage'], flags: '--raw -b', operands: path },
  ],
  'dpkg-query': [
    { must: '--show -W', flags: '--show -W', valued: '--showformat -f', operands: word },
    { must: '--status -s --list -l', flags: '--status -s --list -l --no-pager', operands: word },
  ],
  dpkg: [
    { must: '--audit -C --print-architecture', flags: '--audit -C --print-architecture', operands: word },
  ],
  'apt-cache': [
    { verb: ['policy'], operands: word },
    { verb: ['show'], flags: '--no-all-versions', operands: word },
  ],
  'apt-mark': [{ verb: ['showhold'], operands: word }],
  // rpm has --pipe, --eval and --define, any of which runs commands.
  rpm: [
    {
      must: '-q --query -qa',
      flags: '-q --query -qa -a --all --whatprovides --installed --nosignature --nodigest',
      valued: '--queryformat --qf',
      operands: word,
    },
  ],
  dnf: [
    {
      must: 'repoquery',
      flags: '-q --quiet -C --cacheonly --installed --available --upgrades --latest-limit=1 --nvr --nevra',
      valued: '--queryformat --qf --whatprovides --arch',
      operands: word,
    },
    { must: 'list', flags: '-q --quiet -C --cacheonly --installed --available --upgrades', operands: word },
    { must: 'versionlock', flags: '-q --quiet -C --cacheonly', operands: /^(versionlock|list)$/ },
  ],
  'needs-restarting': [{ must: '-r --reboothint -s --services', flags: '-r --reboothint -s --services' }],
  systemctl: [
    'show',
    'list-units',
    'list-unit-files',
    'list-jobs',
    'is-active',
    'is-enabled',
    'is-failed',
    'is-system-running',
    'cat',
    'get-default',
  ].map(
    (verb): Form => ({
      must: verb,
      flags: '--all -a --no-pager --no-legend --plain --value --failed --full -l --quiet -q',
      valued: '--property -p -P --type -t --state --output -o',
      operands: word,
    }),
  ),
  'systemd-escape': [{ flags: '--path -p --unescape -u', valued: '--suffix --template', operands: path }],
  'systemd-detect-virt': [{ flags: '--vm -v --container -c --quiet -q' }],
  journalctl: [
    {
      must: '--no-pager',
      flags: '--no-pager --dmesg -k --quiet -q --reverse -r --all -a --utc',
      valued:
        '--output -o --lines -n --since -S --until -U --unit -u --boot -b --grep -g --priority -p --identifier -t',
    },
  ],
  findmnt: [
    {
      flags:
        '--json -J --list -l --noheadings -n --bytes -b --real --pseudo --df -D --evaluate -e --all -A --kernel -k --fstab -s --mtab -m --submounts -R --nofsroot -v --first-only -f --raw -r --pairs -P --uniq -u --verify -x --verbose',
      valued: '--output -o --target -T --source -S --mountpoint -M --types -t --options -O --task -N',
      operands: /^(\/|[A-Z]+=).*$/,
    },
  ],
  udevadm: [
    { verb: ['settle'], valued: '--timeout -t' },
    {
      verb: ['info'],
      flags: '--export-db -e --export -x --attribute-walk -a --no-pager',
      valued: '--query -q --name -n --path -p --property --json',
      operands: path,
    },
  ],
  nvme: ['list', 'smart-log', 'id-ctrl', 'id-ns', 'list-subsys', 'list-ns', 'error-log'].map(
    (verb): Form => ({
      verb: [verb],
      flags: '--verbose -v --human-readable -H',
      valued: '--output-format -o --namespace-id -n --log-entries -e',
      operands: device,
    }),
  ),
  smartctl: [
    {
      flags:
        '-a --all -i --info -H --health -A --attributes -x --xall -j --json --json=c -c --capabilities --scan --scan-open',
      valued: '-d --device -n --nocheck -l --log',
      operands: device,
    },
  ],
  losetup: [
    {
      must: '--list -l --all -a',
      flags: '--list -l --all -a --json -J --noheadings -n --raw',
      valued: '--output -O',
      operands: device,
    },
  ],
  swapon: [
    {
      must: '--show --show=NAME,TYPE,SIZE',
      flags: '--show --show=NAME,TYPE,SIZE --bytes --noheadings --raw',
    },
  ],
  getent: [
    { verb: ['passwd'], operands: word },
    { verb: ['group'], operands: word },
  ],
  getenforce: [{}],
  selinuxenabled: [{}],
  matchpathcon: [{ flags: '-n -V', operands: path }],
  lsinitramfs: [{ flags: '-l', operands: path }],
  lsinitrd: [{ valued: '--file -f', operands: path }],
}

const words = (list: string | undefined): readonly string[] => list?.split(' ') ?? []

function fits(args: readonly string[], { verb = [], flags, valued, must, operands }: Form): boolean {
  if (!verb.every((one, index) => args[index] === one)) return false
  const [plain, taking, needed] = [words(flags), words(valued), words(must)]
  if (must !== undefined && !args.some((arg) => needed.includes(arg))) return false
  let onlyOperands = false
  for (let at = verb.length; at < args.length; at += 1) {
    const arg = args[at] ?? ''
    if (!onlyOperands && arg.startsWith('-')) {
      if (arg === '--') onlyOperands = true
      else if (taking.includes(arg)) at += 1
      else if (
        !plain.includes(arg) &&
        !(arg.includes('=') && taking.includes(arg.slice(0, arg.indexOf('='))))
      )
        return false
      if (at >= args.length) return false
    } else if (!operands?.test(arg) && !needed.includes(arg)) return false
  }
  return true
}

/** Whether this argv is known to change nothing: only exact options of known programs pass, so what is new is refused. */
export const onlyReads = ([program, ...args]: Argv): boolean =>
  ['/usr/bin', '/usr/sbin'].includes(dirname(program)) &&
  program === `${dirname(program)}/${basename(program)}` &&
  (Object.hasOwn(forms, basename(program)) ? (forms[basename(program)] ?? []) : []).some((form) =>
    fits(args, form),
  )
