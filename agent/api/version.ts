// The version of this agent.

import packageJson from '../../package.json' with { type: 'json' }

/** As in package.json: `0.1.0`. */
export const { version } = packageJson
