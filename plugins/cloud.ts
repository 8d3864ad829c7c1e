// The clouds: the plugin for HTTP under the names that leases and their templates know them by. AWS signs its
// requests with keys (http/sigv4.ts) and can say which users are ours; Azure and Google change what the
// credential holds for a token (http/login.ts). Everything else of them is in their templates.
import { SallyportError } from '../src/errors.ts'
import type { HttpStep } from '../src/jit/http-text.ts'
import type { Owned, Plugin, Probe } from '../src/jit/plugin.ts'
import { follow, refusalOf, textOf, valueOf } from './http/answer.ts'
import type { Link } from './http/link.ts'
import { httpPlugin } from './http.ts'
import { StepFailed } from './steps.ts'

export const aws: Plugin = httpPlugin({ id: 'aws', signing: 'aws', probe: probeAws, listOwned: listUsers })
export const azure: Plugin = httpPlugin({ id: 'azure', signing: 'login' })
export const gcp: Plugin = httpPlugin({ id: 'gcp', signing: 'login' })

/** Our users have this path; the templates that ship give it to them. */
const ourPath = '/sallyport/'
const pagesMax = 50

function query(form: Record<string, string>): HttpStep {
  return {
    method: 'POST', path: '/', query: {}, headers: {}, form: { Version: '2010-05-08', ...form },
    expect: [200], output: {}
  }
}

/** Whether the keys are taken at all; what they may do shows at the first hook, AWS has no dry run for it. */
async function probeAws(link: Link): Promise<Pick<Probe, 'version' | 'missingRights'>> {
  const answer = await link.send(query({ Action: 'GetUser' }))
  const { status, code } = refusalOf(answer)
  const unknown = ['InvalidClientTokenId', 'SignatureDoesNotMatch', 'IncompleteSignature'].includes(code)
  if (unknown) {
    throw new SallyportError('target-refused', { detail: `the keys are not taken: ${status} ${code}` })
  }
  return { version: 'AWS', missingRights: [] }
}

async function listUsers(link: Link): Promise<readonly Owned[]> {
  const owned: Owned[] = []
  let marker: string | undefined
  for (let page = 0; page < pagesMax; page++) {
    const more = marker === undefined ? {} : { Marker: marker }
    const value = await read(link, { Action: 'ListUsers', PathPrefix: ourPath, ...more })
    const result = ['ListUsersResponse', 'ListUsersResult'].map(name => ({ name }))
    const names = follow(value, [...result, { name: 'Users', every: true }, { name: 'UserName' }])
    for (const name of names.map(textOf)) if (name !== undefined) owned.push(await ownedUser(link, name))
    marker = textOf(follow(value, [...result, { name: 'Marker' }])[0])
    if (marker === undefined) break
  }
  return owned
}

async function ownedUser(link: Link, name: string): Promise<Owned> {
  const value = await read(link, { Action: 'ListUserTags', UserName: name })
  const [tag] = follow(value, [
    { name: 'ListUserTagsResponse' }, { name: 'ListUserTagsResult' },
    { name: 'Tags', match: { key: 'Key', text: 'sallyport' } }, { name: 'Value' }
  ])
  return { name, accountId: /^sallyport\/(\S{1,100})$/.exec(textOf(tag) ?? '')?.[1] }
}

async function read(link: Link, form: Record<string, string>): Promise<unknown> {
  const answer = await link.send(query(form))
  if (answer.status === 200) return valueOf(answer)
  const { status, code } = refusalOf(answer)
  throw new StepFailed(`${form['Action'] ?? ''} answered ${status} ${code}`)
}
