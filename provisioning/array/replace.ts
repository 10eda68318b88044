// The steps that put a new drive in the place of a member. Speaks mdadm(8), manage mode.

import type { Desired } from '../desired.ts'
import type { Action, Step } from '../resource.ts'
import { identityOf, nameOf, selectDrives, titleOf } from './drives.ts'
import type { ArrayObserved, Drive } from './observe.ts'
import { blocked, demandRead, healthGuard, isWorking, mdadm, memberFacts, run } from './steps.ts'

/**
 * The next steps that put the drive with serial `newSerial` in the place of the member `oldSerial`; empty while the kernel is
 * copying, and when nothing is left to do. Performed by `garrison drives replace`, never by a plan.
 */
export function planReplacement(
  observed: ArrayObserved,
  desired: Desired,
  oldSerial: string,
  newSerial: string,
): readonly Step[] {
  demandRead(observed)
  const selection = selectDrives(observed, desired)
  const { ours, verdicts } = selection
  const step = {
    id: 'array.replace',
    subject: newSerial,
    summary: `put ${newSerial} in the place of ${oldSerial}`,
    because: [{ path: 'array.members', desired: newSerial, observed: oldSerial }],
  }
  if (ours.found !== 'running')
    return [blocked(step, 'array.replace-impossible', 'no array of ours is running')]
  const { array } = ours
  const bySerial = (serial: string) => observed.drives.find((drive) => identityOf(drive) === serial)
  const [older, newer] = [bySerial(oldSerial), bySerial(newSerial)]
  const memberOn = (drive: Drive | undefined) =>
    drive && array.members.find((member) => member.drive === drive.name)
  const oldMember = memberOn(older)
  const newMember = memberOn(newer)
  const manage = (...args: readonly string[]): Action =>
    run([mdadm, '--manage', array.path, ...args], { stdin: 'n\n' })
  const remove: readonly Action[] =
    oldMember?.condition === 'faulty' ? [manage('--remove', `/dev/${oldMember.name}`)] : []

  const working = oldMember !== undefined && isWorking(oldMember)
  if (newMember && isWorking(newMember)) {
    // With a slot still empty the new one has a place of its own and has taken nobody's.
    const isShort = array.members.filter(isWorking).length < (array.raidDevices ?? 0)
    if ((working || isShort) && newMember.condition === 'active')
      return [blocked(step, 'array.replace-refused', `${newSerial} is in ${titleOf(array)} already`)]
    // Added, and cut short before the copy was asked for.
    if (working && newMember.condition === 'spare' && newMember.slot === null)
      return [
        {
          ...step,
          risk: 'disruptive',
          actions: [manage('--replace', `/dev/${oldMember.name}`, '--with', `/dev/${newMember.name}`)],
        },
      ]
    // Once the copy is whole the kernel itself marks the old one as faulty.
    if (remove.length === 0) return []
    return [
      {
        ...step,
        id: 'array.remove',
        subject: oldSerial,
        risk: 'safe',
        summary: `take ${oldSerial} out`,
        actions: remove,
      },
    ]
  }
  if (oldMember === undefined && !observed.conf.remembered?.members.includes(oldSerial))
    return [blocked(step, 'array.replace-impossible', `${oldSerial} is no member of ${titleOf(array)}`)]
  if (newer === undefined) return [blocked(step, 'array.member-absent', `no drive has serial ${newSerial}`)]
  const verdict = verdicts.find(({ drive }) => drive === newer.name)
  if (verdict?.verdict === 'refused' || verdict?.verdict === 'member')
    return [
      blocked(step, 'array.replace-refused', `${nameOf(newer)} ${verdict.text}`, {
        refusals: verdict.refusals.map(({ code, message }) => ({ code, message })),
      }),
    ]
  return [
    {
      ...step,
      risk: working ? 'disruptive' : 'safe',
      because: [
        ...step.because,
        {
          path: 'array.members',
          desired: { uuid: array.uuid, members: [memberFacts(newer)] },
          observed: null,
        },
      ],
      actions: [
        ...healthGuard([newer]),
        ...remove,
        manage('--add', newer.path),
        // The array stays redundant while the old drive is copied.
        ...(working ? [manage('--replace', `/dev/${oldMember.name}`, '--with', newer.path)] : []),
      ],
      claims: [newer.path],
    },
  ]
}
