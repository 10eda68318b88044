// A shell as installed: the package in a box with a real systemd, where the shell is root without limits, and its unit ends with its session.
import t from 'tap'
import { bootSystemdBox, builtDeb } from './systemd-box.ts'

t.setTimeout(600_000)

const box = await bootSystemdBox(await builtDeb(), (line) => t.comment(line))
t.teardown(() => box.close())

const sh = (line: string) => box.run(['/bin/sh', '-c', line], { allowFailure: true })
const shells = async () =>
  (
    await box.run([
      ...['/usr/bin/systemctl', 'list-units', '--all', '--plain', '--no-legend', 'garrison-shell-*.service'],
    ])
  ).stdout.trim()

/** `garrison shell` of the box to itself, on a terminal; what is typed comes after it has begun. */
const atShell = (typed: string, stays = 5) =>
  sh(
    `{ sleep 4; cat <<'END'\n${typed}\nEND\n sleep ${stays}; } | TERM=vt220 USER=alice script -q -e -c 'garrison shell box --at 127.0.0.1 --size 91x37' /dev/null`,
  )

await t.test('the package installs, and a fleet of one is begun', async () => {
  await box.install()
  await box.run(['/usr/bin/garrison', 'fleet', 'init', '--name', 'box'])
  await box.until('its port is open', async () =>
    (await sh('ss -Hltn sport = :7443')).stdout.includes('7443'),
  )
})

await t.test('off until the document says so', async (t) => {
  await sh('mkdir -p /etc/garrison; echo "version: 1" > /etc/garrison/host.yaml')
  t.match((await atShell('')).stdout, /shell\.off/)
  t.equal(await shells(), '')
})

await t.test('the door is the daemon’s, not its group’s', async (t) => {
  t.equal((await sh('stat -c "%U %G %a" /run/garrison/shell.sock')).stdout, 'garrison root 600\n')
  await sh('useradd --groups garrison,garrison-read alice')
  const { stdout } = await sh('runuser -u alice -- garrison status --json --socket /run/garrison/shell.sock')
  t.match(stdout, /door\.refused.*permission denied/)
  t.match(
    (await sh('runuser -u alice -- garrison shell box --at 127.0.0.1 < /dev/null 2>&1')).stdout,
    /garrison: /,
  )
})

await t.test('it is root without limits, on a terminal of the size that was said', async (t) => {
  await sh('echo "version: 1\nfleet: { shell: true }" > /etc/garrison/host.yaml')
  const { stdout } = await atShell(
    [
      'id -u; stty size; echo $TERM; pwd; grep CapEff /proc/self/status; cat /proc/self/cgroup',
      'mount -t tmpfs garrison-tried /mnt && touch /usr/garrison-tried && echo wrote-$((6 * 7))',
      'exit 3',
    ].join('\n'),
  )
  t.match(stdout, /A shell of root on box/)
  t.match(stdout, /\u001b\[\?2004l\r0\r\n37 91\r\nvt220\r\n\/root\r\nCapEff:/)
  t.match(stdout, /garrison-shell-[0-9a-f]+\.service/)
  t.match(stdout, /wrote-42/)
  const all = (await sh('grep CapEff /proc/1/status')).stdout.trim()
  t.match(stdout, all, 'it may what the first process of the box may')
  t.match(stdout, /The shell on box has ended \(exit 3\)/)
  await box.until('its unit is gone', async () => (await shells()) === '')
  t.match((await sh('findmnt --noheadings --output SOURCE /mnt')).stdout, 'garrison-tried', 'seen outside')
  const { stdout: journal } = await box.run(['/usr/bin/garrison', 'journal'])
  t.match(
    journal.replace(/\n +/g, ' '),
    /asked +shell, for shell\.sock \(the daemon\), says alice.* on peer box/,
  )
  t.match(
    (await sh('stat -c "%U %a" /var/lib/garrison/shells /var/lib/garrison/shells/*')).stdout,
    /^root 700\nroot 600\n/,
  )
})

for (const [what, line] of [
  ['the client is killed', "pkill -KILL -f '[g]arrison shell box'"],
  ['the daemon is', 'systemctl kill --signal=KILL garrison.service'],
  ['the root side is', 'systemctl kill --signal=KILL garrison-operate.service'],
] as const)
  await t.test(`when ${what}, nothing of it is left`, async (t) => {
    const sat = atShell('trap "" HUP; sleep $((5000 + 77)) & sleep $((5000 + 78))', 60)
    await box.until('it sleeps', async () => (await sh("pgrep -f '[s]leep 5078'")).stdout !== '')
    t.not(await shells(), '')
    await sh(line)
    await box.until('nothing is left', async () => (await sh("pgrep -f '[s]leep 507'")).stdout === '')
    await box.until('its unit is gone', async () => (await shells()) === '')
    await sh("pkill -f '[s]leep 60'")
    await sat
  })
