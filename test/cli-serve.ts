// `serve` and the other commands against it, with the real store: the first start, what a restart
// remembers, and evidence that is checked with the public key alone. deadline: 240 s
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { shippedTemplates } from '../src/main/templates.ts'
import { ordersDocuments } from '../tool/orders-documents.ts'
import { makeFolder, run } from './peers/api-server.ts'
import type { Ran, RunOptions } from './peers/api-server.ts'

const entry = fileURLToPath(new URL('../src/cli/sallyport.ts', import.meta.url))

interface Served extends AsyncDisposable {
  child: ChildProcess
  /** What it said on standard error. */
  said(): string
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>
}

/** Starts `sallyport serve` in a folder and waits until it serves. */
async function serve(folder: string, words: readonly string[] = []): Promise<Served> {
  const child = spawn(process.execPath, [...words, entry, 'serve'],
    { cwd: folder, stdio: ['ignore', 'inherit', 'pipe'] })
  let said = ''
  const ready = Promise.withResolvers<void>()
  const ended = once(child, 'exit') as Promise<[number | null]>
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
    if (said.includes('sallyport serves')) ready.resolve()
  })
  await Promise.race([ready.promise, ended.then(() => { throw new Error(`it did not start: ${said}`) })])
  const stop = async (): Promise<number | null> => {
    child.kill('SIGTERM')
    return (await ended)[0]
  }
  return {
    child, said: () => said, stop,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) await stop()
    }
  }
}

const documents = `${ordersDocuments({ port: 1, password: '{ value: hunter2 }' })}---
kind: user
name: alice
password: { value: correct horse }
---
kind: grant
name: devs
users: [alice]
credentials: [orders-rw]
`

test('a restart finds tokens, documents and the audit log as they were', async () => {
  const folder = makeFolder()
  const say = (line: string, how?: RunOptions): Promise<Ran> => run(folder, line.split(' '), how)
  const fine = async (line: string, how?: RunOptions): Promise<Ran> => {
    const ran = await say(line, how)
    assert.is(ran.code, 0, `${line}: ${ran.out}${ran.err}`)
    return ran
  }
  try {
    rmSync(join(folder, 'data'), { recursive: true })
    writeFileSync(join(folder, 'all.yaml'), documents)
    let checkpoint = ''
    {
      await using first = await serve(folder)
      for (const name of ['master.key', 'signing.key', 'local-admin.token']) {
        assert.is(statSync(join(folder, 'data', name)).mode & 0o777, 0o600, name)
      }
      assert.is((await fine('whoami --json')).json()['name'], 'local')
      assert.is((await fine('templates list --json')).json<object[]>().length, shippedTemplates().length)

      const token = /sally_[A-Za-z0-9_-]{43}/.exec(first.said())![0]
      assert.is((await fine('login --token --json', { input: `${token}\n` })).json()['name'], 'first-admin')
      assert.match((await fine('apply -f all.yaml')).out, /5 created/)
      assert.is((await say('login --token', { input: token })).code, 1)
      await fine('logout')

      assert.match((await fine('apply -f all.yaml')).out, /5 unchanged/)
      const wrong = await say('apply -f -',
        { input: 'kind: user\nname: bob\n---\nkind: grant\nname: g\nusers: [carol]\n' })
      assert.is(wrong.code, 1)
      assert.is((await say('get user bob')).code, 1)
      assert.is((await fine('explain alice+orders-rw --json')).json()['outcome'], 'allowed')
      const used = await say('delete credential orders-admin')
      assert.match(used.err, /in use by credential\/orders-rw \(jit\.authenticationCredential\)/)
      await fine('login alice', { input: 'correct horse\n' })
      assert.is((await say('audit list')).code, 1)
      await fine('logout')

      // The target is not there: that is what a doctor is for.
      const doctor = await say('doctor')
      assert.is(doctor.code, 1)
      assert.match(doctor.out, /ok {7}store: /)
      assert.match(doctor.out, /failed {3}target orders/)
      assert.is((await say('orphans scan')).code, 1)

      await fine('audit export -o before.ndjson')
      checkpoint = readFileSync(join(folder, 'before.ndjson'), 'utf8')
      assert.not.match(checkpoint, /hunter2|correct horse/)
      assert.is(await first.stop(), 0, first.said())
    }
    assert.not.ok(existsSync(join(folder, 'data', 'local-admin.token')), 'the stopped server left its token')
    assert.is((await say('whoami')).code, 1)
    {
      await using second = await serve(folder)
      assert.not.match(second.said(), /hunter2/)
      assert.match((await fine('apply -f all.yaml')).out, /5 unchanged/)
      assert.match((await fine('audit verify --checkpoint before.ndjson')).out, /^whole: /)
      await fine('audit export -o after.ndjson')
    }
    await fine('audit verify after.ndjson --public-key data/signing.pub --checkpoint before.ndjson')
    const lines = readFileSync(join(folder, 'after.ndjson'), 'utf8').split('\n')
    writeFileSync(join(folder, 'cut.ndjson'),
      lines.filter(line => !line.includes('"resource.created"')).join('\n'))
    const cut = await say('audit verify cut.ndjson --public-key data/signing.pub')
    assert.is(cut.code, 1)
    assert.match(cut.out, /row \d+: the row is missing/)
    writeFileSync(join(folder, 'damaged.ndjson'), `${lines[0]}\n{"event`)
    assert.match((await say('audit verify damaged.ndjson --public-key data/signing.pub')).err,
      /damaged\.ndjson:2 is damaged/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a configuration with mistakes keeps the server from starting, and all of them are told', async () => {
  const folder = makeFolder()
  try {
    writeFileSync(join(folder, 'sallyport.yaml'), 'lissen: {}\nlisten: { http: nowhere }\n')
    const { code, out, err } = await run(folder, ['serve'])
    assert.equal([code, out], [1, ''])
    assert.match(err, /the configuration .*sallyport\.yaml is not valid/)
    assert.match(err, /lissen: unknown key/)
    assert.match(err, /listen\.http: expected host:port/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a defect that nobody caught ends the process with a line in the log', async () => {
  const folder = makeFolder()
  try {
    const defect = 'process.on("SIGUSR2", () => { void Promise.reject(new Error("a \\u009bdefect")) })'
    const module = `data:text/javascript,${encodeURIComponent(defect)}`
    await using served = await serve(folder, ['--import', module])
    const ended = once(served.child, 'exit')
    served.child.kill('SIGUSR2')
    assert.equal(await ended, [1, null])
    const line = served.said().split('\n').find(each => each.includes('a defect ends this node')) ?? '{}'
    const { code, reference, detail } = JSON.parse(line) as Record<string, string>
    assert.is(code, 'internal')
    assert.match(reference ?? '', /^[0-9a-f]{6}$/)
    assert.is(detail, 'a \u009bdefect')
    assert.not.match(line, /\u009b/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
