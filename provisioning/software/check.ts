// How healthy the installed software is: packages that are not offered, held or half way, units that failed or are masked.

import type { Finding } from '../resource.ts'
import type { ObservedSoftware } from './observe.ts'
import { unitTrouble } from './plan.ts'

// A power cut in a large installation leaves dozens.
const shortList = (names: readonly string[]): string =>
  names.length > 4 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ')

/** Findings `software.not-offered`, `.held`, `.interrupted`, `.unit-failed`, `.unit-masked`, `.unit-missing`. */
export function checkSoftware({
  packages,
  units,
  halfWay,
  interrupted,
  distribution,
}: ObservedSoftware): readonly Finding[] {
  const findings: Finding[] = []
  const notOffered = packages.filter(({ offered }) => offered === false)
  for (const role of new Set(notOffered.map(({ wantedBy }) => wantedBy))) {
    const names = notOffered.filter(({ wantedBy }) => wantedBy === role).map(({ name }) => name)
    findings.push({
      code: 'software.not-offered',
      // The console is a convenience; a host without the others is no VM host.
      severity: role === 'console' ? 'warning' : 'high',
      subject: role,
      text: `${distribution} offers no ${names.join(', ')}`,
      remedy:
        role === 'packages'
          ? 'Mend the name in software.packages, or configure the repository that has it.'
          : `Leave ${role} out of software.roles, or configure a repository that has them; Garrison adds none.`,
    })
  }
  const held = packages.filter((one) => one.held && one.condition === 'installed').map(({ name }) => name)
  if (held.length > 0)
    findings.push({
      code: 'software.held',
      severity: 'notice',
      text: `on hold, so without updates: ${held.join(', ')}`,
      remedy: 'Release them with apt-mark unhold when the reason for it is gone.',
    })
  if (halfWay.length > 0 || interrupted)
    findings.push({
      code: 'software.interrupted',
      severity: 'warning',
      text: `package work was interrupted${halfWay.length > 0 ? `: ${shortList(halfWay.map(({ name, condition }) => `${name} ${condition}`))}` : ''}`,
      remedy: 'garrison apply finishes it when software is declared; by hand: dpkg --configure -a.',
    })
  const installed = new Set(
    packages.filter(({ condition }) => condition === 'installed').map(({ name }) => name),
  )
  for (const unit of units.filter((one) => installed.has(one.package))) {
    const trouble = unitTrouble(unit)
    if (trouble === 'failed')
      findings.push({
        code: 'software.unit-failed',
        severity: 'high',
        subject: unit.unit,
        text: `${unit.unit} failed`,
        remedy: `See why with journalctl -u ${unit.unit}; garrison apply starts it again.`,
      })
    if (trouble === 'masked')
      findings.push({
        code: 'software.unit-masked',
        severity: 'warning',
        subject: unit.unit,
        text: `${unit.unit} is masked and cannot start`,
        remedy: `systemctl unmask ${unit.unit} when the reason for it is gone.`,
      })
    if (trouble === 'missing')
      findings.push({
        code: 'software.unit-missing',
        severity: 'high',
        subject: unit.unit,
        text: `${unit.package} is installed, but there is no ${unit.unit}`,
        remedy: `Look for files of ${unit.package} that were removed, and reinstall it.`,
      })
  }
  return findings
}
