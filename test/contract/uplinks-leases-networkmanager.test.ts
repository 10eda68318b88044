// Leases that make no sense or mischief, with NetworkManager.
import { leasesSuite } from './uplinks-leases-suite.ts'

await leasesSuite('networkmanager')
