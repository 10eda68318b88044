// The verb `inventory`: what this host is made of, by systeminformation, which starts programs and reads the firmware's tables.

import { HostError } from '../../provisioning/problem.ts'
import { EXIT, type Exit } from '../api/verbs.ts'
import type { Inventory } from '../report/report.ts'

/** The answer of `inventory`. */
export interface InventoryAnswer {
  readonly inventory: Inventory
}

const numberOrNull = (value: unknown): number | null =>
  typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : null

/** Reads it. What only root may read is empty. Throws `host.unreadable`. */
export async function run(): Promise<InventoryAnswer> {
  const { baseboard, cpu, diskLayout, mem, networkInterfaces, osInfo, system } = await import(
    'systeminformation'
  )
  try {
    const [os, machine, board, processor, memory, drives, nics] = await Promise.all([
      osInfo(),
      system(),
      baseboard(),
      cpu(),
      mem(),
      diskLayout(),
      networkInterfaces(),
    ])
    return {
      inventory: {
        system: { distro: os.distro, release: os.release, kernel: os.kernel, arch: os.arch },
        machine: { vendor: machine.manufacturer || board.manufacturer, model: machine.model || board.model },
        processor: {
          model: `${processor.manufacturer} ${processor.brand}`.trim(),
          sockets: processor.processors,
          cores: processor.physicalCores,
          threads: processor.cores,
        },
        memoryBytes: memory.total,
        drives: drives.map(({ device, name, serialNum, size }) => ({
          name: device.replace('/dev/', ''),
          model: name,
          serial: serialNum,
          sizeBytes: size ?? 0,
        })),
        nics: (Array.isArray(nics) ? nics : [nics])
          .filter(({ virtual }) => !virtual)
          .map(({ iface, mac, mtu, speed }) => ({
            ...{ name: iface, mac, mtu: numberOrNull(mtu), speedMbps: numberOrNull(speed) },
          })),
      },
    }
  } catch (cause) {
    throw new HostError('host.unreadable', `what the host is made of could not be read: ${cause}`, { cause })
  }
}

/** As JSON: nobody but the daemon asks. */
export const render = ({ inventory }: InventoryAnswer): string => JSON.stringify(inventory, null, 2)

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
