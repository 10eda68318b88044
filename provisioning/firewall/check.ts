// What is not as it should be with the firewall, for people and rollouts.

import type { Finding } from '../resource.ts'
import { type ObservedFirewall, rulesFile, unit } from './observe.ts'

/** Findings: rules that differ are grave, since no security group stands before an LNI. */
export function check(observed: ObservedFirewall): readonly Finding[] {
  const { wanted, differences, unitFile, isFileWanted, isFirewalldActive, interfaces } = observed
  if (wanted === null)
    return isFileWanted
      ? []
      : [
          {
            code: 'firewall.left-behind',
            severity: 'notice',
            text: `the document has no firewall, and the rules of an earlier one are still loaded at boot`,
            remedy: `Declare a firewall again, or take them away: rm ${rulesFile}; nft delete table inet garrison`,
          },
        ]
  const findings: Finding[] = []
  if (differences.length > 0)
    findings.push({
      code: 'firewall.differs',
      severity: 'high',
      text: `the rules of the kernel are not those of the document: ${differences.slice(0, 3).join('; ')}${differences.length > 3 ? `; and ${differences.length - 3} more` : ''}`,
      remedy: 'See garrison plan --only firewall, then garrison apply --only firewall.',
    })
  if (differences.length === 0 && (!isFileWanted || unitFile !== 'enabled'))
    findings.push({
      code: 'firewall.not-at-boot',
      severity: 'warning',
      text: `after a restart of the host ${isFileWanted ? `nothing would load the rules (${unit} is ${unitFile === '' ? 'not there' : unitFile})` : 'other rules would be loaded'}`,
      remedy: 'garrison apply --only firewall mends it.',
    })
  if (isFirewalldActive)
    findings.push({
      code: 'firewall.firewalld-too',
      severity: 'notice',
      text: 'firewalld is active and judges the same packets: what it refuses stays refused',
      remedy:
        'Open there what is open here (firewall-cmd --list-all shows it), or give these interfaces a zone that accepts.',
    })
  for (const { name, isThere } of interfaces)
    if (!isThere)
      findings.push({
        code: 'firewall.interface-absent',
        severity: 'notice',
        subject: name,
        text: 'no interface is this one now; its rules take effect when one is',
        remedy:
          'See ip link and garrison plan uplinks; correct firewall.interfaces if it is called something else.',
      })
  return findings
}
