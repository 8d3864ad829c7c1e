// Which right a message of the connection protocol needs (RFC 4254, and what OpenSSH adds): the words
// between a grant's channels and SSH's requests. Nothing is decided here beyond "is it on the list".
import type { ChannelKind } from '../../session/front.ts'
import type { RequestPurpose } from '../../wire/ssh/request.ts'
import type { AllowFile, FileOperation } from '../../wire/ssh/sftp.ts'
import { commandOf } from './command.ts'

/**
 * Channels that a client opens; others do not exist. `session` itself is free, what is asked in it is not.
 */
export const clientChannels: Readonly<Record<string, ChannelKind | undefined>> = {
  'session': undefined,
  'direct-tcpip': 'local-forward',
  'direct-streamlocal@openssh.com': 'local-forward',
  'tun@openssh.com': 'local-forward'
}

/** Channels that a target opens, each only when the client asked for it before. */
export const targetChannels: Readonly<Record<string, ChannelKind>> = {
  'forwarded-tcpip': 'remote-forward',
  'forwarded-streamlocal@openssh.com': 'remote-forward',
  'auth-agent@openssh.com': 'agent',
  'x11': 'x11'
}

/** Requests outside channels that are passed on; those that are not listed are passed on as well. */
export const globalRights: Readonly<Record<string, ChannelKind>> = {
  'tcpip-forward': 'remote-forward',
  'streamlocal-forward@openssh.com': 'remote-forward'
}

/**
 * Variables that a client may set; LD_PRELOAD and its like are nobody's business. The target has a list,
 * too.
 */
export const passedVariables = /^(LANG|LANGUAGE|LC_[A-Z]+|TERM|COLORTERM|NO_COLOR|TZ|GIT_PROTOCOL)$/

/** The rights that a request within a session needs; empty when it is free. */
export function rightsOf(purpose: RequestPurpose): readonly ChannelKind[] {
  switch (purpose.kind) {
    case 'shell': return ['shell']
    case 'exec': return execRights(purpose.command)
    case 'subsystem': return purpose.name === 'sftp' ? ['sftp'] : ['exec']
    case 'auth-agent-req': return ['agent']
    case 'x11-req': return ['x11']
    default: return []
  }
}

/**
 * `scp` on the other side says which way it goes: `-t` takes files (upload), `-f` gives them. Only a command
 * that no shell would read more into, and only the one that is found on the target's own path: whoever may
 * upload could bring a program of that name.
 */
function execRights(command: Buffer): readonly ChannelKind[] {
  const what = commandOf(command)
  const isOwn = command.subarray(0, 4).equals(Buffer.from('scp '))
  return what.kind === 'scp' && isOwn ? ['sftp', what.direction] : ['exec']
}

/**
 * Operations that only look: without `upload` everything else is refused, since it changes something there.
 */
const looking: ReadonlySet<FileOperation> = new Set(['download', 'list', 'open'])

/**
 * Judges single files, by the grant's channels and then by its rules (`judged`); undefined when all may pass,
 * which costs nothing.
 */
export function fileRights(
  channels: readonly ChannelKind[], judged: AllowFile | undefined
): AllowFile | undefined {
  const [up, down] = [channels.includes('upload'), channels.includes('download')]
  if (up && down) return judged
  const allowed: AllowFile = op => op === 'download' ? down : looking.has(op) || up
  return judged === undefined ? allowed : (op, path, how) => allowed(op, path) && judged(op, path, how)
}
