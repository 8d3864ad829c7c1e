// The figures for Prometheus: their text is what its own linter takes, whatever is in a label; nobody makes
// them grow without end; and what happens on this node is counted where it happens.
import { request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { serveMetrics } from '../src/api/metrics-server.ts'
import { parseConfig } from '../src/config.ts'
import { SallyportError, asSallyportError } from '../src/errors.ts'
import { readGiven } from '../src/main/given-secret.ts'
import { createMetrics, seriesMax } from '../src/metrics.ts'
import { bench } from './peers/api-bench.ts'
import { readExposition } from './peers/exposition.ts'

test('counters, gauges and histograms are printed as Prometheus reads them', () => {
  const metrics = createMetrics()
  const ended = metrics.counter('x_ended_total', 'How a "session" \\ ended,\nand why.', ['code'])
  const live = metrics.gauge('x_live', 'Live.')
  const took = metrics.histogram('x_seconds', 'Took.', [0.1, 1], ['verb'])
  metrics.counter('x_never_total', 'A figure from the start.')
  metrics.gauge('x_unset', 'Not known yet.')
  for (const code of ['a"b', 'back\\slash', 'two\nlines', 'a"b']) ended.add([code])
  live.set(1e-7)
  for (const seconds of [0.1, 0.5, 7, 0.0625]) took.observe(seconds, ['create'])
  const read = readExposition(metrics.print())
  assert.is(read.value('x_ended_total', { code: 'a"b' }), 2)
  assert.is(read.value('x_ended_total', { code: 'back\\slash' }), 1)
  assert.is(read.value('x_ended_total', { code: 'two\nlines' }), 1)
  assert.is(read.value('x_live'), 1e-7)
  assert.is(read.value('x_never_total'), 0)
  assert.not.ok(read.types.has('x_unset'), 'what is not known is not said')
  const bucket = (le: string): number =>
    read.samples.find(({ name, labels }) => name === 'x_seconds_bucket' && labels['le'] === le)!.value
  assert.equal([bucket('0.1'), bucket('1'), bucket('+Inf')], [2, 3, 4])
  assert.is(read.value('x_seconds_sum', { verb: 'create' }), 7.6625)
  live.set(NaN)
  assert.ok(Number.isNaN(readExposition(metrics.print()).value('x_live')))
})

test('a metric has an end: what comes beyond is added up under other', () => {
  const metrics = createMetrics()
  const counter = metrics.counter('x_total', 'X.', ['target', 'code'])
  for (let at = 0; at < seriesMax + 50; at++) counter.add([`target-${at}`, 'c'])
  counter.add(['target-0', 'c'])
  counter.add(['z'.repeat(10_000), 'c'])
  const { samples, value } = readExposition(metrics.print())
  assert.is(samples.length, seriesMax + 1)
  assert.is(value('x_total', { target: 'other', code: 'other' }), 51)
  assert.is(value('x_total', { target: 'target-0', code: 'c' }), 2)
  assert.ok(metrics.print().length < 100 * seriesMax)
})

test('the reader of this test refuses what Prometheus would', () => {
  const good = '# HELP x X.\n# TYPE x gauge\nx 1\n'
  readExposition(good)
  const histogram = (...lines: string[]): string =>
    ['# HELP h H.', '# TYPE h histogram', ...lines, 'h_sum 1', 'h_count 2', ''].join('\n')
  readExposition(histogram('h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 2'))
  const bad = [
    'x 1\n', good.trimEnd(), `${good}x 2\n`, `${good}# HELP x X.\n`, good.replace('x 1', 'y 1'),
    good.replace('x 1', 'x one'), good.replace('x 1', 'x{a="b" c="d"} 1'),
    good.replace('x 1', 'x{a="\\t"} 1'),
    good.replace('gauge', 'summary'), good.replace('gauge', 'counter'), `${good}\n`,
    good.replace('x 1', 'x{a="1",a="2"} 1'),
    histogram('h_bucket{le="1"} 3', 'h_bucket{le="+Inf"} 2'), histogram('h_bucket{le="1"} 2'),
    histogram('h_bucket{le="2"} 1', 'h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 2'),
    histogram('h_bucket{le="+Inf"} 3')
  ]
  for (const text of bad) assert.throws(() => readExposition(text), undefined, text)
})

test('over the API they are for auditors, admins and the token of the configuration', async () => {
  const { ask, memory, tokens } = bench()
  for (const role of ['auditor', 'admin', 'metrics'] as const) {
    const { status, type, text } = await ask('GET', '/metrics', { token: tokens[role] })
    assert.equal([status, type], [200, 'text/plain; version=0.0.4; charset=utf-8'])
    readExposition(text)
  }
  assert.is((await ask('GET', '/api/v1/metrics', { token: tokens.admin })).status, 404)
  assert.equal((await ask('GET', '/api/v1/whoami', { token: tokens.metrics })).status, 403)
  assert.is((await ask('GET', '/healthz')).status, 200)
  assert.is((await ask('GET', '/readyz')).status, 200)
  memory.ready = false
  assert.is((await ask('GET', '/readyz')).status, 503)
  assert.is((await ask('GET', '/healthz')).status, 200, 'not ready is not dead')
})

test('the listener for this machine has the figures and the health, and nothing else', async () => {
  let ready: () => Promise<boolean> = () => Promise.resolve(true)
  const figures = '# HELP x X.\n# TYPE x gauge\nx 1\n'
  const health = { ready: () => ready(), metrics: () => Promise.resolve(figures) }
  const server = await serveMetrics(health, { host: '127.0.0.1', port: 0 })
  const ask = async (path: string, method = 'GET'): Promise<[number | undefined, string]> => {
    const sent = request({ ...server.address, path, method, agent: false })
    sent.end()
    const [answer] = await once(sent, 'response') as [IncomingMessage]
    return [answer.statusCode, await text(answer)]
  }
  try {
    assert.is(readExposition((await ask('/metrics'))[1]).value('x'), 1)
    assert.equal(await ask('/healthz'), [200, 'alive\n'])
    assert.equal(await ask('/readyz'), [200, 'ready\n'])
    ready = () => Promise.reject(new SallyportError('store-unavailable'))
    assert.is((await ask('/readyz'))[0], 503)
    assert.is((await ask('/api/v1/health'))[0], 404)
    assert.is((await ask('/metrics', 'POST'))[0], 405)
  } finally {
    await server.close()
  }
})

test('the listener is one of this machine alone, and the token comes from a file or a variable', () => {
  const parse = (line: string) => parseConfig(line, undefined, {}, '/etc/sallyport').metrics
  assert.equal(parse(''), { listen: undefined, token: undefined })
  assert.equal(parse('metrics: { listen: "127.0.0.1:9464", token: { file: token } }'), {
    listen: { host: '127.0.0.1', port: 9464 }, token: { kind: 'file', file: '/etc/sallyport/token' }
  })
  const wrong = ['{ listen: "0.0.0.0:9464" }', '{ listen: 9464 }', '{ token: { value: x } }', '{ token: {} }']
  for (const line of wrong) {
    assert.throws(() => parse(`metrics: ${line}`), /not valid/, line)
  }
  const given = (value: string | undefined): string =>
    readGiven({ kind: 'env', name: 'T' }, 'metrics.token', { T: value }).expose()
  assert.is(given(' 0123456789abcdef\n'), '0123456789abcdef')
  for (const [value, problem] of [
    [undefined, /variable T is not there/], ['short', /shorter than 16/], ['0123456789 abcdef', /no word/]
  ] as const) {
    try {
      given(value)
      assert.unreachable()
    } catch (thrown) {
      assert.match(asSallyportError(thrown).problems[0]!, problem)
    }
  }
})

test.run()
