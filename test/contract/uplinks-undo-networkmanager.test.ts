// Changes that cut the host off and undo themselves, by NetworkManager.
import { undoSuite } from './uplinks-undo-suite.ts'

await undoSuite('networkmanager')
