// The console's forms without a browser: what a form of a credential or of another kind means as a document,
// at which field a problem of the server is shown, how two versions of a text differ, and that what is drawn
// for a telephone's camera is what it reads.
import jsqr from 'jsqr'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { documentSchemas } from '../src/api/documents.ts'
import { documentOf, draftOf } from '../src/console/credential-draft.ts'
import type { Declaration } from '../src/console/credential-draft.ts'
import { diffOf } from '../src/console/diff.ts'
import {
  documentFrom, placesOf, rowsAt, twiceIn, valuesOf, withRows, withVariables
} from '../src/console/document-draft.ts'
import { formFields, formKinds } from '../src/console/form-fields.ts'
import type { FormKind } from '../src/console/form-fields.ts'
import { qrCode, qrPath } from '../src/console/qr.ts'
import { wrongIn } from '../src/console/wrong.ts'

const declared: readonly Declaration[] = [
  { name: 'roles', description: '', required: false, secret: false, list: true, default: [] },
  { name: 'connection_limit', description: '', required: false, secret: false, list: false, default: 5 }
]

const stored = {
  kind: 'credential', name: 'orders-rw', target: 'orders', password: '<secret>',
  jit: {
    enabled: true, type: 'creation-deletion', useOwnCredential: false,
    authenticationCredential: 'orders-admin',
    create: { plugin: 'postgres', template: 'postgres/create-role' },
    delete: { plugin: 'postgres', template: 'postgres/delete-role' },
    variables: { roles: ['app_rw', 'app_ro'], connection_limit: 7 }, maxSession: '8h', namePrefix: 'jit_'
  }
} as const

test('the form of a stored credential means that credential: nothing is lost, no secret is sent', () => {
  assert.equal(documentOf(draftOf(stored), declared), stored)
})

test('a type has its own two actions, and switching back brings the others again', () => {
  const enable = { plugin: 'postgres', template: 'postgres/enable-role' }
  const disable = { plugin: 'postgres', template: 'postgres/disable-role' }
  const draft = draftOf(stored)
  const choices = { ...draft.choices, enable, disable }
  const switched = { ...draft, type: 'enable-disable' as const, choices }
  const jit = documentOf(switched, declared)['jit'] as Record<string, unknown>
  assert.equal(Object.keys(jit).sort(), ['authenticationCredential', 'disable', 'enable', 'enabled',
    'maxSession', 'type', 'useOwnCredential', 'variables'])
  assert.equal(documentOf({ ...switched, type: 'creation-deletion' }, declared), stored)
  const own = documentOf({ ...draft, useOwn: true }, declared)['jit'] as Record<string, unknown>
  assert.is('authenticationCredential' in own, false, 'own and another one exclude each other')
})

test('what is typed becomes what the template takes: lists a line each, numbers where one stands', () => {
  const draft = { ...draftOf(stored), variables: { roles: ' a \n\n b', connection_limit: '12', more: '12' } }
  const { variables } = documentOf(draft, declared)['jit'] as { variables: unknown }
  assert.equal(variables, { roles: ['a', 'b'], connection_limit: 12, more: '12' })
})

test('a secret is sent when it was typed, kept when it was not, and left out when there is none', () => {
  const draft = draftOf(stored)
  assert.equal(documentOf({ ...draft, password: 'new' }, [])['password'], { value: 'new' })
  assert.is(documentOf(draft, [])['password'], '<secret>')
  assert.is('privateKey' in documentOf(draft, []), false)
})

test('a problem stands at the innermost field that the form has, else above it', () => {
  const at = 'document 1 (credential/orders-rw): '
  const { wrong, rest } = wrongIn([
    `${at}jit.create.template: there is no template "x/y"`, `${at}jit.variables.roles[1]: "a b" is no role`,
    `${at}jit.maxSession: expected a duration such as 30s, not "9 h: x"`, `${at}jit.magic: unknown key`,
    'document 1: kind: is missing', 'the body is no JSON'
  ], ['jit.create', 'jit.create.template', 'jit.variables.roles', 'jit.variables', 'jit.maxSession'])
  assert.equal(wrong, {
    'jit.create.template': ['there is no template "x/y"'], 'jit.variables.roles': ['"a b" is no role'],
    'jit.maxSession': ['expected a duration such as 30s, not "9 h: x"']
  })
  assert.equal(rest, ['jit.magic: unknown key', 'kind: is missing', 'the body is no JSON'])
})

const place = { environment: 'prod', path: 'apps' }
const issuing = { namePrefix: 'jit_', maxTtl: '1h', ttl: '15m' }
/** As the server shows them; the form of each has everything in it but what is said beside. */
const documents: Readonly<Record<FormKind, readonly Record<string, unknown>[]>> = {
  grant: [{
    users: ['alice', 'bob'], credentials: ['orders-rw'], replication: true, maxSession: '2h',
    approval: { by: ['ada'], count: 1, validFor: '4h', waitFor: '5m' },
    windows: [
      { days: ['mon', 'tue'], from: '08:00', to: '18:00', zone: 'Europe/Zurich' },
      { days: ['sat'], from: '22:00', to: '04:00', zone: 'UTC' }
    ],
    rules: [
      { on: 'sql', kind: ['drop', 'grant'], then: 'refuse' }, { on: 'command', pattern: '^rm ', then: 'end' },
      { on: 'file', direction: 'download', path: '/etc/**', then: 'warn' },
      {
        on: 'sql', pattern: 'salary', then: 'approve',
        approval: { by: ['ada', 'oscar'], count: 2, validFor: '1h', waitFor: '5m' }
      }
    ]
  }],
  profile: [{
    status: 'active', type: 'postgres', registeredCredential: 'orders-admin', create: 'postgres/create-role',
    delete: 'postgres/delete-role', roles: ['app_rw'], variables: { connection_limit: 3 }, ttl: '1h'
  }],
  target: [{
    protocol: 'postgres', address: '127.0.0.1:5432', database: 'orders',
    tls: { mode: 'verify-full', ca: 'PEM', serverName: 'orders.test' }
  }],
  user: [
    { roles: ['user', 'auditor'], publicKeys: ['ssh-ed25519 AAAA'], password: '<secret>' },
    {
      roles: ['user'], publicKeys: ['ssh-ed25519 AAAA'], requireTouch: false, requirePin: true, disabled: true
    }
  ],
  environment: [{ description: 'where it counts' }],
  application: [{ description: 'nightly', networks: ['10.0.0.0/8', '192.168.0.0/16'], disabled: true }],
  secret: [
    { ...place, data: { API_KEY: '<secret>', host: '<secret>' } },
    {
      ...place, provider: 'postgres', target: 'orders', authenticationCredential: 'orders-admin',
      create: 'postgres/create-role', delete: 'postgres/delete-role',
      variables: { roles: ['app_rw'], connection_limit: 3 }, ...issuing,
      outputs: { username: { key: 'PGUSER', masked: false }, password: { key: 'PGPASSWORD', masked: true } },
      renewal: { ephemeralCredentials: 30, overlap: '10m', confirmed: true }
    },
    { ...place, profile: 'on-any-device', target: 'orders', ...issuing },
    {
      environment: 'prod', attributes: { linkConfig: { linkType: 'dynamic', linkedSecret: 'prod/base' } },
      create: 'postgres/create-role', delete: 'postgres/delete-role', ...issuing
    }
  ]
}

test('the form of every kind of document means that document, and the server takes it', () => {
  for (const kind of formKinds) {
    for (const document of documents[kind]) {
      const whole = { kind, name: 'one', ...document }
      const meant = documentFrom(kind, 'one', whole, valuesOf(kind, whole), declared)
      assert.equal(meant, whole)
      // A key that is none is the only thing that the server has against it.
      const publicKeys = kind === 'user' ? { publicKeys: [] } : {}
      const read = documentSchemas[kind].safeParse({ ...meant, ...publicKeys })
      assert.equal(read.error?.issues ?? [], [], `${kind} ${JSON.stringify(document)}`)
    }
  }
})

test('a form has a field for everything that the server reads in a document of its kind', () => {
  // Of profiles it is kept as it is stored.
  const beside = ['kind', 'name', 'profile.variables']
  for (const kind of formKinds) {
    const shown = new Set(formFields[kind].map(({ path }) => path.split('.')[0]!))
    const missing = Object.keys(documentSchemas[kind].in.shape)
      .filter(field => !shown.has(field) && !beside.includes(field) && !beside.includes(`${kind}.${field}`))
    assert.equal(missing, [], kind)
  }
})

test('rows come, go and change places; what is wrong stands in the row that it is about', () => {
  const values = valuesOf('grant', documents.grant[0]!)
  const [first, second, third, fourth] = rowsAt(values, 'rules')
  const changed = withRows(values, 'rules', [third!, first!, {}])
  const { rules } = documentFrom('grant', 'one', {}, changed) as unknown as { rules: unknown[] }
  const was = documents.grant[0]!['rules'] as unknown[]
  assert.equal(rules, [was[2], was[0], {}])
  assert.is('rules' in documentFrom('grant', 'one', {}, withRows(values, 'rules', [])), false)
  // The approvers of another verdict are kept in the form, and not sent.
  const warned = withRows(values, 'rules', [{ ...fourth!, then: 'warn' }, second!])
  assert.equal((documentFrom('grant', 'one', {}, warned)['rules'] as unknown[])[0],
    { on: 'sql', pattern: 'salary', then: 'warn' })
  const told = placesOf('grant', values).map(place => place.told)
  const { wrong } = wrongIn(
    ['document 1 (grant/one): rules[3].approval.by[1]: no', 'document 1 (grant/one): rules[1]: odd'], told)
  assert.equal(wrong, { 'rules[3].approval.by': ['no'], 'rules[1]': ['odd'] })
})

test('a map has a row for each key: a value is kept, typed anew or not there yet, and no key twice', () => {
  const stored = { kind: 'secret', name: 'one', ...documents.secret[0]! }
  const values = valuesOf('secret', stored)
  const [api, host] = rowsAt(values, 'data')
  assert.equal(api, { key: 'API_KEY', value: '' })
  const rows = [api!, { ...host!, value: 'db.test' }, { key: 'NEW' }]
  assert.equal(documentFrom('secret', 'one', stored, withRows(values, 'data', rows))['data'],
    { API_KEY: '<secret>', host: { value: 'db.test' }, NEW: { value: '' } })
  const field = formFields.secret.find(({ path }) => path === 'data')!
  assert.equal(twiceIn(field, withRows(values, 'data', [api!, host!, api!])), ['API_KEY'])
  const outputs = placesOf('secret', valuesOf('secret', documents.secret[1]!))
    .filter(({ at }) => at.startsWith('outputs['))
  assert.equal(outputs.map(({ at, told }) => [at, told]).slice(0, 2),
    [['outputs[0]', 'outputs.username'], ['outputs[0].key', 'outputs.username.key']])
})

test('a password is sent when it was typed, and switches only where they are not as ever', () => {
  const stored = { kind: 'user', name: 'bob', ...documents.user[0]! }
  const values = valuesOf('user', stored)
  assert.is(values['password'], '')
  const changed = { ...values, password: 'new', requireTouch: '' }
  assert.equal(documentFrom('user', 'bob', stored, changed),
    { ...stored, password: { value: 'new' }, requireTouch: false })
  assert.is('password' in documentFrom('user', 'eve', {}, valuesOf('user', {})), false)
})

test('what belongs to another sort of secret is not sent', () => {
  const [, provider] = documents.secret
  const values = withVariables({ ...valuesOf('secret', provider!), sort: 'profile', profile: 'p' },
    'variables', { roles: 'x' })
  assert.equal(Object.keys(documentFrom('secret', 'one', {}, values)).sort(), [
    'environment', 'kind', 'maxTtl', 'name', 'namePrefix', 'outputs', 'path', 'profile', 'renewal', 'target',
    'ttl'
  ])
})

test('a camera reads from a QR code what was drawn, as long as it may be', () => {
  const secret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'
  const address = `otpauth://totp/Sallyport:alice?secret=${secret}&issuer=Sallyport&digits=6`
  for (const text of ['a', address, 'Grüße 🚪', 'x'.repeat(154), 'y'.repeat(200), 'z'.repeat(412)]) {
    assert.is(readQr(qrCode(text)!), text)
  }
  assert.is(qrCode('z'.repeat(413)), undefined)
  const { path, size } = qrPath('a')!
  assert.is(size, 29)
  assert.match(path, /^(M\d+ \d+h1v1h-1z)+$/)
})

function readQr(modules: readonly (readonly boolean[])[]): string | undefined {
  const [scale, margin] = [3, 4]
  const size = (modules.length + 2 * margin) * scale
  const pixels = new Uint8ClampedArray(size * size * 4).fill(255)
  for (let at = 0; at < size * size; at++) {
    const [x, y] = [at % size, Math.floor(at / size)].map(each => Math.floor(each / scale) - margin)
    if (modules[y!]?.[x!] === true) pixels.fill(0, at * 4, at * 4 + 3)
  }
  return jsqr.default(pixels, size, size)?.data
}

test('two versions differ in the fewest lines, in their places', () => {
  const shown = (before: string, after: string): string[] =>
    diffOf(before, after).map(({ kind, text }) => `${{ same: ' ', added: '+', removed: '-' }[kind]}${text}`)
  assert.equal(shown('a\nb\nc', 'a\nx\nc\nd'), [' a', '-b', '+x', ' c', '+d'])
  assert.equal(shown('a\nb', 'b\na'), ['-a', ' b', '+a'])
  assert.equal(shown('', ''), [' '])
  const long = 'x\n'.repeat(4000)
  assert.is(diffOf(long, `${long}y`).length, 8002, 'books are not compared line by line')
})

test.run()
