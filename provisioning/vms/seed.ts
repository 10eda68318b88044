// The NoCloud seed of a VM: what a declaration may say for cloud-init, and the files that its guest reads at boot.

import { z } from 'zod'

/** Key types of OpenSSH (sshd(8), AUTHORIZED_KEYS FILE FORMAT); DSA is gone from it. */
const keyTypes = [
  'ssh-ed25519',
  'ssh-rsa',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com',
]

/** Whether a text is one public key: its type, its bytes (which repeat the type, RFC 4253 6.6), and perhaps a comment. */
function isPublicKey(text: string): boolean {
  const [type = '', encoded = ''] = text.split(' ')
  if (!keyTypes.includes(type) || /[\0-\x1f\x7f]/.test(text)) return false
  const bytes = Buffer.from(encoded, 'base64')
  if (bytes.toString('base64') !== encoded || bytes.length < 4) return false
  const length = bytes.readUInt32BE(0)
  return bytes.subarray(4, 4 + length).toString('latin1') === type && bytes.length > 4 + length
}

const sshKey = z
  .string()
  .max(16_384)
  .refine(isPublicKey, 'must be one public key as ssh-keygen writes it, such as "ssh-ed25519 AAAA… name"')

const hostname = z
  .string()
  .max(253)
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i,
    'must be a host name: letters, digits and - in labels parted by dots',
  )

/** What cloud-init takes as user data that is text: it goes by the first line (cloud-init, User-data formats). */
const userDataText = z
  .string()
  .regex(
    /^(#cloud-config\n|#!|#include\b|#cloud-boothook\b|#cloud-config-archive\n|## template: ?jinja\n|Content-Type: multipart)/i,
    'must begin as cloud-init wants it: #cloud-config, #!, #include, …; or be written as a map of keys',
  )

/** What cloud-init is told in the guest. */
export const cloudInitSchema = z
  .strictObject({
    hostname: hostname.optional().describe('The host name of the guest. Default: the name of the VM.'),
    sshKeys: z
      .array(sshKey)
      .max(100)
      .default([])
      .describe('Public keys for the default user of the image, one line each.'),
    userData: z
      .union([z.record(z.string(), z.json()), userDataText])
      .optional()
      .describe(
        'cloud-config as a map of keys, or the text of any user data. No passwords: it is journalled.',
      ),
    network: z
      .union([z.literal('dhcp'), z.literal('none'), z.looseObject({ version: z.literal(2) })])
      .default('dhcp')
      .describe(
        'dhcp: every NIC asks, but those with an address of their own; none: left to the guest; or a map as netplan reads it (version: 2).',
      ),
  })
  .describe('What cloud-init is told in the guest, by a small CD (NoCloud) that is made for it.')

/** What cloud-init is told, after defaults. */
export type CloudInit = z.output<typeof cloudInitSchema>

/** One NIC as the guest's network configuration knows it. Addresses with their prefix length. */
export interface SeedNic {
  readonly mac: string
  readonly addresses: readonly string[]
  readonly gateways: readonly string[]
  readonly nameservers: readonly string[]
}
