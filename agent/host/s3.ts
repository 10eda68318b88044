// Where an S3 object is: a signed https URL (AWS Signature Version 4, in the query), with credentials as the AWS SDK finds them.

import { HostError } from '../../provisioning/problem.ts'
import { Imds } from './imds.ts'

/** A signature is good for the beginning of one request. */
const expiresSeconds = 900

const refused = (message: string, cause: unknown): HostError =>
  new HostError('image.no-credentials', message, { cause })

/** The region that this host is in. Throws `image.no-credentials`. */
async function regionOfHost(): Promise<string> {
  const why = 'the region of this host is not known: neither AWS_REGION nor instance metadata say it'
  const instance = await new Imds().instance().catch((cause: unknown) => {
    throw refused(why, cause)
  })
  if (instance === null) throw refused(why, null)
  return instance.region
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
