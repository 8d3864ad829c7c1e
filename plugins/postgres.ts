// The plugin for PostgreSQL 15 and later: roles that exist, or can log in, only while a session lives. Its
// accounts have no password: 32 random bytes are the key, the target gets only their verifier, so neither its
// log nor its catalogue holds anything to log in with. What is sent is in the templates; what makes it safe
// is here: the fence (link.ts), the ladder's rungs (verbs.ts), the estate of an account (estate.ts), and the
// looks (run.ts).
import type {
  Access, AccountRef, Action, HookContext, Minted, Owned, Pinned, Plugin, Verified
} from '../src/jit/plugin.ts'
import { mintTypedPassword } from '../src/jit/typed-password.ts'
import { Secret } from '../src/secret.ts'
import { makeVerifier, randomKeys, verifierFromKeys } from '../src/wire/postgres/verifier.ts'
import { advise, lint, plan } from './postgres/lint.ts'
import { assertRoleName, markerRole, openLink, readMarker } from './postgres/link.ts'
import { probe } from './postgres/probe.ts'
import { seenNow } from './postgres/look.ts'
import { run } from './postgres/run.ts'
import { runTogether, seenTogether } from './postgres/together.ts'
import { knockAt } from './reach.ts'
import { prolonging } from './steps.ts'

export const postgres: Plugin = {
  id: 'postgres',
  apiVersion: 1,
  actions: new Set<Action>(['create', 'delete', 'enable', 'disable']),
  // A role without LOGIN cannot log in to switch itself on.
  canEnableItself: false,
  fences: true,
  variables: {
    username: 'name of the account',
    verifier: 'SCRAM verifier of a fresh secret (secret)',
    expires_at: 'end of the longest session, with some grace: for VALID UNTIL',
    marker_role: `${markerRole}: all our accounts are members, so pg_hba.conf can tell them`,
    graveyard_role: 'sallyport_graveyard: owns what accounts leave behind'
  },
  lint,
  advise,
  plan,
  mint,
  prolong: prolonging(
    'postgres', "sql: 'ALTER ROLE {{ username | ident }} VALID UNTIL {{ expires_at | literal }}'"),
  mintTyped,
  knock: knockAt,
  probe,
  run,
  verify,
  runTogether,
  verifyTogether: seenTogether,
  listOwned
}

/**
 * 256 random bits each need no stretching; one iteration makes CREATE ROLE 16 times cheaper for the target.
 */
function mint(): Minted {
  const { clientKey, serverKey } = randomKeys()
  return {
    inject: {
      kind: 'scram-keys',
      clientKey: new Secret<Uint8Array>(clientKey),
      serverKey: new Secret<Uint8Array>(serverKey)
    },
    variables: { verifier: new Secret(verifierFromKeys({ clientKey, serverKey })) }
  }
}

/** A password exists here, if only for a session: its verifier has PostgreSQL's own number of iterations. */
async function mintTyped(): Promise<Minted> {
  const password = mintTypedPassword()
  const verifier = await makeVerifier(password.expose())
  return { inject: { kind: 'password', password }, variables: { verifier: new Secret(verifier) } }
}

async function verify(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  assertRoleName(account.name)
  const link = await openLink(access, context)
  try {
    return await seenNow(link, account, pinned)
  } finally {
    await link.close()
  }
}

/** Roles that carry our marker, and members of the marker role that do not. */
async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  const link = await openLink(access, context)
  try {
    const rows = await link.query(`
      SELECT r.rolname, d.description FROM pg_roles r
        LEFT JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
      WHERE d.description LIKE '%sallyport account=%' OR EXISTS (
        SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
        WHERE m.member = r.oid AND g.rolname = $1::text
          AND NOT (m.admin_option AND r.rolname = current_user))
      ORDER BY 1`, [markerRole])
    return rows.map(
      ([name, comment]) => ({ name: name ?? '', accountId: readMarker(comment ?? '')?.accountId })
    )
  } finally {
    await link.close()
  }
}
