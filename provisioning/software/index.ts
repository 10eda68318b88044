// The resource `software`: the packages of the wanted roles are installed, their units enabled and running.

import type { Resource } from '../resource.ts'
import { checkSoftware } from './check.ts'
import { type ObservedSoftware, observeSoftware } from './observe.ts'
import { planSoftware, unitTrouble } from './plan.ts'

const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`

function describe({ packages, units, halfWay, distribution }: ObservedSoftware): string {
  const installed = packages.filter(({ condition }) => condition === 'installed')
  if (packages.length === 0) return distribution.slice(0, 60)
  const lacking = packages.filter(({ condition }) => condition === 'missing').length
  const present = units.filter((unit) => installed.some(({ name }) => name === unit.package))
  const troubled = present.filter((unit) => unitTrouble(unit) !== null)
  return [
    lacking === 0
      ? count(packages.length, 'package')
      : `${lacking} of ${count(packages.length, 'package')} missing`,
    ...(halfWay.length > 0 ? [`${halfWay.length} half installed`] : []),
    ...(present.length === 0
      ? []
      : [
          troubled.length === 0
            ? count(present.length, 'unit')
            : `${troubled.length} of ${count(present.length, 'unit')} not as wanted`,
        ]),
  ].join(', ')
}

/** Installs by the distribution's own package tool from its own repositories; restarts and removes nothing. */
export const software: Resource<ObservedSoftware> = {
  id: 'software',
  needs: [],
  declared: (desired) => desired.software !== undefined,
  observe: observeSoftware,
  plan: planSoftware,
  check: checkSoftware,
  describe,
}
