// The interfaces to the networks outside, by NetworkManager.
import { suite } from './uplinks-suite.ts'

await suite('networkmanager')
