// What the desired document says of the fleet.

import { HostError } from '../../provisioning/problem.ts'
import { type FleetDesired, usualFleet } from '../peers/fleet.ts'
import type { Here } from './fleet-here.ts'

/** What the document says, or what holds without one. Throws `desired.invalid`, `host.denied`. */
export async function fleetSettings(here: Here): Promise<FleetDesired> {
  const { document } = await here.parts()
  try {
    return (await document()).desired.fleet ?? usualFleet
  } catch (error) {
    if (error instanceof HostError && error.code === 'desired.missing') return usualFleet
    throw error
  }
}
