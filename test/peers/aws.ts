// A double of AWS' IAM and STS, as far as our templates go: it checks every signature by its own reading of
// the request (AWS General Reference, Signature Version 4), tags and paths, and the rules that hurt: a user
// is not deleted while anything of it is left, two keys at most, an account that was just made is not seen
// at once, too many requests are throttled, tokens have bounds. It is not AWS: what a policy allows, it does
// not know.
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { systemClock } from '../../src/clock.ts'
import { startService } from './service.ts'
import type { Asked, Said, Service } from './service.ts'

interface User {
  path: string
  tags: Record<string, string>
  keys: Map<string, { secret: string, active: boolean }>
  groups: Set<string>
  policies: Set<string>
  inline: Set<string>
  login: boolean
  /** Reads that do not know it yet. */
  unseen: number
}

export class Aws {
  readonly users = new Map<string, User>()
  readonly groups = new Set(['readers'])
  readonly tokens = new Map<string, string>()
  /** The next reads of a new user say that there is none. */
  unseenReads = 0
  /** The next so many requests are too many. */
  throttled = 0
  /** The answer to the next request of this action is lost; it is carried out. */
  lose: string | undefined
  /** The next request of this action is refused. */
  refuse: string | undefined
  readonly admin = { id: 'AKIAIOSFODNN7EXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' }

  addUser(name: string, path = '/'): User {
    const user: User = {
      path, tags: {}, keys: new Map(), groups: new Set(), policies: new Set(), inline: new Set(),
      login: false, unseen: this.unseenReads
    }
    this.users.set(name, user)
    return user
  }

  answer(asked: Asked): Said {
    const form = new URLSearchParams(asked.body)
    const action = form.get('Action') ?? ''
    const key = this.#signer(asked)
    if (typeof key !== 'string') return key
    if (this.throttled > 0) {
      this.throttled--
      return refused(400, 'Throttling', 'Rate exceeded')
    }
    if (this.refuse === action) {
      this.refuse = undefined
      return refused(403, 'AccessDenied', `not authorized to perform ${action}`)
    }
    const lost = this.lose === action
    if (lost) this.lose = undefined
    return { ...this.#act(action, form, key), lost }
  }

  /** The id of the key that signed, or the refusal. */
  #signer({ method, headers, url, body }: Asked): string | Said {
    const [credential = '', headerNames = '', signed64 = ''] = (headers.authorization ?? '').split(/, ?/)
    const [, id = '', day = '', region = '', service = ''] =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request$/.exec(credential) ?? []
    const [names, signature] = [headerNames, signed64].map(part => part.replace(/^\w+=/, ''))
    const secret = this.#secretOf(id)
    const stamp = String(headers['x-amz-date'])
    if (secret === undefined) return refused(403, 'InvalidClientTokenId', 'The security token is invalid')
    const signed = (names ?? '').split(';')
    if (!signed.includes('host') || !signed.includes('x-amz-date')) {
      return refused(403, 'SignatureDoesNotMatch', 'headers are not signed')
    }
    const [path = '', query = ''] = url.split('?', 2)
    const hash = (text: string): string => createHash('sha256').update(text).digest('hex')
    const canonical = `${method}\n${path}\n${query}\n`
      + signed.map(name => `${name}:${String(headers[name]).trim()}\n`).join('') + `\n${names}\n${hash(body)}`
    const mac = (key: string | Buffer, text: string): Buffer =>
      createHmac('sha256', key).update(text).digest()
    const signing = mac(mac(mac(mac(`AWS4${secret}`, day), region), service), 'aws4_request')
    const scope = `${day}/${region}/${service}/aws4_request`
    const expected = mac(signing, `AWS4-HMAC-SHA256\n${stamp}\n${scope}\n${hash(canonical)}`).toString('hex')
    if (expected !== signature) return refused(403, 'SignatureDoesNotMatch', 'does not match')
    const at = Date.parse(stamp.replace(/^(....)(..)(..T..)(..)(..)Z$/, '$1-$2-$3:$4:$5Z'))
    const skewMs = Math.abs(at - systemClock.now().getTime())
    return skewMs < 300_000 && stamp.startsWith(day) ? id : refused(403, 'SignatureDoesNotMatch', 'expired')
  }

  #secretOf(id: string): string | undefined {
    if (id === this.admin.id) return this.admin.secret
    for (const { keys } of this.users.values()) {
      const key = keys.get(id)
      if (key?.active === true) return key.secret
    }
    return this.tokens.get(id)
  }

  #act(action: string, form: URLSearchParams, signer: string): Said {
    const field = (name: string): string => form.get(name) ?? ''
    const reply = (inner: string): Said => ({
      status: 200, body: `<${action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">`
        + `<${action}Result>${inner}</${action}Result></${action}Response>`
    })
    const name = field('UserName')
    switch (action) {
      case 'CreateUser': {
        if (this.users.has(name)) return refused(409, 'EntityAlreadyExists', `User ${name} already exists`)
        const user = this.addUser(name, field('Path') || '/')
        for (let tag = 1; form.has(`Tags.member.${tag}.Key`); tag++) {
          user.tags[field(`Tags.member.${tag}.Key`)] = field(`Tags.member.${tag}.Value`)
        }
        return reply(userXml(name, user))
      }
      case 'ListUsers': return reply(list('Users', [...this.users]
        .filter(([, { path }]) => path.startsWith(field('PathPrefix'))).map(one => userXml(...one, ''))))
      case 'AssumeRole': return this.#token(reply, Number(field('DurationSeconds')), 3600)
      case 'GetFederationToken': return this.#token(reply, Number(field('DurationSeconds')), 129_600)
      case 'GetUser': if (name === '') return reply(this.#self(signer))
    }
    const user = this.users.get(name)
    if (user !== undefined && user.unseen > 0) user.unseen--
    else if (user !== undefined) return this.#ofUser(action, field, reply, name, user)
    return refused(404, 'NoSuchEntity', `The user with name ${name} cannot be found.`)
  }

  #self(signer: string): string {
    const [name = 'admin', user] = [...this.users].find(([, { keys }]) => keys.has(signer)) ?? []
    return userXml(name, user ?? this.#nobody)
  }

  readonly #nobody: User = {
    path: '/', tags: {}, keys: new Map(), groups: new Set(), policies: new Set(), inline: new Set(),
    login: false, unseen: 0
  }

  #token(reply: (inner: string) => Said, seconds: number, secondsMax: number): Said {
    if (!(seconds >= 900 && seconds <= secondsMax)) {
      return refused(400, 'ValidationError', `DurationSeconds exceeds ${secondsMax}`)
    }
    const id = `ASIA${randomBytes(8).toString('hex').toUpperCase()}`
    const secret = randomBytes(30).toString('base64')
    this.tokens.set(id, secret)
    return reply(`<Credentials><AccessKeyId>${id}</AccessKeyId><SecretAccessKey>${secret}</SecretAccessKey>`
      + '<SessionToken>token-of-the-session</SessionToken></Credentials>')
  }

  #ofUser(
    action: string, field: (name: string) => string, reply: (inner: string) => Said, name: string, user: User
  ): Said {
    const missing = (there: boolean): Said => there ? reply('') : refused(404, 'NoSuchEntity', 'is not there')
    switch (action) {
      case 'GetUser': return reply(userXml(name, user))
      case 'ListUserTags': return reply(list('Tags', Object.entries(user.tags).map(
        ([key, value]) => `<Key>${key}</Key><Value>${value}</Value>`)))
      case 'AddUserToGroup':
        if (!this.groups.has(field('GroupName'))) return missing(false)
        user.groups.add(field('GroupName'))
        return reply('')
      case 'RemoveUserFromGroup': return missing(user.groups.delete(field('GroupName')))
      case 'ListGroupsForUser': return reply(list('Groups', [...user.groups].map(
        group => `<GroupName>${group}</GroupName>`)))
      case 'AttachUserPolicy': user.policies.add(field('PolicyArn')); return reply('')
      case 'DetachUserPolicy': return missing(user.policies.delete(field('PolicyArn')))
      case 'ListAttachedUserPolicies': return reply(list('AttachedPolicies', [...user.policies].map(
        arn => `<PolicyArn>${arn}</PolicyArn>`)))
      case 'ListUserPolicies': return reply(list('PolicyNames', [...user.inline]))
      case 'DeleteUserPolicy': return missing(user.inline.delete(field('PolicyName')))
      case 'CreateAccessKey': {
        if (user.keys.size >= 2) return refused(409, 'LimitExceeded', 'AccessKeysPerUser: 2')
        const id = `AKIA${randomBytes(8).toString('hex').toUpperCase()}`
        const secret = randomBytes(30).toString('base64')
        user.keys.set(id, { secret, active: true })
        return reply(`<AccessKey><UserName>${name}</UserName><AccessKeyId>${id}</AccessKeyId>`
          + `<Status>Active</Status><SecretAccessKey>${secret}</SecretAccessKey></AccessKey>`)
      }
      case 'ListAccessKeys': return reply(list('AccessKeyMetadata', [...user.keys].map(
        ([id, { active }]) =>
          `<AccessKeyId>${id}</AccessKeyId><Status>${active ? 'Active' : 'Inactive'}</Status>`)))
      case 'UpdateAccessKey': {
        const key = user.keys.get(field('AccessKeyId'))
        if (key !== undefined) key.active = field('Status') === 'Active'
        return missing(key !== undefined)
      }
      case 'DeleteAccessKey': return missing(user.keys.delete(field('AccessKeyId')))
      case 'DeleteLoginProfile': {
        const there = user.login
        user.login = false
        return missing(there)
      }
      case 'DeleteUser': return this.#delete(name, user, reply)
    }
    // The rest of what a user can have: this one has none of it.
    return /^List/.test(action) ? reply('<Nothing/>') : refused(400, 'InvalidAction', `no ${action} here`)
  }

  #delete(
    name: string, { keys, groups, policies, inline, login }: User, reply: (inner: string) => Said
  ): Said {
    const left = [keys, groups, policies, inline].find(({ size }) => size > 0)
    if (left !== undefined || login) return refused(409, 'DeleteConflict', 'must be empty first.')
    this.users.delete(name)
    return reply('')
  }
}

function userXml(name: string, { path, tags }: User, element = 'User'): string {
  const tagList = list('Tags', Object.entries(tags).map(
    ([key, value]) => `<Key>${key}</Key><Value>${value}</Value>`))
  const inner = `<Path>${path}</Path><UserName>${name}</UserName><UserId>AIDA${name}</UserId>`
    + `<Arn>arn:aws:iam::123456789012:user${path}${name}</Arn>`
    + `<CreateDate>2026-01-01T00:00:00Z</CreateDate>${tagList}`
  return element === '' ? inner : `<${element}>${inner}</${element}>`
}

function list(name: string, members: readonly string[]): string {
  return `<${name}>${members.map(one => `<member>${one}</member>`).join('')}</${name}>`
}

function refused(status: number, code: string, message: string): Said {
  return {
    status, body: '<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error>'
      + `<Type>Sender</Type><Code>${code}</Code><Message>${message}</Message></Error>`
      + '<RequestId>1</RequestId></ErrorResponse>'
  }
}

export async function startAws(): Promise<{ aws: Aws, service: Service }> {
  const aws = new Aws()
  const names = ['iam.amazonaws.com', 'sts.eu-west-1.amazonaws.com']
  return { aws, service: await startService(names, asked => aws.answer(asked)) }
}
