// The plugin for HTTP against a service that is right, and against ones that lie: what of a value can reach a
// request, what of an answer is believed, who is told which secret, and what a template may not say.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { follow } from '../plugins/http/answer.ts'
import { parseXml } from '../plugins/http/xml.ts'
import type { HookResult } from '../src/jit/hook.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { PluginTarget, shelf } from './peers/plugin-target.ts'
import { startService } from './peers/service.ts'
import type { Asked, Said, Service } from './peers/service.ts'

interface User { name: string, note: string, password: string, active: boolean, role?: string }
interface World {
  users: Map<string, User>
  /** Instead of the right answer. */
  lie: ((asked: Asked) => Said | undefined) | undefined
  service: Service
  target: PluginTarget
}

const life = suite<World>('HTTP')
const password = 'a password of the hooks'

function answer(users: Map<string, User>, { method, path, headers, body }: Asked): Said {
  const login = `Basic ${Buffer.from(`hooks:${password}`).toString('base64')}`
  if (headers.authorization !== login) return { status: 401 }
  const name = path.slice('/users/'.length)
  const json = body === '' ? {} : JSON.parse(body) as Partial<User>
  if (method === 'POST' && json.name !== undefined) {
    users.set(json.name, { active: true, note: '', password: '', name: json.name, ...json })
    return { status: 201, body: {} }
  }
  const user = users.get(name)
  if (user === undefined) return { status: 404, body: { message: 'none' } }
  if (method === 'DELETE') users.delete(name)
  if (method === 'PATCH') Object.assign(user, json)
  return { status: 200, body: user }
}

life.before(async world => {
  world.users = new Map()
  world.service = await startService([], asked => world.lie?.(asked) ?? answer(world.users, asked))
  const { host, port, ca } = world.service
  world.target = new PluginTarget('http', {
    target: { name: 'service', protocol: 'http', host, port, tls: { mode: 'verify-full', ca } },
    username: 'hooks', secret: { kind: 'password', password: new Secret(password) }
  })
})
life.before.each(world => {
  world.lie = undefined
  world.service.asked.length = 0
})
life.after(async ({ target, service }) => {
  target.close()
  await service[Symbol.asyncDispose]()
})

const head = 'id: http/mine\nplugin: http\naction: create\ntitle: Mine\n'
const seen = 'look:\n  - { http: GET, path: \'/users/{{ username }}\', absent: [404], '
  + 'ours: \'note[={{ marker }}]\' }\n'
const makes = '  - { http: POST, path: /users, expect: [201], '
  + 'json: { name: \'{{ username }}\', note: \'{{ marker }}\' } }\n'

function mine(rest: string): ReturnType<typeof parseTemplate> {
  return shelf.admit(head + rest + seen).template
}

life('an account with a fresh password is made, seen and taken away', async ({ target, users }) => {
  const account = target.mint()
  const made = await target.done('create', 'create-user', account)
  assert.equal([made.seen?.ours, users.get(account.name)?.password], [true, account.password])
  assert.equal(users.get(account.name)?.role, undefined, 'what is empty is left out')
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  assert.is(users.size, 0)
  const proof = await target.prove('create-user', 'delete-user')
  assert.ok(proof.passed, JSON.stringify(proof.steps))
})

life('a value is one segment, one leaf, one word: nothing of it becomes structure', async world => {
  const { target, service } = world
  const template = mine(`variables: { x: { description: d } }\nsteps:\n${makes}`
    + '  - { http: PUT, path: \'/a/{{ x }}/b\', query: { q: \'{{ x }}\' }, '
    + 'json: { v: \'{{ x }}\' }, expect: [200] }\n')
  const hostile = [
    'a/../../admin', '?admin=1&x', '#', 'x"},"admin":{"y', '%2e%2e', 'ü😀', '\\..\\', 'a\r\nhost: b', '(\'*!)'
  ]
  for (const x of hostile) {
    world.lie = ({ method }) => method === 'PUT' ? { status: 200, body: {} } : undefined
    await target.done('create', template, target.mint(), { x })
    const put = service.asked.findLast(({ method }) => method === 'PUT')!
    assert.equal([put.url.split('?')[0]?.split('/').length, put.path, [...put.query], JSON.parse(put.body)],
      [4, `/a/${x}/b`, [['q', x]], { v: x }])
  }
  for (const x of ['.', '..', '']) {
    const refused = await target.run('create', template, target.mint(), { x })
    assert.equal([refused.state, refused.code], ['refused', 'invalid'], x)
  }
})

life('a header takes one line of ASCII, and none that is ours to say', async ({ target, service }) => {
  const template = mine(`variables: { x: { description: d } }\nsteps:\n${makes}`
    + '  - { http: GET, path: /users/jit_h, headers: { x-note: \'{{ x }}\' }, expect: [200, 404] }\n')
  await target.done('create', template, target.mint(), { x: 'a note' })
  assert.ok(service.asked.some(({ headers }) => headers['x-note'] === 'a note'))
  for (const x of ['a\r\nx-admin: 1', 'ü', '\u007f']) {
    assert.is((await target.run('create', template, target.mint(), { x })).state, 'refused')
  }
  assert.not(service.asked.some(({ headers }) => headers['x-admin'] !== undefined))
  for (const name of ['host', 'authorization', 'transfer-encoding', 'Content-Length']) {
    assert.throws(() => mine(`steps:\n  - { http: GET, headers: { ${name}: x } }\n`),
      (error: { problems: string[] }) => /headers/.test(error.problems.join()))
  }
})

life('no redirect is followed, and no secret is sent anywhere else', async world => {
  await using other = await startService([], () => ({ status: 200, body: {} }))
  world.lie = ({ method }) => method === 'POST'
    ? { status: 307, headers: { location: `https://127.0.0.1:${other.port}/users` } }
    : undefined
  const made = await world.target.run('create', 'create-user', world.target.mint())
  assert.equal([made.state, other.asked.length], ['refused', 0])
  assert.match(made.error ?? '', /answered 307/)
})

life('an error of the service itself after a change leaves the outcome unknown', async world => {
  for (const said of [{ status: 500 }, { status: 502, body: '<html>' }, { status: 200, lost: true }]) {
    world.lie = ({ method }) => method === 'POST' ? said : undefined
    const made = await world.target.run('create', 'create-user', world.target.mint())
    assert.equal([made.state, made.code], ['unknown', 'hook-timeout'])
  }
})

life('a look that is not answered as declared is no look', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const lies: Said[] = [
    { status: 403 }, { status: 500 }, { status: 302, headers: { location: '/' } },
    { status: 200, body: 'no JSON' },
    { status: 200, body: '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>' },
    { status: 200, body: 'x'.repeat(1_100_000) },
    { status: 200, body: {}, headers: { 'content-encoding': 'gzip' } }, { status: 200, lost: true }
  ]
  for (const said of lies) {
    world.lie = ({ method }) => method === 'GET' ? said : undefined
    const removed = await target.run('delete', 'delete-user', { ...account, epoch: 2 })
    assert.not.equal(removed.state, 'done', JSON.stringify(said).slice(0, 60))
  }
  world.lie = undefined
  await target.done('delete', 'delete-user', { ...account, epoch: 3 })
})

life('what the service quotes of a secret is in no message', async world => {
  const { target } = world
  const template = mine(`steps:\n${makes}`
    + '  - { http: POST, path: /keys, output: { key: key } }\n'
    + '  - { http: PUT, path: /use, json: { key: \'{{ key }}\' } }\nmade: [key]\n')
  world.lie = ({ path, method }) => path === '/keys'
    ? { status: 200, body: { key: 'drawn-by-the-service' } }
    : method === 'PUT' ? { status: 400, body: { message: 'key drawn-by-the-service is bad' } } : undefined
  const made: HookResult = await target.run('create', template, target.mint())
  assert.equal([made.state, made.made], ['refused', undefined])
  assert.match(made.error ?? '', /key <secret> is bad/)
  world.lie = ({ path, method }) => path === '/keys'
    ? { status: 200, body: { key: 'drawn-by-the-service' } }
    : method === 'PUT' ? { status: 200 } : undefined
  const fine = await target.done('create', template, target.mint())
  assert.is(fine.made?.['key']?.expose(), 'drawn-by-the-service')
  world.lie = ({ path }) => path === '/keys' ? { status: 200, body: {} } : undefined
  const without = await target.run('create', template, target.mint())
  assert.equal([without.state, without.error], ['unknown', 'the answer has no key'])
})

life('a bearer token is sent as one, and a wrong password is a refused login', async world => {
  const { target, service } = world
  world.lie = () => ({ status: 404 })
  const job = target.job('delete', 'delete-user', target.mint())
  const token = { kind: 'password', password: new Secret('a-token') } as const
  const access = { ...target.access, username: 'bearer', secret: token }
  assert.is((await target.hooks.run({ ...job, access })).state, 'done')
  assert.is(service.asked[0]?.headers.authorization, 'Bearer a-token')
  world.lie = undefined
  const wrong = await target.hooks.run({ ...job, access: { ...access, username: 'hooks' } })
  assert.is(wrong.code, 'target-refused')
})

life('a server that speaks no HTTP, or too much of it, ends in a coded answer', async ({ target }) => {
  const lies = [
    'SSH-2.0-OpenSSH_9.2\r\n', 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello',
    `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`,
    'HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\nx'
  ]
  const plain = new PluginTarget('http', {
    ...target.access, target: { ...target.access.target, tls: { mode: 'disable' } }
  }, {}, { statementMs: 500 })
  for (const [number, lie] of lies.entries()) {
    const made = await plain.deceive(number, ['', lie])
    const coded = ['target-violation', 'hook-failed', 'hook-timeout'].includes(made.code ?? '')
    assert.ok(coded, `${lie.slice(0, 20)}: ${made.code}`)
  }
  plain.close()
})

life('lint wants a look that reads and says enough', () => {
  const problemsOf = (rest: string): string => {
    try {
      return shelf.admit(head + rest).warnings.join('\n')
    } catch (error) {
      return (error as { problems: string[] }).problems.join('\n')
    }
  }
  const steps = `steps:\n${makes}`
  assert.match(problemsOf(steps), /look: is missing/)
  assert.match(problemsOf(`${steps}look: [{ http: DELETE, absent: [404], ours: a }]`), /a look only reads/)
  assert.match(problemsOf(`${steps}look: [{ http: GET, ours: a }]`), /says by nothing that there is none/)
  assert.match(problemsOf(`${steps}look: [{ http: GET, absent: [404] }]`), /nothing that the account is ours/)
  for (const path of ['//evil.example/', 'https://evil.example/', '/a?b', '/a#b', 'a']) {
    assert.match(problemsOf(`steps: [{ http: GET, path: '${path}' }]\n${seen}`), /no more than a path/)
  }
  assert.match(problemsOf(`steps: [{ http: GET, path: '/a/../b' }]\n${seen}`), /made: nothing but the name/)
  assert.match(problemsOf(`steps: [{ http: GET, each: nothing }]\n${seen}`), /must name a list/)
  assert.match(problemsOf(`${steps}made: [nothing]\n${seen}`), /must be a list of outputs/)
  assert.match(problemsOf(`steps: [{ http: GET, output: { a: 'b[' } }]\n${seen}`), /must be a trail/)
  assert.match(problemsOf(`steps: [{ sql: SELECT 1 }]\n${seen}`), /a service has no SQL/)
  const redis = 'id: redis/mine\nplugin: redis\naction: create\ntitle: Mine\nsteps: [{ http: GET }]'
  assert.throws(() => shelf.admit(redis),
    (error: { problems: string[] }) => /redis speaks no HTTP/.test(error.problems.join()))
})

life('trails lead where they say, and XML has no entities of its own', () => {
  const value = parseXml('<a x="y"><!-- c --><b>'
    + '<member><k>1</k></member><member><k>2</k><t>&lt;&#65;</t></member></b><c/></a>')
  assert.equal(value, { a: { b: [{ k: '1' }, { k: '2', t: '<A' }], c: '' } })
  const way = [{ name: 'a' }, { name: 'b', match: { key: 'k', text: '2' } }, { name: 't' }]
  assert.equal(follow(value, way), ['<A'])
  assert.equal(follow(value, [{ name: 'a' }, { name: 'b', every: true }, { name: 'k' }]), ['1', '2'])
  assert.equal(follow(value, [{ name: '__proto__' }, { name: 'constructor' }]), [])
  const bads = [
    '<a>', '<a></b>', '</a>', '<a>&nope;</a>', '<!DOCTYPE a><a/>', '<a>'.repeat(40), '<![CDATA[x]]>'
  ]
  for (const bad of bads) {
    assert.throws(() => parseXml(bad), undefined, bad)
  }
})

life('the shipped example says what it would send, secrets masked', ({ target }) => {
  const path = join(import.meta.dirname, '../templates/http/create-user.yaml')
  const template = parseTemplate(readFileSync(path, 'utf8'))
  const [step] = shelf.plugin('http').plan(template, {})
  const body = '{"name":"jit_0000000","note":"sallyport/ACCOUNT","password":"********"}'
  assert.is(step?.text, `POST /users\n${body}`)
  assert.is(target.log.join('\n').includes(password), false)
})

life.run()
