// The plugin for Linux hosts with shadow's tools and OpenSSH: accounts that exist, or can log in, only while
// a session lives. An account has no password: its key is drawn for one session, and the host gets the public
// half in a folder that only root writes. What is sent is in the templates; what makes it safe is here: the
// connection (link.ts), the fence and the ladder's rungs (*.sh), and the looks (run.ts).
import type {
  Access, Action, HookContext, Minted, Owned, Plugin, Probe, Variables
} from '../src/jit/plugin.ts'
import { Secret } from '../src/secret.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { advise, lint, plan } from './linux/lint.ts'
import { ask, look, run } from './linux/run.ts'
import { accountScript, assertAccount, callPart, hostScript } from './linux/script.ts'
import { knockAt } from './reach.ts'

export const linux: Plugin = {
  id: 'linux',
  apiVersion: 1,
  actions: new Set<Action>(['create', 'delete', 'enable', 'disable']),
  // An account that has expired cannot log in to switch itself on.
  canEnableItself: false,
  fences: true,
  certifies: true,
  variables: {
    username: 'name of the account',
    public_key: 'public half of a fresh key, as in authorized_keys (secret)',
    expires_at: 'end of the longest session, with some grace: for the last day and for expiry-time'
  },
  lint,
  advise,
  plan,
  mint,
  knock: knockAt,
  probe,
  run,
  verify: look,
  listOwned
}

function mint(): Minted {
  const { privateKey, publicKey } = generateSshKey()
  return {
    inject: { kind: 'private-key', privateKey: new Secret(privateKey) },
    variables: { public_key: new Secret(publicKey) }
  }
}

async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  const { roles, username, userAuthority } = variables
  const calls = [callPart('', 'jit_probe')]
  if (Array.isArray(roles)) calls.push(callPart('', 'jit_probe_groups', [roles.map(String).join(' ')]))
  if (typeof userAuthority === 'string') {
    calls.push(callPart('', 'jit_probe_authority', [userAuthority.split(' ')[1] ?? '']))
  }
  const account = { name: String(username ?? ''), accountId: 'probe', epoch: 0, kind: 'enable' as const }
  if (typeof username === 'string') {
    assertAccount(account)
    calls.push(callPart('', 'jit_probe_account'))
  }
  const report = await ask(access, context, deadline => typeof username === 'string'
    ? accountScript(account, 'look', deadline, ['probe'], calls)
    : hostScript(['probe'], calls.map(({ text }) => text).join('\n')))
  return {
    version: report.all('version')[0]?.[0] ?? 'Linux',
    missingRights: report.all('missing').flat(), warnings: report.all('warning').flat()
  }
}

async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  const report = await ask(access, context, () => hostScript(['look'], 'jit_list_owned'))
  return report.all('owned').map(([name = '', accountId]) => ({ name, accountId }))
}
