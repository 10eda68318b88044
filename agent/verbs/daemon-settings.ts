// The hidden verb `daemon settings`: tells the daemon what the desired document says to it.

import type { DesiredCloudWatch } from '../../provisioning/cloudwatch.ts'
import { HostError } from '../../provisioning/problem.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { type FleetDesired, usualFleet } from '../peers/fleet.ts'
import type { Here } from './fleet-here.ts'

/** The parts of the document that are the daemon's. */
export interface DaemonSettings {
  readonly fleet: FleetDesired
  /** Null: nothing is told there. */
  readonly cloudwatch: DesiredCloudWatch | null
}

/** The answer of `daemon settings`. */
export interface SettingsAnswer {
  readonly settings: DaemonSettings
}

/** Reads the document, or tells what holds without one. Throws `desired.invalid`, `host.denied`. */
export async function run({ root }: Args<'daemon settings'>, here: Here): Promise<SettingsAnswer> {
  const { document } = await here.parts(root)
  try {
    const { fleet, cloudwatch = null } = (await document()).desired
    if (fleet === undefined) return { settings: { fleet: usualFleet, cloudwatch } }
    // Whether there are shells is for the root side to know: here it would begin the membership anew.
    const { shell: _, ...rest } = fleet
    return { settings: { fleet: rest, cloudwatch } }
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'desired.missing') throw error
    return { settings: { fleet: usualFleet, cloudwatch: null } }
  }
}

/** As JSON: nobody but the daemon asks. */
export const render = ({ settings }: SettingsAnswer): string => JSON.stringify(settings)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
