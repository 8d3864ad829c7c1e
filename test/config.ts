// sallyport.yaml: what may stand in it, what it means, and that everything wrong with it is told at once
// with its path.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig, readConfig } from '../src/config.ts'
import type { Config } from '../src/config.ts'
import { SallyportError } from '../src/errors.ts'

const parse = (text: string, environment: NodeJS.ProcessEnv = {}): Config =>
  parseConfig(text, '/etc/sallyport/sallyport.yaml', environment, '/etc/sallyport')

function problemsOf(text: string, environment: NodeJS.ProcessEnv = {}): readonly string[] {
  try {
    parse(text, environment)
  } catch (thrown) {
    assert.instance(thrown, SallyportError)
    assert.is((thrown as SallyportError).code, 'invalid')
    return (thrown as SallyportError).problems
  }
  throw new Error('it was accepted')
}

test('an empty file means the defaults of the manual', () => {
  const config = parse('')
  assert.is(config.data, '/etc/sallyport/data')
  assert.equal(config.store, { kind: 'pglite', directory: '/etc/sallyport/data/store' })
  assert.is(config.redis, undefined)
  assert.equal(config.recordings, {
    directory: '/etc/sallyport/recordings', mode: 'strict', hashes: true, outputMax: 64 * 1024 ** 2,
    outputPerSecond: 256 * 1024, fileCopyMax: 16 * 1024 ** 2, fileCopiesMax: 256 * 1024 ** 2
  })
  assert.equal(config.listen, {
    ssh: { host: '127.0.0.1', port: 2222 }, postgres: { host: '127.0.0.1', port: 6432 },
    http: { host: '127.0.0.1', port: 8443 }, rdp: undefined, tcp: undefined
  })
  assert.equal(config.masterKey, { kind: 'file', file: '/etc/sallyport/data/master.key' })
  assert.is(config.limits.loginGrace, 30)
  assert.is(config.limits.recordingsReserve, 500 * 1024 ** 2)
})

test('the file of the manual is accepted as it stands there', () => {
  const config = parse(`
data: ./data
store: pglite
redis: null
recordings: { dir: ./recordings, mode: strict }
listen: { ssh: 127.0.0.1:2222, postgres: 127.0.0.1:6432, http: 127.0.0.1:8443, rdp: null }
masterKey: { file: ./data/master.key }
`)
  assert.is(config.listen.postgres?.port, 6432)
})

test('a node says where others reach it: what is declared, or where it listens beyond this machine', () => {
  const of = (text: string): string | undefined => parse(text).api.advertise
  assert.is(of(''), undefined, 'loopback would send another machine to itself')
  assert.is(of('listen: { http: "10.0.0.7:8443" }'), 'https://10.0.0.7:8443')
  assert.is(of('listen: { http: "[2001:db8::7]:8443" }'), 'https://[2001:db8::7]:8443')
  assert.is(of('listen: { http: "0.0.0.0:8443" }'), `https://${hostname()}:8443`)
  assert.is(of('listen: { http: null }'), undefined)
  assert.is(of('listen: { http: "10.0.0.7:8443" }\napi: { advertise: null }'), undefined)
  assert.is(of('api: { advertise: "https://one.internal:8443" }'), 'https://one.internal:8443')
  for (const bad of ['http://one', 'https://one/path', 'https://u@one', 'one:8443', 'https://one:99999']) {
    assert.match(problemsOf(`api: { advertise: "${bad}" }`)[0]!, /^api.advertise: expected https:/, bad)
  }
})

test('listeners can be moved and switched off, also on IPv6', () => {
  const { listen } = parse('listen: { ssh: null, postgres: "[::1]:15432", http: "0.0.0.0:443" }')
  assert.is(listen.ssh, undefined)
  assert.equal(listen.postgres, { host: '::1', port: 15_432 })
  assert.equal(listen.http, { host: '0.0.0.0', port: 443 })
})

test('where targets see us come from: our own address, other ones, or it does not matter', () => {
  assert.is(parse('').ssh.certificateSources, undefined)
  assert.equal(parse('ssh: { certificateSources: [] }').ssh.certificateSources, [])
  const given = ['192.0.2.0/24', '2001:db8::1']
  assert.equal(parse(`ssh: { certificateSources: ${JSON.stringify(given)} }`).ssh.certificateSources, given)
  for (const wrong of ['web01', '192.0.2.0/33', '192.0.2.1,0.0.0.0/0']) {
    assert.match(problemsOf(`ssh: { certificateSources: ["${wrong}"] }`).join(), /certificateSources\[0\]/)
  }
})

test('every unknown key and wrong value is told with its path, all in one go', () => {
  const problems = problemsOf(`
dta: ./x
store: mysql://x
recordings: { mode: lax, keep: 3 }
listen: { ssh: nowhere, telnet: 127.0.0.1:23 }
limits: { loginGrace: 30, recordingsReserve: 5 apples }
masterKey: { file: a, env: B }
`)
  for (const expected of [
    'dta: unknown key', 'recordings.keep: unknown key', 'recordings.mode: ', 'listen.telnet: unknown key',
    'listen.ssh: expected host:port', 'limits.loginGrace: expected string',
    'limits.recordingsReserve: expected a size',
    'masterKey: expected exactly one of file, env, command', 'store: expected pglite or postgres://'
  ]) assert.ok(problems.some(line => line.startsWith(expected)), `${expected} in\n${problems.join('\n')}`)
  assert.is(problems.length, 9)
})

test('what is no YAML, or says a key twice, is refused with the line', () => {
  assert.match(problemsOf('listen: {')[0]!, /sallyport\.yaml/)
  assert.match(problemsOf('data: a\ndata: b')[0]!, /unique/)
  assert.match(problemsOf('- a')[0]!, /expected object/)
})

test('the environment overrides store and redis, and their addresses do not print', () => {
  const config = parse('store: pglite', {
    SALLYPORT_STORE: 'postgres://u:hunter2@db/sallyport', SALLYPORT_REDIS: 'redis://:hunter3@r'
  })
  assert.is(config.store.kind, 'postgres')
  assert.is(config.redis?.expose(), 'redis://:hunter3@r')
  assert.not.match(JSON.stringify(config), /hunter/)
  assert.match(problemsOf('', { SALLYPORT_STORE: 'sqlite:x' })[0]!, /^store: /)
})

test('the master key comes from a file, a variable or a command', () => {
  assert.equal(parse('masterKey: { env: KEY }').masterKey, { kind: 'env', name: 'KEY' })
  assert.equal(parse('masterKey: { command: [vault, read] }').masterKey,
    { kind: 'command', command: ['vault', 'read'] })
  assert.equal(parse('masterKey: { file: k }').masterKey, { kind: 'file', file: '/etc/sallyport/k' })
})

test('certificate and key belong together', () => {
  assert.match(problemsOf('tls: { certificate: a.pem }')[0]!, /^tls: certificate and key belong together/)
  assert.equal(parse('tls: { certificate: a.pem, key: b.pem }').tls.files, {
    certificate: '/etc/sallyport/a.pem', key: '/etc/sallyport/b.pem'
  })
})

test('a file that was named must exist; without one the defaults hold', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-config-'))
  try {
    assert.is(readConfig(undefined, {}, folder).file, undefined)
    assert.throws(() => readConfig('other.yaml', {}, folder),
      (thrown: SallyportError) => thrown.code === 'not-found')
    writeFileSync(join(folder, 'sallyport.yaml'), 'data: state\n')
    const config = readConfig(undefined, {}, folder)
    assert.is(config.file, join(folder, 'sallyport.yaml'))
    assert.is(config.data, join(folder, 'state'))
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
