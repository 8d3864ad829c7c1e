// The console's forms without a browser: what a form of a credential means as a document, at which field a
// problem of the server is shown, and how two versions of a text differ.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { documentOf, draftOf } from '../src/console/credential-draft.ts'
import type { Declaration } from '../src/console/credential-draft.ts'
import { diffOf } from '../src/console/diff.ts'
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
