// What the steps of a Redis template can do. SETUSER makes an account that is not there and otherwise only
// adds, so each verb looks first, and a creation begins with `reset`. An account gets its rights while it is
// off; only when the server says that it cannot change ACLs or settings it is switched on.
import { StepFailed, endUntilNone } from '../steps.ts'
import type { Rung, Verbs } from '../steps.ts'
import { isRefused, markerOf } from './link.ts'
import type { Link, Standing } from './link.ts'
import { forbidden, rulesOf } from './rules.ts'

export interface RedisRung extends Rung {
  link: Link
}

const lists = { commands: true, keys: false, channels: false }

export const verbs: Verbs<RedisRung> = {
  'make-user': {
    plan: 'ACL SETUSER: reset, off, the rules and our marker; ACL DRYRUN of what no account may do; then on, '
      + 'with the SHA-256 of the password',
    lists,
    options: { password: true },
    act: makeUser
  },
  'allow-logins': {
    plan: 'ACL SETUSER of an account that exists: no password but the fresh one, on',
    options: { password: true },
    act: allowLogins
  },
  'refuse-logins': {
    plan: 'ACL SETUSER of an account that exists: off, no password',
    act: refuseLogins
  },
  'end-sessions': {
    plan: 'CLIENT KILL USER until a look finds none',
    act: endSessions
  },
  'remove-user': {
    plan: 'ACL DELUSER',
    act: async ({ link, account }) => {
      await link.send('ACL', 'DELUSER', account.name)
    }
  },
  'save': {
    plan: 'ACL SAVE, where the server has an ACL file: else a restart brings back what the file has',
    act: save
  }
}

function passwordRule({ password = '' }: Readonly<Record<string, string>>): string {
  if (!/^[0-9a-f]{64}$/.test(password)) throw new StepFailed('`password` is no SHA-256 in hex', false)
  return `#${password}`
}

/** The account as it stands, with our epoch written into it. */
async function standing({ link, account }: RedisRung): Promise<Standing> {
  const found = await link.standing(account.name)
  if (found === undefined) throw new StepFailed('there is no such account')
  return found
}

/** Words that put our marker in the place of an older one and keep other selectors. */
function marked(rung: RedisRung, { selectors }: Standing): string[] {
  return ['clearselectors', ...selectors, markerOf(rung.account)]
}

async function makeUser(rung: RedisRung, options: Readonly<Record<string, string>>): Promise<void> {
  const { link, account } = rung
  const { name } = account
  await link.send('ACL', 'SETUSER', name, 'reset', 'off', ...rulesOf(rung), markerOf(account))
  for (const words of forbidden) {
    // Said in words: OK, or what the account lacks.
    const said = await dryRun(link, name, words)
    if (said) {
      throw new StepFailed(`the account could run ${words.slice(0, 2).join(' ')}: add -@admin`, false)
    }
  }
  await link.send('ACL', 'SETUSER', name, 'resetpass', passwordRule(options), 'on')
}

/** True when the account may run the command. One that this server does not have is no danger. */
async function dryRun(link: Link, name: string, words: readonly string[]): Promise<boolean> {
  try {
    return await link.send('ACL', 'DRYRUN', name, ...words) === 'OK'
  } catch (error) {
    if (isRefused(error) && /not found|wrong number/i.test(error.message)) return false
    throw error
  }
}

async function allowLogins(rung: RedisRung, options: Readonly<Record<string, string>>): Promise<void> {
  const found = await standing(rung)
  await rung.link.send(
    'ACL', 'SETUSER', rung.account.name, 'resetpass', passwordRule(options), 'on',
    ...marked(rung, found))
}

async function refuseLogins(rung: RedisRung): Promise<void> {
  const { link, account } = rung
  const found = await link.standing(account.name)
  if (found === undefined) return
  await link.send('ACL', 'SETUSER', account.name, 'off', 'resetpass', ...marked(rung, found))
}

async function endSessions(rung: RedisRung): Promise<void> {
  const { link, account } = rung
  await endUntilNone(rung, async () => {
    const sessions = await link.sessions(account.name)
    if (sessions > 0) await link.send('CLIENT', 'KILL', 'USER', account.name)
    return sessions
  })
}

async function save({ link }: RedisRung): Promise<void> {
  try {
    await link.send('ACL', 'SAVE')
  } catch (error) {
    if (!isRefused(error) || !/not configured to use an ACL file/.test(error.message)) throw error
  }
}
