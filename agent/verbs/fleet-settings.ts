// The hidden verb `fleet settings`: tells the daemon what the desired document says of the fleet.

import { HostError } from '../../provisioning/problem.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { type FleetDesired, usualFleet } from '../peers/fleet.ts'
import type { Here } from './fleet-here.ts'

/** The answer of `fleet settings`. */
export interface FleetSettings {
  readonly settings: FleetDesired
}

/** What the document says, or what holds without one. Throws `desired.invalid`, `host.denied`. */
export async function fleetSettings(here: Here, root?: string): Promise<FleetDesired> {
  const { document } = await here.parts(root)
  try {
    return (await document()).desired.fleet ?? usualFleet
  } catch (error) {
    if (error instanceof HostError && error.code === 'desired.missing') return usualFleet
    throw error
  }
}

/** Reads the document. */
export const run = async ({ root }: Args<'fleet settings'>, here: Here): Promise<FleetSettings> => ({
  settings: await fleetSettings(here, root),
})

/** As it would stand in the document. */
export const render = ({ settings }: FleetSettings): string => JSON.stringify(settings)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
