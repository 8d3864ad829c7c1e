// R16: more than 200 hostile values in every place where a template can put one, against real servers. Each
// is either refused before anything is sent or comes back from the server exactly as it went in; afterwards
// the server's catalogue and the table that the values are after are what they were. The same values are
// names of accounts.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import type { Variables } from '../src/jit/plugin.ts'
import { parseTemplate, renderStep } from '../src/jit/template.ts'
import { quoteIdentifier } from '../src/jit/sql-text.ts'
import { Secret } from '../src/secret.ts'
import { connectClient } from '../src/wire/postgres/query.ts'
import type { Client } from '../src/wire/postgres/query.ts'
import { shippedTemplate, startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

const payloads = hostileValues()

/** Where a value can stand; `back` reads it from the answer. */
const places: readonly { name: string, sql: string, back: 'cell' | 'column' }[] = [
  { name: 'literal', sql: 'SELECT {{ x | literal }}', back: 'cell' },
  { name: 'literal in a call', sql: 'SELECT concat({{ x | literal }}, {{ y | literal }})', back: 'cell' },
  { name: 'identifier', sql: 'SELECT 1 AS {{ x | ident }}', back: 'column' },
  { name: 'qualified name', sql: 'SELECT t.{{ x|ident }} FROM (SELECT 1 {{ x|ident }}) t', back: 'column' },
  { name: 'list', sql: 'SELECT * FROM (VALUES (1, 2)) AS t({{ xs | identlist }})', back: 'column' },
  { name: 'bare in a string', sql: "SELECT '{{ x }}'", back: 'cell' },
  { name: 'bare in an escape string', sql: "SELECT E'{{ x }}'", back: 'cell' },
  { name: 'bare in an identifier', sql: 'SELECT 1 AS "{{ x }}"', back: 'column' },
  { name: 'bare number', sql: 'SELECT {{ x }}', back: 'cell' },
  { name: 'condition', sql: "SELECT {% if x == 'yes' %}1{% else %}2{% endif %}, {{x|literal}}", back: 'cell' }
]

function hostileValues(): string[] {
  const cores = [
    'DROP TABLE victims', 'DELETE FROM victims', 'ALTER ROLE postgres PASSWORD NULL', 'SELECT pg_sleep(30)',
    'CREATE ROLE intruder SUPERUSER LOGIN', 'COPY victims TO PROGRAM \'id\'', 'GRANT app_rw TO PUBLIC'
  ]
  const before = [
    '; ', "'; ", '"; ', "''; ", '""; ', "\\'; ", '\\"; ', "'); ", '"); ', '*/ ', '/* ', '-- \n', '$$; ',
    '$x$; ', "' || (",
    "E'\\''; ", '\u02bc; ', '\uff07; ', '\u2019; ', "\u00a0'; ", '}}; ', '%}; '
  ]
  const made = before.flatMap(start => cores.map(core => `${start}${core}; --`))
  return [
    ...made,
    "' OR '1'='1", "x' UNION SELECT usename FROM pg_user --", 'x" FROM victims; --', "a'b", 'a"b', 'a`b',
    "''", '""', "'", '"',
    '\\', '\\\\', "\\'", 'trailing\\', '$$', '$1', '$tag$', '--', '/*', '*/', '/**/', ';', ';;', '::text',
    '@@version', '..', '//',
    '{{ 7 * 7 }}', '{{ username }}', '{% raw %}', '{% if x %}', '}}', '%}', '| raw', '__proto__',
    'constructor', 'valueOf',
    'toString', 'hasOwnProperty', 'SUPERUSER', 'CURRENT_USER', 'SESSION_USER', 'PUBLIC', 'NULL', 'DEFAULT',
    'pg_read_all_data',
    'postgres', '%I', '%s%n', '${x}', '$(id)', '`id`', '&& id', '| id', '> /tmp/x', '\t', '\n', '\r\n',
    '\v\f', ' ', '  a  ',
    '\u0001', '\u0085', '\u2028', '\u202e', '\ufeff', 'Ünï', '数据', '😀', '\0', 'a\0b', '\ud800', 'a\udfff',
    '-1', '1-1', '1e9',
    '0x10', '1;', '007', '42', '9'.repeat(30), 'x'.repeat(63), 'x'.repeat(64), 'é'.repeat(32),
    '😀'.repeat(15), '😀'.repeat(16), 'x'.repeat(5000), 'x'.repeat(9000), '',
    'yes', "yes' == 'yes", 'jit_0000001', '2030-01-01T00:00:00Z', 'a-b.c:d+e@f/g', '-a', 'a-', 'a--b',
    'U&"\\0022"', '"\\0041"',
    'SCRAM-SHA-256$1:c2FsdA==$c3RvcmVk:c2VydmVy', "a' /* */ 'b", "a'\n'b", "E'x'", '\\x41', '\\u0027', '%27',
    '&#39;', "\\''; --"
  ]
}

function templateOf(sql: string): ReturnType<typeof parseTemplate> {
  const variables = 'x: { description: x }, y: { description: y, default: "" }, '
    + 'xs: { description: xs, list: true, required: false }'
  return parseTemplate(`id: postgres/hostile\nplugin: postgres\naction: create\ntitle: x
variables: { ${variables} }\nsteps:\n  - sql: ${JSON.stringify(sql)}`)
}

function rendered(template: ReturnType<typeof parseTemplate>, values: Variables): string | undefined {
  try {
    return renderStep(template, template.steps[0]!, values).sql
  } catch (error) {
    if (error instanceof SallyportError && error.code === 'invalid') return undefined
    throw error
  }
}

async function open(target: JitTarget, scs: 'on' | 'off'): Promise<Client> {
  return await connectClient({
    host: target.server.host, port: target.server.port, tls: { mode: 'disable' }, database: 'app',
    user: target.server.superuser, secret: () => (
      { kind: 'password', password: target.server.superuserPassword }
    ),
    timeouts: { connectMs: 10_000, tlsMs: 10_000, loginMs: 10_000 },
    parameters: [['standard_conforming_strings', scs]]
  })
}

const snapshot = `SELECT
  (SELECT md5(string_agg(a::text, ';' ORDER BY oid)) FROM pg_authid a WHERE rolname NOT LIKE 'hook %'),
  (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace), (
    SELECT count(*) FROM pg_auth_members
  )`

for (const version of ['15', '18'] as const) {
  const injection = suite<{ target: JitTarget }>(`PostgreSQL ${version}`)

  injection.before(async context => {
    context.target = await startJitTarget({ version })
    await context.target.server.psql("CREATE TABLE victims AS SELECT 'untouched' AS state", 'app')
  })
  injection.after(async ({ target }) => {
    await target[Symbol.asyncDispose]()
  })

  for (const place of places) {
    injection(`as ${place.name}: every value is refused or comes back as it is`, async ({ target }) => {
      assert.ok(payloads.length >= 200, String(payloads.length))
      const before = await target.server.psql(snapshot, 'app')
      let [exact, refused] = [0, 0]
      // The plugin pins the setting; a template must be right even where a server has the old one.
      for (const scs of ['on', 'off'] as const) {
        const client = await open(target, scs)
        for (const payload of payloads) {
          const values = { x: payload, y: '', xs: [payload, 'second'] }
          const sql = rendered(templateOf(place.sql), values)
          if (sql === undefined) {
            refused++
            continue
          }
          const { rows, columns } = await client.query(sql, { timeoutMs: 10_000 })
          const back = place.back === 'column' ? columns[0] : rows[0]?.at(-1)
          assert.is(back, payload, `${JSON.stringify(payload)} in ${sql.slice(0, 200)}`)
          assert.is(rows.length, 1)
          if (place.name === 'condition') assert.is(rows[0]?.[0], payload === 'yes' ? '1' : '2')
          exact++
        }
        await client.close()
      }
      assert.is(exact + refused, 2 * payloads.length)
      assert.ok(exact > 0)
      assert.is(await target.server.psql(snapshot, 'app'), before)
      assert.is(await target.server.psql('SELECT state FROM victims', 'app'), 'untouched')
    })
  }

  injection('as privileges: a word of the list; as what they are given on: one name', async ({ target }) => {
    const before = await target.server.psql(snapshot, 'app')
    const client = await open(target, 'on')
    const grant = templateOf('GRANT {{ xs | privileges }} ON {{ x | tables }} TO {{ y | ident }}')
    let exact = 0
    for (const payload of payloads) {
      assert.is(rendered(grant, { x: 'public.victims', y: 'app_ro', xs: ['SELECT', payload] }), undefined)
      for (const x of [payload, `public.${payload}`, `${payload}.victims`]) {
        const sql = rendered(grant, { x, y: 'app_ro', xs: ['select'] })
        if (sql === undefined) continue
        const table = x.split('.').map(quoteIdentifier)
        assert.is(table.length, 2, x)
        assert.is(sql, `GRANT SELECT ON TABLE ${table.join('.')} TO "app_ro"`)
        const answer = await client.query(sql, { timeoutMs: 10_000 }).then(() => '', String)
        assert.match(answer, /does not exist/, sql)
        exact++
      }
    }
    await client.close()
    assert.ok(exact > 200, String(exact))
    assert.is(await target.server.psql(snapshot, 'app'), before)
  })

  injection('as an option of a verb: the value reaches the plugin as it is', () => {
    const template = parseTemplate(`id: postgres/hostile\nplugin: postgres\naction: delete\ntitle: x
variables: { x: { description: x } }\nsteps:\n  - { do: clean-databases, with: { owner: '{{ x }}' } }`)
    let exact = 0
    for (const payload of payloads) {
      try {
        assert.is(renderStep(template, template.steps[0]!, { x: payload }).with['owner'], payload)
        exact++
      } catch (error) {
        assert.ok(error instanceof SallyportError && (
          payload.includes('\0') || !payload.isWellFormed()
        ), String(error))
      }
    }
    assert.ok(exact >= 200)
  })

  injection.run()
}

const names = suite<{ target: JitTarget }>('names of accounts')

names.before(async context => {
  context.target = await startJitTarget({ version: '15' })
  await context.target.server.psql("CREATE TABLE victims AS SELECT 'untouched' AS state", 'app')
})
names.after(async ({ target }) => {
  await target[Symbol.asyncDispose]()
})

names('an existing account may have any name that PostgreSQL takes', async ({ target }) => {
  const { superuser, superuserPassword } = target.server
  const secret = { kind: 'password', password: new Secret(superuserPassword) } as const
  const access = { ...target.access, username: superuser, secret }
  const client = await open(target, 'on')
  let [switched, refused] = [0, 0]
  for (const payload of payloads) {
    const account = target.mint(payload, 'enable')
    const enable = {
      ...target.job('enable', shippedTemplate('enable-role'), account, account.minted), access
    }
    const short = payload !== '' && Buffer.byteLength(payload) <= 63
    const fits = short && payload.isWellFormed() && !payload.includes('\0')
    const taken = /^(pg_|postgres$)|^(public|none)$/.test(payload)
    if (taken) continue
    if (!fits) {
      const on = await target.hooks.run(enable)
      assert.is(on.state, 'refused')
      refused++
      continue
    }
    await client.query(`CREATE ROLE ${quoteIdentifier(payload)} NOLOGIN`, { timeoutMs: 10_000 })
    const before = (await client.query(snapshot, { timeoutMs: 10_000 })).rows
    const on = await target.hooks.run(enable)
    assert.equal([on.state, on.seen?.enabled], ['done', true], `${JSON.stringify(payload)} ${on.error}`)
    const off = await target.hooks.run({
      ...target.job('disable', shippedTemplate('disable-role'), { ...account, epoch: 2 }), access
    })
    assert.equal([off.state, off.seen?.enabled], ['done', false], `${JSON.stringify(payload)} ${off.error}`)
    await client.query(
      `ALTER ROLE ${quoteIdentifier(payload)} VALID UNTIL NULL`, { timeoutMs: 10_000 }
    ).catch(() => undefined)
    const after = (await client.query(snapshot, { timeoutMs: 10_000 })).rows
    assert.equal(after.map(row => row.slice(1)), before.map(row => row.slice(1)))
    await client.query(`DROP ROLE ${quoteIdentifier(payload)}`, { timeoutMs: 10_000 })
    switched++
  }
  await client.close()
  assert.ok(switched > 180 && refused > 5, `${switched} switched, ${refused} refused`)
  assert.is(await target.server.psql('SELECT state FROM victims', 'app'), 'untouched')
  assert.is(await target.server.psql("SELECT count(*) FROM pg_roles WHERE rolname = 'intruder'"), '0')
})

names.run()
