// AWS Signature Version 4 ("Authenticating Requests", AWS General Reference): the canonical request, its hash
// in the string to sign, a key derived from date, region and service. Only what our requests have: a body, a
// path and a query that are encoded already, and few headers.
import { createHash, createHmac } from 'node:crypto'

export interface AwsKeys {
  accessKeyId: string
  secretAccessKey(): string
}

export interface AwsScope {
  region: string
  service: string
}

export interface Signable {
  method: string
  /** With the query, percent-encoded. */
  path: string
  /** Names in lower case, `host` among them. */
  headers: Readonly<Record<string, string>>
  body: string
}

/** The headers to add: `x-amz-date` and `authorization`. */
export function signAws(
  request: Signable, keys: AwsKeys, { region, service }: AwsScope, now: Date
): { 'x-amz-date': string, 'authorization': string } {
  const stamp = now.toISOString().replaceAll(/[-:]|\.\d{3}/g, '')
  const day = stamp.slice(0, 8)
  const headers = { ...request.headers, 'x-amz-date': stamp }
  const { text, names } = canonical({ ...request, headers })
  const scope = `${day}/${region}/${service}/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', stamp, scope, sha256(text)].join('\n')
  const key = [day, region, service, 'aws4_request'].reduce<Buffer>(
    (before, word) => hmac(before, word), Buffer.from(`AWS4${keys.secretAccessKey()}`))
  const signature = hmac(key, toSign).toString('hex')
  const credential = `${keys.accessKeyId}/${scope}`
  return {
    'x-amz-date': stamp,
    'authorization':
      `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`
  }
}

function canonical({ method, path, headers, body }: Signable): { text: string, names: string } {
  const [plain = '/', query = ''] = path.split('?', 2)
  const sorted = Object.entries(headers).sort(([one], [other]) => one < other ? -1 : 1)
  const names = sorted.map(([name]) => name).join(';')
  const lines = sorted.map(([name, value]) => `${name}:${value.trim().replaceAll(/ +/g, ' ')}\n`).join('')
  const pairs = query.split('&').filter(pair => pair !== '')
    .map(pair => pair.includes('=') ? pair : `${pair}=`).sort().join('&')
  return { text: [method, plain, pairs, lines, names, sha256(body)].join('\n'), names }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
