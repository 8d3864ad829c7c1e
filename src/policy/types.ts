// What admins declare, as the rooms see it once it has been checked: targets, credentials, users and grants.
// The shapes are those of the stored documents (`resource.spec`); secrets appear only as references to sealed
// values.
import type { Action, TlsPolicy } from '../jit/plugin.ts'
import type { Application, Environment, Profile, SecretDefinition } from './secrets.ts'
import type { SqlKind } from './sql-kinds.ts'

/** Names of resources: also what people type in login names, so no character of a login grammar. */
export const resourceNamePattern = /^[a-z0-9][a-z0-9_.-]{0,62}$/

/** Id of a sealed value in the store. */
export interface SecretReference {
  secret: string
}

/** Where servers of a protocol listen, when nobody says otherwise. */
export const defaultPorts: Readonly<Record<Target['protocol'], number | undefined>> = {
  postgres: 5432, ssh: 22, tcp: undefined, mysql: 3306, mssql: 1433, oracle: 1521, redis: 6379, ldap: 389,
  http: 443
}

/** A client of theirs must say which database, or which service. */
export const protocolsWithDatabase: readonly string[] = ['postgres', 'oracle']

export interface Target {
  name: string
  /** Sessions exist for the first three; the others are reached by hooks, and serve leases and `tcp`. */
  protocol: 'postgres' | 'ssh' | 'tcp' | 'mysql' | 'mssql' | 'oracle' | 'redis' | 'ldap' | 'http'
  host: string
  port: number
  /**
   * PostgreSQL: where hooks connect, and where a client lands that names none. Oracle: the service. LDAP:
   * base of searches. SQL Server and TCP: for hooks; may be ''.
   */
  database: string
  /** TCP: of the hooks' connections; a person's bytes pass as they are. */
  tls: TlsPolicy
  /** SSH: the only host keys that are believed. */
  hostKeys?: readonly string[] | undefined
}

export type JitType = 'creation-deletion' | 'enable-disable'

export interface ActionChoice {
  plugin: string
  template: string
}

export interface JitSetting {
  enabled: boolean
  type: JitType
  useOwnCredential: boolean
  /** Name of the credential that authenticates the hooks; absent when useOwnCredential. */
  authenticationCredential?: string | undefined
  /** Exactly the two actions of the type (J2). */
  actions: Partial<Record<Action, ActionChoice>>
  /** Values for the templates' own variables, e.g. `roles`. */
  variables: Record<string, string | number | readonly string[]>
  /** J13; seconds. */
  maxSessionSeconds: number
  /** Prefix of minted names (creation-deletion). */
  namePrefix: string
}

export interface Credential {
  name: string
  target: string
  /** Standing account; absent for creation-deletion without own credential. */
  username?: string | undefined
  password?: SecretReference | undefined
  /** SSH: a private key instead of a password. */
  privateKey?: SecretReference | undefined
  jit?: JitSetting | undefined
}

/** What a caller of the API is; only the first three are roles of people, `metrics` is one of a token. */
export type Role = 'user' | 'auditor' | 'admin' | 'application' | 'metrics'

export interface User {
  name: string
  roles: readonly Role[]
  /** Sealed SCRAM-SHA-256 verifier; absent when the user has no password. */
  verifier?: SecretReference | undefined
  publicKeys: readonly string[]
  /** Security keys (FIDO) that nobody touched prove nothing; true when absent. */
  requireTouch?: boolean | undefined
  /** … nor do those that did not ask for a PIN or a finger; false when absent. */
  requirePin?: boolean | undefined
  disabled: boolean
  /** Roles are those of the identity provider's groups, as of the last login; false when absent. */
  rolesFromGroups?: boolean | undefined
}

/** What a person may do over SSH (D5). */
export const channelKinds = [
  'shell', 'exec', 'sftp', 'upload', 'download', 'local-forward', 'remote-forward', 'agent', 'x11'
] as const
export type ChannelKind = typeof channelKinds[number]

/**
 * What a grant allows that says nothing: no way past the recording, nothing that reaches back to the client.
 */
export const defaultChannels: readonly ChannelKind[] = ['shell', 'exec', 'sftp', 'upload', 'download']

export interface GrantRule {
  name: string
  users: readonly string[]
  credentials: readonly string[]
  /** Outside sessions: applications, and paths of secrets, `environment/folder/*` for all below. */
  applications?: readonly string[] | undefined
  secrets?: readonly string[] | undefined
  /** ISO 8601 instants. */
  notBefore?: string | undefined
  notAfter?: string | undefined
  maxSessionSeconds?: number | undefined
  replication: boolean
  /** SSH: what may be done; what people need every day when absent. */
  channels?: readonly ChannelKind[] | undefined
  /** SSH: copies of the files that are transferred are kept in the recording; false when absent. */
  copyFiles?: boolean | undefined
  /** PostgreSQL databases that may be opened; all when absent. */
  databases?: readonly string[] | undefined
  /** Others have to agree before a session is opened. */
  approval?: ApprovalRule | undefined
  /** … or, with an alarm and a review afterwards, nobody has to; false when absent. */
  emergency?: boolean | undefined
  /** Days and hours at which it counts; always when absent. */
  windows?: readonly Window[] | undefined
  /** What may be done within a session (rules.ts): the first that fits decides; without one it may be. */
  rules?: readonly Rule[] | undefined
}

/** From the mildest to the strictest. */
export const ruleActions = ['allow', 'warn', 'approve', 'refuse', 'end'] as const
export type RuleAction = typeof ruleActions[number]

/** All that it says must fit. */
export interface Rule {
  on: 'sql' | 'command' | 'file'
  then: RuleAction
  /** SQL: at least one of the statement's. */
  kinds?: readonly SqlKind[] | undefined
  /** SQL and commands (RE2's syntax): found anywhere. */
  pattern?: string | undefined
  /** Files: `upload` is whatever changes something there. */
  direction?: 'upload' | 'download' | undefined
  /** Files: a glob. */
  path?: string | undefined
  /** `approve`: who has to agree. */
  approval?: ApprovalRule | undefined
}

/** Who has to agree, and for how long that counts. */
export interface ApprovalRule {
  /** Users; whoever asks is never one of them. */
  by: readonly string[]
  /** How many different ones of them. */
  count: number
  /** From the last approval on: sessions are cut at its end. */
  validForSeconds: number
  /** How long a connection waits for it. */
  waitForSeconds: number
}

export const weekDays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
export type WeekDay = typeof weekDays[number]

/** Hours of a day; where `to` is not after `from` it is that of the day after. */
export interface Window {
  days: readonly WeekDay[]
  /** `08:00` … `24:00`, as the clocks of the zone show it. */
  from: string
  to: string
  /** Of the IANA database: `Europe/Zurich`. */
  zone: string
}

export interface Declared {
  targets: ReadonlyMap<string, Target>
  credentials: ReadonlyMap<string, Credential>
  users: ReadonlyMap<string, User>
  grants: readonly GrantRule[]
  environments: ReadonlyMap<string, Environment>
  /** By path. */
  secrets: ReadonlyMap<string, SecretDefinition>
  profiles: ReadonlyMap<string, Profile>
  applications: ReadonlyMap<string, Application>
}
