// What of a step others than root are told: not what a file that only root may read holds, nor a
// password in a definition, nor the signature in a URL.

import type { Action, Step } from './resource.ts'

const hidden = '(not told)'
const forOthers = 0o077

/** A path or URL without what of a presigned URL is a secret: its query. What is told, shown or written down names a source like this. */
export const toldSource = (source: string): string =>
  /^https?:/i.test(source) ? source.replace(/[?#].*$/s, '') : source

function toldAction(action: Action): Action {
  if (action.kind === 'write' && (action.mode & forOthers) === 0 && action.content !== '')
    return { ...action, content: hidden }
  if (action.kind === 'fetch') return { ...action, source: toldSource(action.source) }
  if (action.kind === 'domain' && action.operation === 'define')
    // Where libvirt itself writes asterisks unless it is asked for passwords.
    return { ...action, xml: action.xml.replace(/(\spasswd=)("[^"]*"|'[^']*')/g, '$1"*****"') }
  return action
}

/** The step as the journal keeps it and verbs show it. */
export const told = <One extends Pick<Step, 'actions'>>(step: One): One => ({
  ...step,
  actions: step.actions.map(toldAction),
})
