// Changes that cut the host off and undo themselves, by systemd-networkd.
import { undoSuite } from './uplinks-undo-suite.ts'

await undoSuite('networkd')
