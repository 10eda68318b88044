// Why one VM is as it is, down to the parts of the host that it stands on.

import { HostError } from '../../provisioning/problem.ts'
import type { Assessment } from '../../provisioning/resource.ts'
import type { ObservedVms } from '../../provisioning/vms/observe.ts'
import { nowReasons, type Reason } from './reasons.ts'

/** Whether a step or finding of `vms` is about a VM or a part of it: `web`, `web.root`. */
export const isAboutVm =
  (name: string) =>
  (subject: string | undefined): boolean =>
    subject === name || (subject?.startsWith(`${name}.`) ?? false)

/** The parts of the host that a VM stands on and that are not as they should be, the lowest last. */
function below({ needs }: Assessment, all: readonly Assessment[]): readonly Assessment[] {
  const found = needs.flatMap((need) => all.find(({ resource }) => resource === need) ?? [])
  const troubled = found.filter(
    ({ declared, standing, findings }) =>
      declared && (standing !== 'settled' || findings.some(({ severity }) => severity === 'high')),
  )
  return [...new Set([...troubled.toReversed(), ...found.toReversed().flatMap((one) => below(one, all))])]
}

/** Why the VM of that name is as it is. Throws `request.no-such-vm`. */
export function vmReasons(vms: Assessment, all: readonly Assessment[], name: string): readonly Reason[] {
  const { problem } = vms
  if (problem)
    return [
      {
        text: `Nobody can tell what ${name} does, and it may well run: ${problem.code}: ${problem.message}.`,
        remedy: problem.remedy,
      },
    ]
  const { machines, undeclared } = vms.observed as ObservedVms
  const seen = machines.find((one) => one.name === name)
  if (seen === undefined) {
    const other = undeclared.find((one) => one.name === name)
    if (other === undefined) throw new HostError('request.no-such-vm', `the document declares no VM ${name}`)
    return [{ text: `${name} is ${other.power}. It is not declared, so nothing is done to it by itself.` }]
  }
  const { domain } = seen
  const power =
    domain === null ? 'is declared, and libvirt does not know it' : `is ${domain.power} (${domain.reason})`
  const [, ...reasons] = nowReasons(vms, all, isAboutVm(name))
  if (reasons.length === 0) return [{ text: `${name} ${power}, as it is declared.` }]
  return [
    { text: `${name} ${power}.` },
    ...reasons,
    ...below(vms, all).flatMap((one) => nowReasons(one, all, () => true)),
  ]
}
