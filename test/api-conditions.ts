// Conditions of requests: whoever has an answer already is told so, an edit of what somebody else changed
// meanwhile is refused, and a download of a sealed recording goes on where it broke.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { expectTag, namesTag, partOf, resourceTag } from '../src/api/conditions.ts'
import { bench, sessionId } from './peers/api-bench.ts'
import type { Answer } from './peers/api-bench.ts'

test('a range is one range of bytes, within what is there', () => {
  const parts: [header: string | undefined, part: unknown][] = [
    ['bytes=0-0', { start: 0, end: 0 }], ['bytes=2-', { start: 2, end: 9 }],
    ['bytes=-3', { start: 7, end: 9 }],
    ['bytes=5-99', { start: 5, end: 9 }], ['bytes=-99', { start: 0, end: 9 }],
    ['bytes=10-', 'unsatisfiable'], ['bytes=10-11', 'unsatisfiable'], ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-4', undefined], ['bytes=-', undefined], ['bytes=0-1,3-4', undefined], ['lines=0-1', undefined],
    ['bytes=a-b', undefined], [undefined, undefined], [`bytes=${'9'.repeat(30)}-`, undefined]
  ]
  for (const [header, part] of parts) assert.equal(partOf(header, 10), part, header)
})

test('every list and object has a tag, and is not sent to whoever has it', async () => {
  const { ask, memory, tokens, routes } = bench()
  const get = (path: string, header?: string): Promise<Answer> => ask('GET', `/api/v1${path}`, {
    token: tokens.admin, ...header === undefined ? {} : { headers: { 'if-none-match': header } }
  })
  const lists = routes.filter(({ method, path, response, atRoot }) =>
    method === 'get' && !path.includes('{') && !('stream' in response) && atRoot !== true)
  let tagged = 0
  for (const { path } of lists) {
    const first = await get(path)
    if (first.status !== 200) continue
    const tag = first.headers.get('etag')
    assert.match(tag ?? '', /^"[A-Za-z0-9_-]{27}"$/, path)
    const again = await get(path, `"other", W/${tag}`)
    assert.equal([again.status, again.text, again.headers.get('etag')], [304, '', tag], path)
    tagged++
  }
  assert.ok(tagged >= 10, String(tagged))
  const before = (await get('/sessions')).headers.get('etag')!
  memory.sessions[0]!.reason = 'session-killed'
  assert.is((await get('/sessions', before)).status, 200, 'what changed is sent')
  assert.ok(namesTag('*', '"x"') && !namesTag(undefined, '"x"') && !namesTag('"y"', '"x"'))
})

test('a resource is changed and deleted only as it was read, where a client asks for that', async () => {
  const { ask, memory, tokens } = bench()
  const token = tokens.admin
  const path = '/api/v1/resources/user/bob'
  const apply = (disabled: boolean, headers = {}, more: unknown[] = []): Promise<Answer> =>
    ask('POST', '/api/v1/apply', {
      token, headers, body: { documents: [{ kind: 'user', name: 'bob', disabled }, ...more] }
    })
  await apply(false)
  const read = await ask('GET', path, { token })
  const tag = read.headers.get('etag')!
  assert.is(tag, resourceTag(memory.resources.get('user/bob')!))
  assert.is((await apply(true, { 'if-match': tag })).status, 200)
  const late = await apply(false, { 'if-match': tag })
  assert.equal([late.status, late.json.error.code, late.json.error.problems],
    [412, 'not-as-expected', ['it is version 2, by the-admin']])
  assert.is((await ask('DELETE', path, { token, headers: { 'if-match': tag } })).status, 412)
  const two = await apply(false, { 'if-match': '*' }, [{ kind: 'user', name: 'eve' }])
  assert.is(two.status, 400)
  const now = (await ask('GET', path, { token })).headers.get('etag')!
  assert.is((await ask('DELETE', path, { token, headers: { 'if-match': `"x", ${now}` } })).status, 200)
  const gone = await apply(false, { 'if-match': '*' })
  assert.equal(gone.json.error.problems, ['there is none any more'])
  assert.is(memory.resources.has('user/bob'), false)
  assert.throws(() => expectTag(`W/${now}`, memory.resources.get('user/the-user')), /not-as-expected/)
})

test('a sealed recording is had in parts; one that runs is had whole', async () => {
  const { ask, memory, tokens } = bench()
  const get = (headers: Record<string, string> = {}): Promise<Answer> =>
    ask('GET', `/api/v1/sessions/${sessionId}/recording`, { token: tokens.auditor, headers })
  const whole = await get()
  const field = (answer: Answer, name: string): string | null => answer.headers.get(name)
  assert.equal([whole.status, whole.text, field(whole, 'content-length')], [200, '0123456789', '10'])
  assert.equal([field(whole, 'accept-ranges'), field(whole, 'etag')], ['bytes', '"cafe"'])
  const part = await get({ range: 'bytes=3-5' })
  assert.equal([part.status, part.text, field(part, 'content-range'), field(part, 'content-length')],
    [206, '345', 'bytes 3-5/10', '3'])
  assert.is((await get({ range: 'bytes=7-', 'if-range': '"cafe"' })).text, '789')
  const other = await get({ range: 'bytes=7-', 'if-range': '"beef"' })
  assert.equal([other.status, other.text], [200, '0123456789'], 'of another recording: the whole')
  const after = await get({ range: 'bytes=10-' })
  assert.equal([after.status, after.json.error.code, field(after, 'content-range')],
    [416, 'range-unsatisfiable', 'bytes */10'])
  memory.sessions[0]!.recordingHead = null
  const live = await get({ range: 'bytes=3-5' })
  assert.equal([live.status, live.text, field(live, 'accept-ranges')], [200, '0123456789', null])
  const looks = memory.audit.filter(({ kind }) => kind === 'session.exported')
  assert.ok(looks.length >= 6, 'each look is audited')
})

test.run()
