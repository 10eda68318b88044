// What makes the firewall of the host the wanted one: one transaction of nft, undone unless the host is still reached after it.

import type { Desired } from '../desired.ts'
import { remedyOf } from '../problem.ts'
import type { Blocked, Step, Witness } from '../resource.ts'
import { guarded } from '../undo.ts'
import { nftLoad } from './nft.ts'
import { type ObservedFirewall, rulesFile, unit } from './observe.ts'
import { openingText, transactionOf } from './ruleset.ts'

const loadMs = 20_000
const source = (sources: Desired['sources'], path: string) =>
  sources[path] === undefined ? {} : { why: sources[path] }

/** Answers to sessions that are open go on through whatever rules: who is in must be let in again. */
function lockedOut({ sessions }: ObservedFirewall): Blocked | null {
  const out = sessions.filter(({ readmitted }) => !readmitted)
  if (out.length === 0) return null
  const who = [...new Set(out.map(({ peer, interface: over }) => `${peer} over ${over}`))].join(', ')
  return {
    code: 'firewall.locks-out',
    message: `SSH from ${who} is in use, and would not be let in again`,
    remedy: remedyOf('firewall.locks-out'),
  }
}

const witnessesOf = ({ hasSessions, gateway }: ObservedFirewall): readonly Witness[] => {
  if (hasSessions) return [{ kind: 'session' }]
  return gateway === null ? [] : [{ kind: 'neighbour', ...gateway }]
}

/** At most two steps: the rules, and that they are there at the next boot. */
export function plan(observed: ObservedFirewall, { firewall, sources }: Desired): readonly Step[] {
  const { live, wanted, differences, isFileWanted, unitFile } = observed
  if (wanted === null || firewall === undefined) return []
  const steps: Step[] = []
  const text = transactionOf(wanted)
  if (differences.length > 0 || !isFileWanted) {
    const blocked = lockedOut(observed)
    const over = observed.interfaces.map(({ name }) => name).join(', ')
    const openings = firewall.allow.map(openingText).join(', ')
    steps.push(
      guarded(
        {
          id: 'firewall.rules',
          summary: `let in over ${over}: ${openings === '' ? 'nothing' : `${openings} and nothing else`}`,
          risk: 'safe',
          because: [
            ...(differences.length === 0
              ? []
              : [
                  {
                    path: 'firewall',
                    desired: 'the rules of the document',
                    observed: [...differences],
                    ...source(sources, 'firewall'),
                  },
                ]),
            ...(isFileWanted
              ? []
              : [{ path: 'firewall', desired: 'its rules at boot', observed: `${rulesFile} has others` }]),
          ],
          actions: [
            { kind: 'write', path: rulesFile, content: text, mode: 0o644 },
            { kind: 'run', argv: nftLoad(rulesFile), deadlineMs: loadMs, unit: true },
          ],
          ...(blocked && { blocked }),
        },
        {
          reload: [{ argv: nftLoad(), content: transactionOf(live), deadlineMs: loadMs }],
          witnesses: witnessesOf(observed),
        },
      ),
    )
  }
  if (unitFile !== 'enabled')
    steps.push({
      id: 'firewall.boot',
      summary: `load the rules at boot, before the network is begun`,
      risk: 'safe',
      because: [
        { path: 'firewall', desired: `${unit} enabled`, observed: unitFile === '' ? null : unitFile },
      ],
      actions: [
        ...(unitFile === 'masked' || unitFile === 'masked-runtime'
          ? [{ kind: 'run', argv: ['/usr/bin/systemctl', 'unmask', '--', unit], deadlineMs: loadMs } as const]
          : []),
        { kind: 'run', argv: ['/usr/bin/systemctl', 'enable', '--', unit], deadlineMs: loadMs },
      ],
    })
  return steps
}
