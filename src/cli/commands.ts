// All commands, as a table: words, arguments, a sentence, options, and what to load when one runs. The
// help, the check of the command line and the test that every command explains itself are made from it.
import type { Command, Option } from './command.ts'

function takes(value: string, describe: string, short?: string): Option {
  return { type: 'string', value, describe, ...(short === undefined ? {} : { short }) }
}

function flag(describe: string): Option {
  return { type: 'boolean', describe }
}

const server = takes('URL', 'another server than the one of this machine')
const limit = takes('N', 'at most so many')
const target = takes('NAME', 'of this target only')
const since = takes('TIME', 'from then on, e.g. 2026-01-31T08:00:00Z')
const until = takes('TIME', 'up to then')
const publicKey = takes('FILE', 'PEM of the public key: checks a file without a server')
const version = takes('N', 'another version than the newest')

const running: Command[] = [
  {
    words: ['serve'], args: '', summary: 'run the proxy and its API until it is stopped',
    load: async () => (await import('./serve.ts')).serve
  },
  {
    words: ['doctor'], args: '', summary: 'look whether everything is in order, server and targets included',
    options: { server }, load: async () => (await import('./doctor.ts')).doctor
  },
  {
    words: ['login'], args: '[USER]',
    summary: 'log in to a server: by a code that is confirmed in the console, or as USER with a password',
    details: [
      'With USER password and, where one is enrolled, one-time code are asked for. Without a terminal the',
      'password is read from standard input, or from SALLYPORT_PASSWORD; the code is the second line',
      'there, or SALLYPORT_CODE.'
    ],
    options: {
      server,
      ca: takes('FILE', "PEM of the authority of the server's certificate"),
      token: {
        type: 'boolean',
        describe: 'redeem the one-time token of the first start (asked for, standard input, or in\n'
          + 'SALLYPORT_ONE_TIME_TOKEN)'
      }
    },
    load: async () => (await import('./access.ts')).login
  },
  {
    words: ['logout'], args: '', summary: 'end that login', options: { server },
    load: async () => (await import('./access.ts')).logout
  },
  {
    words: ['whoami'], args: '', summary: 'say who the server takes you for', options: { server },
    load: async () => (await import('./access.ts')).whoami
  },
  {
    words: ['connect'], args: 'CREDENTIAL [COMMAND…]',
    summary: 'open a local port that leads to a TCP target, with an account for as long as it is open',
    details: [
      'Shows user name and one-time password, and runs until Ctrl-C; or give a COMMAND behind `--`, which',
      'finds them in SALLYPORT_USER, SALLYPORT_PASSWORD, SALLYPORT_HOST and SALLYPORT_PORT.'
    ],
    options: { port: takes('N', 'the local port (default: any free one)'), server },
    load: async () => (await import('./tunnel.ts')).connect
  },
  {
    words: ['ssh-config'], args: '', summary: 'print the lines for ~/.ssh/config that reach your targets',
    details: [
      'Then `ssh root@web01` goes through the proxy. The host keys go into ~/.ssh/known_hosts.',
      'A host whose accounts log in with certificates trusts the line of --user-ca (TrustedUserCAKeys).'
    ],
    options: {
      'known-hosts': flag('print the lines for known_hosts instead'),
      'user-ca': flag('print the authority of the accounts’ certificates instead'), server
    },
    load: async () => (await import('./access.ts')).sshConfig
  }
]

const declared: Command[] = [
  {
    words: ['apply'], args: '', summary: 'make what is declared equal to YAML documents, all or nothing',
    details: ['Secrets are given as {env: NAME}, {file: PATH} or {value: TEXT}, looked up on this machine.'],
    options: {
      file: takes('FILE', 'a file, a folder of them, or - for standard input', 'f'),
      'dry-run': flag('only say what would change'),
      prune: flag('delete what is not in the documents, of the kinds that are'),
      server
    },
    load: async () => (await import('./declare.ts')).apply
  },
  {
    words: ['get'], args: 'KIND [NAME]', summary: 'show targets, credentials, users, grants, secrets …',
    options: { yaml: flag('all of a kind as YAML documents'), server },
    load: async () => (await import('./declare.ts')).get
  },
  {
    words: ['delete'], args: 'KIND NAME', summary: 'delete one that nothing refers to', options: { server },
    load: async () => (await import('./declare.ts')).remove
  },
  {
    words: ['explain'], args: 'LOGIN', summary: 'say how a login name is read and what it would open',
    options: {
      database: takes('NAME', 'the database name that a PostgreSQL client would send'),
      server
    },
    load: async () => (await import('./declare.ts')).explain
  }
]

const users: Command[] = [
  {
    words: ['users', 'list'], args: '', summary: 'list people, and who has a second factor (admins)',
    options: { server }, load: async () => (await import('./users.ts')).list
  },
  {
    words: ['users', 'enrol'], args: 'NAME',
    summary: 'draw a second factor (TOTP) for a person, or for yourself',
    details: ['Prints the otpauth:// URI for an authenticator app, once. It counts when it was confirmed.'],
    options: { server }, load: async () => (await import('./users.ts')).enrol
  },
  {
    words: ['users', 'confirm'], args: 'NAME CODE',
    summary: 'confirm it with its first code: asked for from then on',
    options: { server }, load: async () => (await import('./users.ts')).confirm
  },
  {
    words: ['users', 'unenrol'], args: 'NAME', summary: 'take the second factor of a person away (admins)',
    options: { server }, load: async () => (await import('./users.ts')).unenrol
  },
  {
    words: ['users', 'unbind'], args: 'NAME',
    summary: 'forget who a person is at the identity provider: the name is somebody else\'s now (admins)',
    options: { server }, load: async () => (await import('./users.ts')).unbind
  }
]

const sessions: Command[] = [
  {
    words: ['sessions', 'list'], args: '', summary: 'list sessions, newest first',
    options: {
      user: takes('NAME', 'of this user only'),
      credential: takes('NAME', 'of this credential only'), target,
      status: takes('STATUS', 'opening, live, ended, refused or interrupted'),
      since, until, before: takes('ID', 'older than this session'), limit, server
    },
    load: async () => (await import('./sessions.ts')).list
  },
  {
    words: ['sessions', 'show'], args: 'ID', summary: 'show one session', options: { server },
    load: async () => (await import('./sessions.ts')).show
  },
  {
    words: ['sessions', 'watch'], args: 'ID', summary: 'watch a live session', options: { server },
    load: async () => (await import('./evidence.ts')).watch
  },
  {
    words: ['sessions', 'kill'], args: 'ID', summary: 'end a live session at once', options: { server },
    load: async () => (await import('./sessions.ts')).kill
  },
  {
    words: ['sessions', 'replay'], args: 'ID', summary: 'play a recording in its own time',
    options: {
      speed: takes('N', 'so many times as fast; 0 does not wait at all'),
      'max-idle': takes('SECONDS', 'shorten longer pauses to this (default: 3)'),
      lane: takes('N', 'one channel of an SSH session only'), server
    },
    load: async () => (await import('./evidence.ts')).replay
  },
  {
    words: ['sessions', 'export'], args: 'ID', summary: 'write a recording in another format',
    options: {
      format: takes('FORMAT', 'asciicast-v2 (default), asciicast-v3, sql, jsonl, recording'),
      copy: takes('N', 'the copy of a transferred file instead; its event says the number'),
      output: takes('FILE', 'into a file (default: standard output)', 'o'), server
    },
    load: async () => (await import('./evidence.ts')).exportOne
  },
  {
    words: ['sessions', 'search'], args: 'QUERY', summary: 'search statements and output of recordings',
    options: { session: takes('ID', 'in this session only'), limit, server },
    load: async () => (await import('./sessions.ts')).search
  },
  {
    words: ['policy', 'what-if'], args: '', summary: 'try rules, of a list or a grant, on recordings',
    options: {
      file: takes('FILE', 'the rules', 'f'), session: takes('ID', 'in it only'), since, until, server
    },
    load: async () => (await import('./policy.ts')).whatIf
  },
  {
    words: ['sessions', 'verify'], args: 'ID|FILE', summary: 'check that a recording is whole and genuine',
    details: ['A file is checked here, with the public key alone; a session is checked by the server.'],
    options: { 'public-key': publicKey, server },
    load: async () => (await import('./evidence.ts')).verify
  },
  {
    words: ['sessions', 'receipt'], args: 'ID|FILE',
    summary: 'show the signed proof of what became of its account',
    options: { 'public-key': takes('FILE', 'PEM of the public key: also checks the signature'), server },
    load: async () => (await import('./sessions.ts')).receipt
  }
]

const ledger: Command[] = [
  {
    words: ['leases', 'list'], args: '', summary: 'list leases, newest first',
    options: {
      target, secret: takes('PATH', 'on this secret only'),
      owner: takes('NAME', 'of this user, application or session only'),
      status: takes('STATUS', 'active, expired, revoked, revoking or failed'),
      before: takes('ID', 'older than this lease'), limit, server
    },
    load: async () => (await import('./leases.ts')).list
  },
  {
    words: ['leases', 'show'], args: 'ID', summary: 'show one lease', options: { server },
    load: async () => (await import('./leases.ts')).show
  },
  {
    words: ['leases', 'renew'], args: 'ID', summary: 'add a time to its expiry',
    options: { ttl: takes('TIME', 'how much: seconds, or e.g. 30m'), server },
    load: async () => (await import('./leases.ts')).renew
  },
  {
    words: ['leases', 'revoke'], args: 'ID', summary: 'end it at once, with its live connections',
    options: { server },
    load: async () => (await import('./leases.ts')).revoke
  },
  {
    words: ['leases', 'history'], args: 'ID', summary: 'everything that happened to it', options: { server },
    load: async () => (await import('./leases.ts')).history
  },
  {
    words: ['orphans', 'scan'], args: '', summary: 'look for accounts of ours that nobody wants',
    options: { target, server }, load: async () => (await import('./leases.ts')).scan
  },
  {
    words: ['orphans', 'reap'], args: '', summary: 'remove them, with proof', options: { target, server },
    load: async () => (await import('./leases.ts')).reap
  }
]

const secretPath = takes('PATH', 'the secret, such as prod/orders-rw')
const ttl = takes('TIME', 'how long it lives: seconds, or e.g. 30m (default: as the secret says)')

const secrets: Command[] = [
  {
    words: ['secrets', 'list'], args: '', summary: 'list the secrets that you may have, without values',
    options: { environment: takes('NAME', 'of this environment only'), server },
    load: async () => (await import('./secrets.ts')).list
  },
  {
    words: ['secrets', 'read'], args: 'PATH', summary: 'show the values of a secret',
    details: ['Reading a dynamic secret makes a new account: its values are shown this once.'],
    options: { version: takes('N', 'an earlier version of a static secret'), server },
    load: async () => (await import('./secrets.ts')).read
  },
  {
    words: ['secrets', 'generate'], args: 'PATH',
    summary: 'make a new account of a dynamic secret; its values are shown this once',
    options: { ttl, name: takes('NAME', 'name of the lease'), server },
    load: async () => (await import('./secrets.ts')).generate
  },
  {
    words: ['secrets', 'delete'], args: 'PATH', summary: 'delete a secret that nothing refers to',
    options: {
      'revoke-active-leases': flag('revoke its leases first; it goes when all are proved gone'), server
    },
    load: async () => (await import('./secrets.ts')).remove
  },
  {
    words: ['secrets', 'search'], args: '', summary: 'find secrets by path or description',
    options: {
      query: takes('TEXT', 'what to look for; with --search-links the path of a base secret'),
      'search-links': flag('those that are linked to that base, and only those'), server
    },
    load: async () => (await import('./secrets.ts')).search
  },
  {
    words: ['secrets', 'versions'], args: 'PATH', summary: 'list the versions of a secret',
    options: { server }, load: async () => (await import('./secrets.ts')).versions
  },
  {
    words: ['secrets', 'compare'], args: 'PATH FROM TO',
    summary: 'say which values differ between two versions', options: { server },
    load: async () => (await import('./secrets.ts')).compare
  },
  {
    words: ['run'], args: 'COMMAND…',
    summary: 'run a command with a lease in its environment, revoked when it ends',
    details: [
      'As in: sallyport run --secret prod/orders-rw --ttl 300 -- psql -c "select 1"',
      'Each value is a variable named as its key. Exits as the command does.'
    ],
    options: { secret: secretPath, ttl, server },
    load: async () => (await import('./run-with.ts')).runWith
  }
]

const tokenTtl = takes('TIME', 'how long it is valid (default: 90d)')

const applications: Command[] = [
  {
    words: ['applications', 'tokens'], args: 'NAME', summary: 'list the valid tokens of an application',
    options: { server }, load: async () => (await import('./applications.ts')).tokens
  },
  {
    words: ['applications', 'token'], args: 'NAME', summary: 'make a token for it, shown this once',
    details: ['The application gives it as SALLYPORT_TOKEN, or as a bearer token to the API.'],
    options: { ttl: tokenTtl, server }, load: async () => (await import('./applications.ts')).make
  },
  {
    words: ['applications', 'rotate'], args: 'NAME ID', summary: 'make a token in place of another',
    options: {
      ttl: tokenTtl, overlap: takes('TIME', 'how long the old one still counts (default: not at all)'), server
    },
    load: async () => (await import('./applications.ts')).rotate
  },
  {
    words: ['applications', 'revoke'], args: 'NAME ID', summary: 'end a token at once',
    options: { server }, load: async () => (await import('./applications.ts')).revoke
  }
]

const profiles: Command[] = [
  {
    words: ['profiles', 'list'], args: '', summary: 'list profiles',
    options: {
      id: takes('ID', 'with this id only'), identifier: takes('NAME', 'with this identifier only'),
      type: takes('PLUGIN', 'of this plugin only'), status: takes('STATUS', 'active or inactive'), server
    },
    load: async () => (await import('./profiles.ts')).list
  }
]

const why = takes('TEXT', 'why: one line, kept with it')

/** What approvers and whoever asked do to a request. */
function change(
  word: 'approve' | 'deny' | 'withdraw' | 'review', summary: string
): Command {
  return {
    words: ['requests', word], args: 'ID', summary, options: { reason: why, server },
    load: async () => (await import('./requests.ts'))[word]
  }
}

const requests: Command[] = [
  {
    words: ['requests', 'list'], args: '', summary: 'list requests for access that matter now, newest first',
    options: {
      state: takes('STATE', 'pending, approved, denied, expired or withdrawn'),
      all: flag('those that are over as well'), before: takes('ID', 'older than this request'), limit, server
    },
    load: async () => (await import('./requests.ts')).list
  },
  {
    words: ['requests', 'show'], args: 'ID', summary: 'show one, and who said what to it',
    options: { server }, load: async () => (await import('./requests.ts')).show
  },
  {
    words: ['requests', 'create'], args: 'CREDENTIAL', summary: 'ask for a credential that needs approval',
    options: {
      reason: why, for: takes('TIME', 'how long, e.g. 30m (default: as the grant says)'),
      emergency: flag('at once, with an alarm and a review afterwards, where the grant allows it'), server
    },
    load: async () => (await import('./requests.ts')).create
  },
  change('approve', 'agree to a request'), change('deny', 'deny a request, which ends it'),
  change('withdraw', 'take a request or an approval back: its sessions end at once'),
  change('review', 'note that you have looked at an emergency access')
]

const templates: Command[] = [
  {
    words: ['templates', 'list'], args: '', summary: 'list templates',
    options: {
      plugin: takes('NAME', 'of this plugin only'),
      action: takes('ACTION', 'create, delete, enable or disable'), server
    },
    load: async () => (await import('./templates.ts')).list
  },
  {
    words: ['templates', 'show'], args: 'PLUGIN/NAME', summary: 'show the text of one',
    options: { version, server },
    load: async () => (await import('./templates.ts')).show
  },
  {
    words: ['templates', 'save'], args: 'PLUGIN/NAME FILE', summary: 'save a text as a new version',
    options: { server }, load: async () => (await import('./templates.ts')).save
  },
  {
    words: ['templates', 'lint'], args: 'FILE|PLUGIN/NAME', summary: 'say what is wrong with one',
    options: { server },
    load: async () => (await import('./templates.ts')).lint
  },
  {
    words: ['templates', 'plan'], args: 'PLUGIN/NAME|CREDENTIAL',
    summary: 'show what would be sent, secrets masked',
    options: {
      credential: takes('NAME', 'whose variables to use'),
      variables: takes('JSON', 'variables, e.g. {"roles":["app_rw"]}'), version, server
    },
    load: async () => (await import('./templates.ts')).plan
  },
  {
    words: ['templates', 'prove'], args: 'CREDENTIAL',
    summary: 'run both actions of a JIT credential on its target: nothing may remain', options: { server },
    load: async () => (await import('./templates.ts')).prove
  }
]

const audit: Command[] = [
  {
    words: ['audit', 'list'], args: '', summary: 'list audit events, newest first',
    options: {
      kind: takes('KIND', 'of this kind only'),
      actor: takes('NAME', 'by this user only'),
      subject: takes('NAME', 'on this thing only'), since, until,
      before: takes('CHAIN:SEQ', 'older than this event'), limit, server
    },
    load: async () => (await import('./audit.ts')).list
  },
  {
    words: ['audit', 'verify'], args: '[FILE]',
    summary: 'check that nothing was altered, cut off or rolled back',
    details: ['With an exported FILE and the public key it is checked here, without a server.'],
    options: {
      checkpoint: takes('FILE', 'an earlier export: also finds a roll-back since then'),
      'public-key': publicKey, server
    },
    load: async () => (await import('./audit.ts')).verify
  },
  {
    words: ['audit', 'export'], args: '', summary: 'write all events and a signed checkpoint as JSON lines',
    options: {
      since, output: takes('FILE', 'into a file (default: standard output)', 'o'),
      server
    },
    load: async () => (await import('./audit.ts')).exportAll
  }
]

export const commands: readonly Command[] = [
  ...running, ...declared, ...users, ...sessions, ...ledger, ...secrets, ...applications, ...profiles,
  ...requests, ...templates, ...audit
]
