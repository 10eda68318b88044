// The one table of metrics: what the history keeps, what CloudWatch and Prometheus are told, and what the documents explain.

/** What a value is counted in. */
export type Unit =
  | 'percent'
  | 'bytes'
  | 'bytes-per-second'
  | 'per-second'
  | 'count'
  | 'milliseconds'
  | 'seconds'

/** What a metric is told of: the host as a whole, or each of its parts. The part's name is the dimension of that name. */
export type Scope = 'host' | 'filesystem' | 'drive' | 'array' | 'nic' | 'vm'

/** One metric. */
export interface Metric {
  readonly unit: Unit
  readonly per: Scope
  /** How often there is a new value. */
  readonly everySeconds: 10 | 60 | 300
  readonly meaning: string
}

/** Every metric by its name. Rates are those since the value before. */
export const METRICS = {
  'cpu.busy': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time that processors worked, of all processors together.',
  },
  'cpu.steal': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time that a hypervisor below gave to others while work waited here; 0 on metal.',
  },
  'cpu.io-wait': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time that processors had nothing to do but wait for drives.',
  },
  'load.one': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Tasks that run or wait, averaged over a minute.',
  },
  'load.per-processor': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Tasks that run or wait for each processor, averaged over fifteen minutes.',
  },
  'memory.available': {
    unit: 'bytes',
    per: 'host',
    everySeconds: 10,
    meaning: 'Memory that could be had without swapping.',
  },
  'memory.used': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Memory that could not be had without swapping.',
  },
  'memory.swap-used': { unit: 'bytes', per: 'host', everySeconds: 10, meaning: 'Swap that is in use.' },
  'memory.oom-kills': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Processes that the kernel ended for lack of memory since the value before.',
  },
  'pressure.cpu': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time in which some task waited for a processor.',
  },
  'pressure.memory': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time in which some task waited for memory.',
  },
  'pressure.memory-full': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time in which every task that had work waited for memory.',
  },
  'pressure.io': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time in which some task waited for drives.',
  },
  'pressure.io-full': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Time in which every task that had work waited for drives.',
  },
  'filesystem.used': {
    unit: 'percent',
    per: 'filesystem',
    everySeconds: 60,
    meaning: 'Space in use, of what is not kept for root.',
  },
  'filesystem.free': {
    unit: 'bytes',
    per: 'filesystem',
    everySeconds: 60,
    meaning: 'Space that anybody may still use.',
  },
  'filesystem.inodes-used': {
    unit: 'percent',
    per: 'filesystem',
    everySeconds: 60,
    meaning: 'Inodes in use; no value where the filesystem makes them as it needs them.',
  },
  'drive.read': { unit: 'bytes-per-second', per: 'drive', everySeconds: 10, meaning: 'Bytes read.' },
  'drive.written': { unit: 'bytes-per-second', per: 'drive', everySeconds: 10, meaning: 'Bytes written.' },
  'drive.busy': {
    unit: 'percent',
    per: 'drive',
    everySeconds: 10,
    meaning: 'Time in which at least one request was under way.',
  },
  'drive.latency': {
    unit: 'milliseconds',
    per: 'drive',
    everySeconds: 10,
    meaning: 'How long a request took on average; no value while there was none.',
  },
  'array.lacking': {
    unit: 'count',
    per: 'array',
    everySeconds: 10,
    meaning: 'Members that the array lacks, rebuilding ones among them.',
  },
  'nic.received': {
    unit: 'bytes-per-second',
    per: 'nic',
    everySeconds: 10,
    meaning: 'Bytes received by a NIC of the host.',
  },
  'nic.sent': {
    unit: 'bytes-per-second',
    per: 'nic',
    everySeconds: 10,
    meaning: 'Bytes sent by a NIC of the host.',
  },
  'nic.errors': {
    unit: 'per-second',
    per: 'nic',
    everySeconds: 10,
    meaning: 'Packets that were damaged or dropped, both ways.',
  },
  'units.failed': {
    unit: 'count',
    per: 'host',
    everySeconds: 60,
    meaning: 'Units of systemd that have failed.',
  },
  'clock.offset': {
    unit: 'milliseconds',
    per: 'host',
    everySeconds: 300,
    meaning: 'How far the clock is from the time that chrony knows, either way; no value without chrony.',
  },
  'vms.all': { unit: 'count', per: 'host', everySeconds: 10, meaning: 'VMs that libvirt knows.' },
  'vms.running': { unit: 'count', per: 'host', everySeconds: 10, meaning: 'VMs that run.' },
  'vms.stuck': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'VMs whose QEMU does not answer.',
  },
  'findings.high': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Findings of severity high that stand.',
  },
  'findings.warning': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Findings of severity warning that stand.',
  },
  'resources.drifted': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Resources for which steps are planned; no value while the root side has said nothing.',
  },
  'resources.unknown': {
    unit: 'count',
    per: 'host',
    everySeconds: 10,
    meaning: 'Resources that could not be read; no value while the root side has said nothing.',
  },
  'vm.cpu': {
    unit: 'percent',
    per: 'vm',
    everySeconds: 10,
    meaning: 'Processor time of the VM with its QEMU; 100 is one processor.',
  },
  'vm.memory': {
    unit: 'bytes',
    per: 'vm',
    everySeconds: 10,
    meaning: 'Memory of the host that the VM with its QEMU takes; huge pages are not in it.',
  },
  'vm.read': {
    unit: 'bytes-per-second',
    per: 'vm',
    everySeconds: 60,
    meaning: 'Bytes that the guest read from its disks.',
  },
  'vm.written': {
    unit: 'bytes-per-second',
    per: 'vm',
    everySeconds: 60,
    meaning: 'Bytes that the guest wrote to its disks.',
  },
  'vm.received': {
    unit: 'bytes-per-second',
    per: 'vm',
    everySeconds: 10,
    meaning: 'Bytes that the guest received.',
  },
  'vm.sent': {
    unit: 'bytes-per-second',
    per: 'vm',
    everySeconds: 10,
    meaning: 'Bytes that the guest sent.',
  },
  'agent.memory': {
    unit: 'bytes',
    per: 'host',
    everySeconds: 10,
    meaning: 'Anonymous memory of the daemon.',
  },
  'agent.cpu': {
    unit: 'percent',
    per: 'host',
    everySeconds: 10,
    meaning: 'Processor time of the daemon; 100 is one processor.',
  },
  'agent.lag': {
    unit: 'milliseconds',
    per: 'host',
    everySeconds: 10,
    meaning: 'How much later than it should the daemon came to its work.',
  },
  'agent.files': { unit: 'count', per: 'host', everySeconds: 10, meaning: 'Files that the daemon has open.' },
} as const satisfies Readonly<Record<string, Metric>>

/** The name of a metric. */
export type MetricName = keyof typeof METRICS

/** One value. `dimensions` is empty for the host, else the part by its scope: `{ drive: 'nvme1n1' }`; a VM also by its `uuid`. */
export interface Datapoint {
  readonly metric: MetricName
  readonly unit: Unit
  readonly value: number
  readonly dimensions: Readonly<Record<string, string>>
  /** When it was so, epoch milliseconds. */
  readonly atMs: number
}

/** The part of the host that a value is of; undefined for the host as a whole. */
export const partOf = ({ metric, dimensions }: Datapoint): string | undefined =>
  dimensions[METRICS[metric].per]

/** After so long without a new value what it was of is gone, in milliseconds: three times as long as it should take. */
export const goneMs = (metric: MetricName): number => METRICS[metric].everySeconds * 3000
