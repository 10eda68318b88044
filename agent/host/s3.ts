// Where an S3 object is: a signed https URL (AWS Signature Version 4, in the query), with credentials as the AWS SDK finds them.

import { HostError } from '../../provisioning/problem.ts'

/** A signature is good for the beginning of one request. */
const expiresSeconds = 900
const metadataMs = 2000

const refused = (message: string, cause: unknown): HostError =>
  new HostError('image.no-credentials', message, { cause })

/** The region that this host is in, as the instance metadata (IMDSv2) tell it. Throws `image.no-credentials`. */
async function regionOfHost(): Promise<string> {
  const { AWS_EC2_METADATA_SERVICE_ENDPOINT: endpoint = 'http://169.254.169.254' } = process.env
  const ask = async (path: string, options: RequestInit): Promise<string> => {
    const response = await fetch(new URL(path, endpoint), {
      ...options,
      signal: AbortSignal.timeout(metadataMs),
    })
    if (!response.ok) throw new Error(`${path} answers ${response.status}`)
    return response.text()
  }
  try {
    const token = await ask('/latest/api/token', {
      method: 'PUT',
      headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '60' },
    })
    return await ask('/latest/meta-data/placement/region', { headers: { 'x-aws-ec2-metadata-token': token } })
  } catch (cause) {
    throw refused(
      'the region of this host is not known: neither AWS_REGION nor instance metadata say it',
      cause,
    )
  }
}

/**
 * The URL of `s3://BUCKET/KEY`, for one GET that begins within the next minutes. `region`: where S3 has said that the bucket is.
 * Throws `image.no-credentials`.
 */
export async function signedUrl(source: string, region?: string): Promise<URL> {
  const [, bucket, key] = /^s3:\/\/([^/]+)\/(.+)$/s.exec(source) ?? []
  const [{ GetObjectCommand, S3Client }, { getSignedUrl }] = await Promise.all([
    import('@aws-sdk/client-s3'),
    import('@aws-sdk/s3-request-presigner'),
  ])
  const { AWS_REGION, AWS_DEFAULT_REGION } = process.env
  const client = new S3Client({
    region: region ?? AWS_REGION ?? AWS_DEFAULT_REGION ?? (await regionOfHost()),
  })
  try {
    const url = await getSignedUrl(client, new GetObjectCommand({ Bucket: bucket, Key: key }), {
      expiresIn: expiresSeconds,
    })
    return new URL(url)
  } catch (cause) {
    if (!(cause instanceof Error) || cause.name !== 'CredentialsProviderError') throw cause
    throw refused(`there are no AWS credentials to read ${source} with: ${cause.message}`, cause)
  } finally {
    client.destroy()
  }
}
