// The interfaces to the networks outside, by systemd-networkd.
import { suite } from './uplinks-suite.ts'

await suite('networkd')
