// AWS as the guest of an outpost has it: EC2 (moto) and the instance metadata in the VPC, and a NIC for what is attached.
import {
  CreateSubnetCommand,
  DescribeNetworkInterfacesCommand,
  DescribeSubnetsCommand,
  EC2Client,
  type NetworkInterface,
  RunInstancesCommand,
} from '@aws-sdk/client-ec2'
import type { Backend } from '../../provisioning/uplinks/observe.ts'
import { type Ec2Front, startEc2Front } from '../contract/ec2-front.ts'
import { type FakeImds, startFakeImds } from '../contract/fake-imds.ts'
import { type Moto, startMoto } from '../contract/moto.ts'
import { giveAddress } from './backends.ts'
import type { Guest, Port } from './guest.ts'
import { addresses, type Outpost } from './outpost.ts'

const region = ['us', 'east', '1'].join('-')
const port = 8000
/** So long the metadata say 0 of an interface that was attached. */
const spreadMs = 3000

/** Made by `makeAws`; use `await using`, or call `close`. */
export class Aws {
  readonly front: Ec2Front
  readonly imds: FakeImds
  readonly #moto: Moto
  readonly #console: EC2Client
  readonly #outpost: Outpost
  readonly #mac: string
  /** The NIC of the attached interface. */
  lni: Port | null = null
  subnetId = ''
  instanceId = ''

  constructor(moto: Moto, front: Ec2Front, imds: FakeImds, outpost: Outpost, mac: string) {
    this.#mac = mac
    this.#moto = moto
    this.front = front
    this.imds = imds
    this.#outpost = outpost
    // What a person with the rights of the account does, past the front.
    const credentials = { accessKeyId: 'a-person', secretAccessKey: 'a-person' }
    this.#console = new EC2Client({ region, endpoint: moto.endpoint, credentials })
  }

  /** Leads the VPC to the servers, and makes the instance that the guest is. */
  async open(): Promise<void> {
    const mac = this.#mac
    await this.#outpost.lead('vpc', addresses.metadata, 80, this.imds.endpoint)
    await this.#outpost.lead('vpc', addresses.vpc, port, this.front.endpoint)
    const [{ VpcId, CidrBlock = '' } = {}] =
      (await this.#console.send(new DescribeSubnetsCommand({}))).Subnets ?? []
    const made = await this.#console.send(
      new CreateSubnetCommand({ VpcId, CidrBlock: CidrBlock.replace(/\d+\.\d+\/\d+$/, '240.0/24') }),
    )
    this.subnetId = made.Subnet?.SubnetId ?? ''
    this.front.setSubnet(this.subnetId, { outpostArn: 'that of a server' })
    const { Instances } = await this.#console.send(
      new RunInstancesCommand({
        ...{ ImageId: 'ami-12345678', MinCount: 1, MaxCount: 1 },
        ...{ SubnetId: this.subnetId, InstanceType: 'c6id.metal' },
      }),
    )
    this.instanceId = Instances?.[0]?.InstanceId ?? ''
    const role = 'iam/security-credentials/'
    for (const [path, text] of Object.entries({
      'instance-id': this.instanceId,
      'placement/region': region,
      'placement/availability-zone': `${region}a`,
      'services/partition': 'aws',
      mac,
      [role]: 'host',
      [`${role}host`]: JSON.stringify({
        ...{ Code: 'Success', Type: 'AWS-HMAC', LastUpdated: new Date().toISOString() },
        ...{ AccessKeyId: 'a-host', SecretAccessKey: 'a-host', Token: 'a-host' },
        Expiration: new Date(Date.now() + 21_600_000).toISOString(),
      }),
    }))
      this.imds.paths.set(path, text)
    this.#tell(mac, 0, null)
  }

  /** The interfaces of the instance's subnet beside its first one, as EC2 has them. */
  async interfaces(): Promise<readonly NetworkInterface[]> {
    const Filters = [{ Name: 'subnet-id', Values: [this.subnetId] }]
    const { NetworkInterfaces = [] } = await this.#console.send(
      new DescribeNetworkInterfacesCommand({ Filters }),
    )
    return NetworkInterfaces.filter(({ Attachment }) => Attachment?.DeviceIndex !== 0)
  }

  /** What an attachment does to the guest: a NIC with the MAC of the interface, of which the metadata say 0 at first. */
  async plug(guest: Guest): Promise<void> {
    const [one] = await this.interfaces()
    const { MacAddress: mac, NetworkInterfaceId: id = '', Attachment } = one ?? {}
    if (mac === undefined || Attachment === undefined) throw new Error('nothing is attached')
    this.lni = this.#outpost.port('lan', mac)
    await guest.attachNic(this.lni)
    this.#tell(mac, 0, id)
    setTimeout(() => this.#tell(mac, Attachment.DeviceIndex ?? 0, id), spreadMs).unref()
  }

  /** Gives a guest its address in the VPC, as an image of EC2 does, and leads its root side to this EC2. */
  async prepare(guest: Guest, backend: Backend = 'networkd'): Promise<void> {
    await giveAddress[backend](guest, this.#mac)
    const environment = `[Service]\nEnvironment=AWS_ENDPOINT_URL_EC2=http://${addresses.vpc}:${port}\n`
    await guest.writeFile('/etc/systemd/system/garrison-operate.service.d/aws.conf', environment)
  }

  #tell(mac: string, deviceNumber: number, interfaceId: string | null): void {
    const { paths } = this.imds
    const list = 'network/interfaces/macs/'
    const macs = new Set([...(paths.get(list) ?? '').split('\n').filter(Boolean), `${mac}/`])
    paths.set(list, [...macs].join('\n'))
    paths.set(`${list}${mac}/device-number`, String(deviceNumber))
    paths.set(`${list}${mac}/subnet-id`, this.subnetId)
    if (interfaceId !== null) paths.set(`${list}${mac}/interface-id`, interfaceId)
  }

  /** Ends all of it. */
  async close(): Promise<void> {
    this.#console.destroy()
    await Promise.all([this.front.close(), this.imds.close()])
    await this.#moto.stop()
  }

  /** Same as `close`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** Starts AWS in the VPC of an outpost, with an instance whose first interface has this MAC. */
export async function makeAws(outpost: Outpost, mac: string): Promise<Aws> {
  const moto = await startMoto()
  const aws = new Aws(moto, await startEc2Front(moto.endpoint), await startFakeImds({}), outpost, mac)
  try {
    await aws.open()
  } catch (error) {
    await aws.close()
    throw error
  }
  return aws
}
