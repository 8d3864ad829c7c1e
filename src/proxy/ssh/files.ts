// Channels that transfer files: what was done to which file becomes events, the bytes are hashed, and kept
// only where a copy is wanted (file-copies.ts). A stream that is not what it says (a shell that somebody
// calls `scp`) is told once, and from there on everything is kept as it is of a command.
import { ScpDecoder } from '../../wire/ssh/scp.ts'
import { SftpDecoder } from '../../wire/ssh/sftp.ts'
import type { ContentUse, EarlyBudget } from '../../wire/ssh/sequence.ts'
import type { AllowFile, SftpListener } from '../../wire/ssh/sftp.ts'
import { CommandContent, Meter } from './content.ts'
import type { Content, ContentSetting, Facts, InputPolicy } from './content.ts'
import type { ScpCommand } from './command.ts'
import type { FileCopies } from './file-copies.ts'

/** The smallest packet that every SSH takes: what is put together anew is cut to this. */
const pieceBytesMax = 16 * 1024

interface Decoder {
  readonly broken: boolean
  fromClient(data: Buffer): Buffer[] | undefined
  fromTarget(data: Buffer): void
  held(): Buffer[] | undefined
  end(): void
}

function sftpOf(listener: SftpListener, { allow, budget }: FileSetting, use: ContentUse): Decoder {
  const sftp = new SftpDecoder(listener, allow, budget, use)
  return {
    get broken() {
      return sftp.broken
    },
    fromClient: data => sftp.fromClient(data),
    fromTarget: data => sftp.fromServer(data),
    held: () => sftp.held(),
    end: () => sftp.end()
  }
}

function scpOf(
  listener: SftpListener, { direction, path }: ScpCommand, use: ContentUse
): Decoder {
  const scp = new ScpDecoder(listener, direction, path, use)
  return {
    get broken() {
      return scp.broken
    },
    fromClient: data => {
      scp.fromClient(data)
      return undefined
    },
    fromTarget: data => scp.fromTarget(data),
    held: () => undefined,
    end: () => scp.end()
  }
}

/** What the transfers of a session share. */
export interface FileSetting {
  allow: AllowFile | undefined
  budget: EarlyBudget
  /** Undefined: no copies are kept. */
  copies: FileCopies | undefined
}

export type Transfer = { kind: 'sftp' } | ScpCommand

/**
 * Which files an scp touches is not known before they come where it is a folder's, where there are several
 * sources, and where a shell makes something of stars.
 */
export function isVague({ direction, recursive, several, path }: ScpCommand): boolean {
  return direction === 'upload' || recursive || several || /[*?[~]/.test(path)
}

export class FileContent implements Content {
  readonly kind: 'sftp' | 'scp'
  readonly #decoder: Decoder
  // What cannot be decoded is kept here.
  readonly #rest: CommandContent
  readonly #counts = { client: new Meter(false), target: new Meter(false) }

  constructor(setting: ContentSetting, transfer: Transfer, input: InputPolicy, files: FileSetting) {
    this.kind = transfer.kind
    this.#rest = new CommandContent(setting, 'shell', input)
    const listener: SftpListener = {
      file: event => setting.event({ type: 'file', ...event }),
      undecodable: detail => setting.event({ type: 'undecodable', content: transfer.kind, detail })
    }
    const { copies } = files
    const use = { hashes: setting.hashes, copy: copies && (() => copies.begin(setting)) }
    this.#decoder = transfer.kind === 'sftp' ? sftpOf(listener, files, use) : scpOf(listener, transfer, use)
  }

  fromClient(data: Buffer): Buffer[] | undefined {
    this.#counts.client.add(data)
    // Also when it is broken: with a judge nothing goes on then.
    const forward = this.#decoder.fromClient(data)
    if (this.#decoder.broken) this.#rest.fromClient(data)
    return forward === undefined ? undefined : pieces(forward)
  }

  fromTarget(data: Buffer): void {
    this.#counts.target.add(data)
    if (!this.#decoder.broken) this.#decoder.fromTarget(data)
    if (this.#decoder.broken) this.#rest.fromTarget(data)
  }

  clientEnd(): Buffer[] | undefined {
    if (this.#decoder.broken) this.#rest.clientEnd()
    return this.#decoder.held()
  }

  end(): Facts {
    this.#decoder.end()
    if (this.#decoder.broken) this.#rest.clientEnd()
    return { inputBytes: this.#counts.client.bytes, outputBytes: this.#counts.target.bytes }
  }
}

function pieces(parts: readonly Buffer[]): Buffer[] {
  const bytes = Buffer.concat(parts)
  const cut: Buffer[] = []
  for (let at = 0; at < bytes.length; at += pieceBytesMax) cut.push(bytes.subarray(at, at + pieceBytesMax))
  return cut
}
