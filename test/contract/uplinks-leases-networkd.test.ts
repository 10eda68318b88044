// Leases that make no sense or mischief, with systemd-networkd.
import { leasesSuite } from './uplinks-leases-suite.ts'

await leasesSuite('networkd')
