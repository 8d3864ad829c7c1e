// A double of Oracle at the interface of its driver (execute, close): the statements that the plugin sends,
// on users, roles, sessions and objects in memory, with the server's rules and error numbers as its manual
// gives them. Whatever else is said is a syntax error. No byte of Oracle's protocol is spoken here.
import { createHash, pbkdf2Sync } from 'node:crypto'
import { clientOf } from '../../plugins/oracle/driver.ts'
import type { OracleConnection } from '../../plugins/oracle/driver.ts'
import type { Client } from '../../plugins/apart/words.ts'
import type { Access } from '../../src/jit/plugin.ts'
import { systemClock } from '../../src/clock.ts'
import { UpstreamError } from '../../src/wire/error.ts'

interface User {
  verifier: string
  status: string
  profile: string
  maintained: boolean
  roles: Set<string>
  privileges: Set<string>
  objects: { kind: string, name: string }[]
}

interface Session {
  user: string
  serial: number
  instance: number
  /** Looks that it outlives after it was ended. */
  lingers: number
  ended: boolean
}

interface Row {
  accountId: string | null
  epoch: number
  holder: string | null
  heldUntil: number
  gone: boolean
}

interface Result {
  rows?: unknown[][]
  rowsAffected?: number
}

type Rule = readonly [RegExp, (found: string[], binds: readonly string[], me: Session) => Result]

export const hooksPrivileges = [
  'CREATE SESSION', 'CREATE TABLE', 'CREATE USER', 'ALTER USER', 'DROP USER', 'ALTER SYSTEM'
]
const name = '"([^"]{1,128})"'
const table = 'sallyport_accounts'

function ora(number: number, text: string): Error {
  const code = `ORA-${String(number).padStart(5, '0')}`
  return Object.assign(new Error(`${code}: ${text}`), { code, errorNum: number })
}

const lost = (): Error => Object.assign(new Error('NJS-500: connection to the Oracle Database was broken'), {
  code: 'NJS-500'
})

export class OracleDouble {
  readonly users = new Map<string, User>()
  readonly roles = new Set<string>()
  readonly profiles = new Set(['DEFAULT', 'SALLYPORT_JIT'])
  readonly sessions = new Map<number, Session>()
  readonly log: string[] = []
  accounts: Map<string, Row> | undefined
  /** Statements until a connection breaks: that one happens, and its answer is lost. */
  losesIn = Infinity
  takesVerifiers = true
  readonly #rules: readonly Rule[]
  #sid = 100

  constructor() {
    this.#rules = [...this.#looks(), ...this.#books(), ...this.#users(), ...this.#sessions()]
  }

  addUser(user: string, password: string, changes: Partial<User> = {}): User {
    const made: User = {
      verifier: `clear ${password}`, status: 'OPEN', profile: 'DEFAULT', maintained: false, roles: new Set(),
      privileges: new Set(['CREATE SESSION']), objects: [], ...changes
    }
    this.users.set(user, made)
    return made
  }

  /** As the plugin connects, with the driver's own layer in between. */
  connect = ({ username, secret }: Access): Promise<Client> => {
    const password = secret.kind === 'password' ? secret.password.expose() : ''
    return Promise.resolve(clientOf(this.session(username, password)))
  }

  /** A login as a client makes it. @throws UpstreamError */
  session(username: string, password: string, instance = 1): OracleConnection {
    const user = username.toUpperCase()
    const account = this.users.get(user)
    const refuse = (said: string): never => {
      throw new UpstreamError('refused', `the target refused the login: ${said}`)
    }
    if (account === undefined || !fits(account.verifier, password)) return refuse('ORA-01017')
    if (/LOCKED/.test(account.status)) return refuse('ORA-28000')
    if (!account.privileges.has('CREATE SESSION')) return refuse('ORA-01045')
    const sid = ++this.#sid
    const me: Session = { user, serial: sid * 7, instance, lingers: 0, ended: false }
    this.sessions.set(sid, me)
    return {
      callTimeout: 0,
      // The driver's promise: it begins in the same turn.
      execute: async (sql, binds) => await Promise.resolve(this.#execute(sql, binds.map(String), me)),
      close: async () => {
        this.sessions.delete(sid)
        await Promise.resolve()
      }
    }
  }

  #execute(sql: string, binds: readonly string[], me: Session): Result {
    if (me.ended) throw lost()
    this.log.push(sql)
    const said = sql.replaceAll(/\s+/g, ' ').trim()
    for (const [form, act] of this.#rules) {
      const found = form.exec(said)
      if (found === null) continue
      if (--this.losesIn !== 0) return act(found.slice(1), binds, me)
      me.ended = true
      act(found.slice(1), binds, me)
      throw lost()
    }
    throw ora(900, `invalid SQL statement: ${said.slice(0, 200)}`)
  }

  #need(me: Session, privilege: string): void {
    const { privileges } = this.users.get(me.user) ?? {}
    if (privileges?.has(privilege) !== true) throw ora(1031, 'insufficient privileges')
  }

  #user(user: string, act: string): User {
    const found = this.users.get(user)
    if (found === undefined) throw ora(1918, `user '${user}' does not exist (${act})`)
    return found
  }

  #looks(): Rule[] {
    const mayRead = (me: Session): void => {
      if (this.users.get(me.user)?.privileges.has('SELECT CATALOG') !== true) {
        throw ora(942, 'table or view does not exist')
      }
    }
    return [
      [/^SELECT SYS_CONTEXT\('USERENV', 'INSTANCE'\), .* FROM dual$/,
        () => ({ rows: [['1', '19.0.0.0.0']] })],
      [/^SELECT account_status, profile, oracle_maintained FROM dba_users WHERE username = :1$/,
        (_, [user = ''], me) => {
          mayRead(me)
          const found = this.users.get(user)
          if (found === undefined) return { rows: [] }
          return { rows: [[found.status, found.profile, found.maintained ? 'Y' : 'N']] }
        }],
      [/^SELECT TO_CHAR\(sid\), .* FROM gv\$session WHERE username = :1 AND type = 'USER'$/,
        (_, [user], me) => {
          mayRead(me)
          const found = [...this.sessions].filter(([, one]) => one.user === user)
          for (const [sid, one] of found) if (one.ended && --one.lingers <= 0) this.sessions.delete(sid)
          return { rows: found.map(([sid, one]) => [String(sid), String(one.serial), String(one.instance)]) }
        }],
      [/^SELECT granted_role FROM dba_role_privs WHERE grantee = :1$/, (_, [user = '']) =>
        ({ rows: [...this.users.get(user)?.roles ?? []].map(role => [role]) })],
      [/^SELECT LOWER\(object_type\), object_name FROM dba_objects WHERE owner = :1 .*$/, (_, [user = '']) =>
        ({ rows: (this.users.get(user)?.objects ?? []).map(one => [one.kind, one.name]) })],
      [/^SELECT privilege FROM session_privs$/, (_found, _binds, me) =>
        ({ rows: [...this.users.get(me.user)?.privileges ?? []].map(one => [one]) })],
      [/^SELECT COUNT\(\*\) FROM (\S+) WHERE (?:1 = 0|profile = '(\w+)')$/, ([, profile], _, me) => {
        mayRead(me)
        return { rows: [[profile !== undefined && this.profiles.has(profile) ? 1 : 0]] }
      }],
      [/^SELECT granted_role FROM user_role_privs .* UNION ALL SELECT privilege FROM user_sys_privs .*$/,
        (_found, _binds, me) => ({ rows: [...this.users.get(me.user)?.roles ?? []].map(one => [one]) })],
      [/^SELECT USER FROM dual$/, (_found, _binds, me) => ({ rows: [[me.user]] })]
    ]
  }

  #books(): Rule[] {
    const rows = (): Map<string, Row> => {
      if (this.accounts === undefined) throw ora(942, 'table or view does not exist')
      return this.accounts
    }
    const now = (): number => systemClock.now().getTime()
    return [
      [new RegExp(`^SELECT account_id, .* FROM ${table} WHERE name = :1$`), (_, [account = '']) => {
        const row = rows().get(account)
        if (row === undefined) return { rows: [] }
        const held = String(Math.round(row.heldUntil - now()))
        return { rows: [[row.accountId, String(row.epoch), row.holder, held]] }
      }],
      [new RegExp(`^INSERT INTO ${table} .* WHERE NOT EXISTS .*$`), (_, [account = '']) => {
        if (rows().has(account)) return { rowsAffected: 0 }
        rows().set(account, { accountId: null, epoch: 0, holder: null, heldUntil: now(), gone: false })
        return { rowsAffected: 1 }
      }],
      [new RegExp(`^UPDATE ${table} SET holder = :1, .*\\((\\d+), 'SECOND'\\) WHERE name = :2 .*$`),
        ([seconds], [holder = '', account = '']) => {
          const row = rows().get(account)
          const isHeld = row?.holder !== holder && (row?.heldUntil ?? 0) > now()
          if (row === undefined || isHeld) return { rowsAffected: 0 }
          Object.assign(row, { holder, heldUntil: now() + Number(seconds) * 1000 })
          return { rowsAffected: 1 }
        }],
      [new RegExp(`^UPDATE ${table} SET account_id = :1, epoch = :2, gone_at = NULL WHERE name = :3$`),
        (_, [accountId = '', epoch, account = '']) => {
          Object.assign(rows().get(account) ?? {}, { accountId, epoch: Number(epoch), gone: false })
          return { rowsAffected: 1 }
        }],
      [new RegExp(`^UPDATE ${table} SET gone_at = SYS_EXTRACT_UTC.* WHERE name = :1$`),
        (_, [account = '']) => {
          Object.assign(rows().get(account) ?? {}, { gone: true })
          return { rowsAffected: 1 }
        }],
      [new RegExp(`^DELETE FROM ${table} WHERE gone_at < .*'HOUR'\\)$`), () => ({ rowsAffected: 0 })],
      [new RegExp(`^SELECT name, account_id FROM ${table} WHERE gone_at IS NULL .*$`), () => ({
        rows: [...rows()].filter(([, row]) => !row.gone && row.accountId !== null)
          .map(([account, { accountId }]) => [account, accountId])
      })],
      [new RegExp(`^CREATE TABLE ${table} .*$`), (_found, _binds, me) => {
        this.#need(me, 'CREATE TABLE')
        this.accounts ??= new Map()
        return { rowsAffected: 0 }
      }]
    ]
  }

  #users(): Rule[] {
    const done: Result = { rowsAffected: 0 }
    const verifier = (found: string): string => {
      if (!this.takesVerifiers || !/^T:[0-9A-F]{160}$/.test(found)) {
        throw ora(2153, 'invalid VALUES password string')
      }
      return found
    }
    return [
      [new RegExp(`^CREATE USER ${name} IDENTIFIED BY (?:VALUES '([^']*)'|"([^"]*)") PROFILE (\\w+)$`),
        ([user = '', values, clear = '', profile = ''], _, me) => {
          this.#need(me, 'CREATE USER')
          if (this.users.has(user) || this.roles.has(user)) {
            throw ora(1920, `user name '${user}' conflicts with another user or role name`)
          }
          const folded = profile.toUpperCase()
          if (!this.profiles.has(folded)) throw ora(2380, `profile ${folded} does not exist`)
          if (clear.length > 30) throw ora(972, 'identifier is too long')
          this.addUser(user, clear, {
            profile: folded, privileges: new Set(),
            ...values === undefined ? {} : { verifier: verifier(values) }
          })
          return done
        }],
      [new RegExp(`^GRANT CREATE SESSION TO ${name}$`), ([user = '']) => {
        this.#user(user, 'grant').privileges.add('CREATE SESSION')
        return done
      }],
      [new RegExp(`^(GRANT|REVOKE) ${name} (?:TO|FROM) ${name}$`), ([word, role = '', user = '']) => {
        if (!this.roles.has(role)) throw ora(1919, `role '${role}' does not exist`)
        const { roles } = this.#user(user, 'grant')
        if (word === 'GRANT') roles.add(role)
        else if (!roles.delete(role)) throw ora(1951, `ROLE '${role}' not granted to '${user}'`)
        return done
      }],
      [new RegExp(`^ALTER USER ${name} ACCOUNT (LOCK|UNLOCK)$`), ([user = '', word], _, me) => {
        this.#need(me, 'ALTER USER')
        this.#user(user, 'alter').status = word === 'LOCK' ? 'LOCKED' : 'OPEN'
        return done
      }],
      [new RegExp(`^ALTER USER ${name} IDENTIFIED BY VALUES '([^']*)'$`),
        ([user = '', values = ''], _, me) => {
          this.#need(me, 'ALTER USER')
          this.#user(user, 'alter').verifier = verifier(values)
          return done
        }],
      [new RegExp(`^DROP USER ${name}( CASCADE)?$`), ([user = '', cascade], _, me) => {
        this.#need(me, 'DROP USER')
        const { objects } = this.#user(user, 'drop')
        if ([...this.sessions.values()].some(one => one.user === user)) {
          throw ora(1940, 'cannot drop a user that is currently connected')
        }
        if (objects.length > 0 && cascade === undefined) {
          throw ora(1922, `CASCADE must be specified to drop '${user}'`)
        }
        this.users.delete(user)
        return done
      }]
    ]
  }

  #sessions(): Rule[] {
    return [
      [/^ALTER SYSTEM (DISCONNECT|KILL) SESSION '(\d+),(\d+)(?:,@(\d+))?' IMMEDIATE$/,
        ([word, sid, serial, instance], _, me) => {
          this.#need(me, 'ALTER SYSTEM')
          const session = this.sessions.get(Number(sid))
          const here = word === 'DISCONNECT' ? me.instance : Number(instance ?? me.instance)
          if (session?.serial !== Number(serial) || session.instance !== here) {
            throw ora(30, 'User session ID does not exist.')
          }
          session.ended = true
          if (session.lingers === 0) this.sessions.delete(Number(sid))
          return { rowsAffected: 0 }
        }]
    ]
  }
}

function fits(verifier: string, password: string): boolean {
  if (!verifier.startsWith('T:')) return verifier === `clear ${password}`
  const salt = Buffer.from(verifier.slice(130), 'hex')
  const stretching = Buffer.concat([salt, Buffer.from('AUTH_PBKDF2_SPEEDY_KEY')])
  const key = pbkdf2Sync(password, stretching, 4096, 64, 'sha512')
  return createHash('sha512').update(key).update(salt).digest('hex').toUpperCase() === verifier.slice(2, 130)
}
