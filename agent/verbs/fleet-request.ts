// The verb `fleet request`: asks for this host to issue certificates.

import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { requestIssuer } from '../peers/issuing.ts'
import { enteredFolder, type Here } from './fleet-here.ts'

/** The answer of `fleet request`. */
export interface IssuerRequest {
  readonly request: string
}

/** Makes the request, or tells the one that is open. Throws `fleet.none`, `fleet.denied`. */
export const run = async ({ folder }: Args<'fleet request'>, here: Here): Promise<IssuerRequest> => ({
  request: await requestIssuer(await enteredFolder(here, folder)),
})

/** The request and nothing else: it is meant for a file. */
export const render = ({ request }: IssuerRequest): string => request.trimEnd()

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
