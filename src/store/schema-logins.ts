// The tables of logins, beside those of schema.ts: passkeys, whom an identity provider means, and logins that
// wait for a person at a browser. Nothing here opens a door by itself: of a passkey there is the public half,
// of a code that a program polls with the hash.
import { bigint, boolean, index, integer, jsonb, pgTable, primaryKey, text } from './drizzle.ts'
import { created, instant } from './schema.ts'

/** Passkeys of people (WebAuthn), apart from their documents, as second factors are. */
export const passkey = pgTable('passkey', {
  /** As the authenticator calls it, in base64url. */
  id: text('id').primaryKey(),
  user: text('user_name').notNull(),
  /** What the person calls it. */
  name: text('name').notNull(),
  /** COSE, in base64url. */
  publicKey: text('public_key').notNull(),
  /** How often it signed, where it counts: only grows. */
  counter: bigint('counter', { mode: 'number' }).notNull(),
  /** Empty: nobody is told how a passkey is reached, so it is not kept. */
  transports: jsonb('transports').notNull(),
  /** It is in a keychain that several devices share. */
  backedUp: boolean('backed_up').notNull(),
  createdAt: created(),
  lastUsedAt: instant('last_used_at')
}, table => [index('passkey_user').on(table.user)])

/** Challenges that were answered: until they expire nobody can answer them again. */
export const spentChallenge = pgTable('spent_challenge', {
  id: text('id').primaryKey(),
  expiresAt: instant('expires_at').notNull()
})

/** Who is meant by a subject of an identity provider: settled at the first login. */
export const identity = pgTable('identity', {
  issuer: text('issuer').notNull(),
  subject: text('subject').notNull(),
  user: text('user_name').notNull(),
  createdAt: created(),
  lastUsedAt: instant('last_used_at')
}, table => [
  primaryKey({ columns: [table.issuer, table.subject] }), index('identity_user').on(table.user)
])

/** Logins that a person confirms in the console: of the command line, and of clients that cannot ask. */
export const loginRequest = pgTable('login_request', {
  /** SHA-256 of what the waiting program holds. */
  hash: text('hash').primaryKey(),
  /** What the person sees or types; short, so it counts only for somebody who is logged in. */
  code: text('code').notNull().unique(),
  kind: text('kind').notNull(),
  /** Who must confirm it; null: whoever does is logged in. */
  user: text('user_name'),
  /** Where it came from, and what for: shown to the person. */
  address: text('address').notNull(),
  what: text('what').notNull(),
  state: text('state').notNull(),
  decidedBy: text('decided_by'),
  createdAt: created(),
  expiresAt: instant('expires_at').notNull(),
  /** When the program asked last, and how long it has to wait in between. */
  polledAt: instant('polled_at'),
  intervalSeconds: integer('interval_seconds').notNull()
}, table => [index('login_request_address').on(table.address)])
