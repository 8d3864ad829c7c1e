// Logging in at an identity provider (OpenID Connect, authorization code with PKCE): where the browser is
// sent, and who comes back. The library is loaded at the first such login. What the browser keeps meanwhile
// is a ticket with our mark; state, nonce and the verifier are derived from it, so that nothing is stored,
// and the verifier never leaves us.
import { readFileSync } from 'node:fs'
import type { Configuration } from 'openid-client'
import { freshLoginSeconds } from '../api/access.ts'
import type { OidcPort } from '../api/ports-login.ts'
import type { Clock } from '../clock.ts'
import type { OidcConfig } from '../config.ts'
import { SallyportError } from '../errors.ts'
import { derived, mintChallenge, readChallenge } from '../policy/challenge.ts'
import type { Challenge } from '../policy/challenge.ts'

/** People look for their telephone. */
const ticketSeconds = 900
/** Each request to the provider. */
const answerSeconds = 10
/** What the provider says of itself is believed so long. */
const discoveryMs = 3_600_000
const purpose = 'oidc'

export interface OidcNeeds {
  clock: Clock
  key: Buffer
  setting: OidcConfig
  /** Of the console, where the provider sends people back to. */
  origin: string
  environment?: NodeJS.ProcessEnv
  spend(challenge: Challenge): Promise<boolean>
}

type Client = typeof import('openid-client')

export function createOidcPort(needs: OidcNeeds): OidcPort {
  const { clock, key, setting, origin, spend } = needs
  const redirect = `${origin}/login/oidc/callback`
  const secretOf = (ticket: string, what: string): string => derived(key, `${purpose} ${what}`, ticket)
  let known: { provider: Promise<Configuration>, untilMs: number } | undefined
  const provider = async (client: Client): Promise<Configuration> => {
    if (known === undefined || clock.monotonicMs() > known.untilMs) {
      known = { provider: discovered(client, needs), untilMs: clock.monotonicMs() + discoveryMs }
      known.provider.catch(() => { known = undefined })
    }
    return known.provider
  }
  return {
    label: setting.label, origin, sessionSeconds: setting.session, createUsers: setting.createUsers,
    setting,
    async begin() {
      const client = await import('openid-client')
      const ticket = mintChallenge(key, purpose, clock.now(), ticketSeconds)
      const found = await reached(() => provider(client))
      const address = client.buildAuthorizationUrl(found, {
        redirect_uri: redirect, scope: setting.scopes.join(' '), state: secretOf(ticket, 'state'),
        nonce: secretOf(ticket, 'nonce'), code_challenge_method: 'S256', max_age: String(freshLoginSeconds),
        code_challenge: await client.calculatePKCECodeChallenge(secretOf(ticket, 'verifier'))
      })
      return { address: address.href, ticket }
    },
    async finish(query, ticket) {
      const challenge = ticket === undefined ? undefined : readChallenge(key, purpose, ticket, clock.now())
      if (ticket === undefined || challenge === undefined || !await spend(challenge)) {
        const detail = 'this browser did not begin it, or too long ago'
        throw new SallyportError('provider-refused', { detail })
      }
      const client = await import('openid-client')
      const found = await reached(() => provider(client))
      return reached(async () => {
        const tokens = await client.authorizationCodeGrant(found, new URL(redirect + query), {
          expectedState: secretOf(ticket, 'state'), expectedNonce: secretOf(ticket, 'nonce'),
          pkceCodeVerifier: secretOf(ticket, 'verifier'), idTokenExpected: true, maxAge: freshLoginSeconds
        })
        const claims = tokens.claims()!
        const isWhole = setting.userClaim in claims && setting.groupsClaim in claims
        const more = isWhole || found.serverMetadata().userinfo_endpoint === undefined
          ? {}
          : await client.fetchUserInfo(found, tokens.access_token, claims.sub)
        return { issuer: claims.iss, subject: claims.sub, claims: { ...more, ...claims } }
      })
    }
  }
}

async function discovered(
  client: Client, { setting, environment = process.env }: OidcNeeds
): Promise<Configuration> {
  const { issuer, clientId, clientSecret } = setting
  const secret = clientSecret === undefined
    ? undefined
    : 'env' in clientSecret ? environment[clientSecret.env] : readFileSync(clientSecret.file, 'utf8').trim()
  if (clientSecret !== undefined && (secret === undefined || secret === '')) {
    const detail = 'the client secret of login.oidc is not there'
    throw new SallyportError('provider-unavailable', { detail })
  }
  const auth = secret === undefined ? client.None() : client.ClientSecretBasic(secret)
  // The configuration allows this for loopback only.
  const plain = issuer.startsWith('http:') ? [client.allowInsecureRequests] : []
  return client.discovery(new URL(issuer), clientId, undefined, auth, {
    execute: [...plain, client.enableNonRepudiationChecks], timeout: answerSeconds
  })
}

/** What the library throws: the provider is not there, or did not say what it must. */
async function reached<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (thrown) {
    if (thrown instanceof SallyportError) throw thrown
    const { message, code, cause, status } = thrown as Error & { code?: string, status?: number }
    const isAway = message === 'fetch failed' || (cause as Error | undefined)?.message === 'fetch failed'
      || code === 'OAUTH_TIMEOUT' || code === 'OAUTH_RESPONSE_IS_NOT_CONFORM' || (status ?? 0) >= 500
    const detail = [message, code, cause instanceof Error ? cause.message : undefined]
      .filter(part => part !== undefined).join(': ').slice(0, 300)
    throw new SallyportError(isAway ? 'provider-unavailable' : 'provider-refused', { detail })
  }
}
