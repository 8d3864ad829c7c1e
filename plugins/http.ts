// The plugin for services with an API over HTTP: accounts, keys and tokens that exist only while a lease
// lives. It knows no service: what is sent and how an account is seen is in the template (http/look.ts),
// where it goes and as whom is in the target's and the credential's records (http/link.ts, http/login.ts).
// The clouds are this plugin under names of their own (cloud.ts).
import { randomBytes } from 'node:crypto'
import { SallyportError } from '../src/errors.ts'
import type {
  Access, AccountRef, Action, HookContext, Minted, Owned, Pinned, Plugin, Probe, Verified
} from '../src/jit/plugin.ts'
import { Secret } from '../src/secret.ts'
import { WireError } from '../src/wire/error.ts'
import { openLink } from './http/link.ts'
import type { Link, Signing } from './http/link.ts'
import { advise, lint, plan } from './http/lint.ts'
import { lookAt } from './http/look.ts'
import { run } from './http/run.ts'
import { suppliedVariables, valuesOf } from './http/values.ts'
import { knockAt, reading, trustWarnings, unreached } from './reach.ts'
import { StepFailed } from './steps.ts'

export interface HttpFamily {
  id: string
  signing: Signing
  /** What `doctor` can ask of any such service; nothing when there is no such question. */
  probe?(link: Link): Promise<Pick<Probe, 'version' | 'missingRights'>>
  listOwned?(link: Link): Promise<readonly Owned[]>
}

export const http: Plugin = httpPlugin({ id: 'http', signing: 'login' })

export function httpPlugin({ id, signing, ...family }: HttpFamily): Plugin {
  const ask = <T>(access: Access, context: HookContext, act: (link: Link) => Promise<T>): Promise<T> =>
    asking(access, context, signing, act)
  return {
    id,
    apiVersion: 1,
    actions: new Set<Action>(['create', 'delete', 'enable', 'disable']),
    canEnableItself: false,
    fences: false,
    parts: ['look', 'http', 'made'],
    variables: suppliedVariables,
    lint,
    advise,
    plan: (template, variables) => plan(template, variables, new Date(0)),
    mint,
    knock: knockAt,
    probe: (access, context) => ask(access, context, async link => ({
      version: id, missingRights: [], ...await family.probe?.(link), warnings: trustWarnings(access)
    })),
    run: (access, template, account, variables, context) =>
      run(access, template, account, variables, context, signing),
    verify: (access, account, context, pinned) => ask(
      access, context, link => verify(link, access, account, context, pinned)),
    listOwned: (access, context) => ask(access, context, async link => await family.listOwned?.(link) ?? [])
  }
}

function mint(): Minted {
  const password = new Secret(randomBytes(32).toString('base64url'))
  return { inject: { kind: 'password', password }, variables: { password } }
}

async function verify(
  link: Link, access: Access, account: AccountRef, context: HookContext, pinned: Pinned | undefined
): Promise<Verified> {
  if (pinned === undefined) {
    throw new SallyportError('invalid', { detail: 'only a template knows how to look' })
  }
  const { template, variables } = pinned
  const values = valuesOf(account, variables, context.now())
  return await lookAt({ link, template, values, context, access })
}

/** Over a connection of its own. @throws SallyportError, whatever went wrong */
async function asking<T>(
  access: Access, context: HookContext, signing: Signing, act: (link: Link) => Promise<T>
): Promise<T> {
  const link = await openLink(access, context, signing)
  return await reading(link, access, async () => {
    try {
      return await act(link)
    } catch (error) {
      if (error instanceof WireError) {
        throw new SallyportError('target-violation', { detail: `${access.target.name}: ${error.message}` })
      }
      if (!(error instanceof StepFailed)) throw error
      throw unreached(error.cause ?? error, access.target, context.signal)
    }
  })
}
