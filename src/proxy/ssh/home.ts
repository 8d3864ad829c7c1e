// Where relative paths begin at a target, asked once before the client may say anything, where the grant has
// rules about files: over a channel of our own, which is closed again, the target's SFTP is asked what `.`
// is. A target that has no SFTP, is mute, or answers nonsense, leaves it unknown, and rules then take a
// relative path for whatever they forbid (policy/rules.ts).
import { WireError } from '../../wire/error.ts'
import {
  channelData, channelOpen, channelRequest, channelSignal, parseOpenConfirmation, recipientOf, sshMessage,
  dataHeadBytes
} from '../../wire/ssh/connection.ts'
import { SshReader, sshFields, sshUint32 } from '../../wire/ssh/data.ts'
import { sftpType } from '../../wire/ssh/sftp-packets.ts'

/** Our number of the channel: nobody else has one yet. */
const ours = 0
/** More than an answer needs; what does not fit is no answer. */
const windowBytes = 32 * 1024
/** Longest path of Linux. */
const homeBytesMax = 4096
/** Messages until the channel is closed; more are a target that plays for time. */
const messagesMax = 128
const realpath = 16

export interface HomeLine {
  send(message: Buffer): void
  next(): Promise<Buffer>
  /** Aborts when it was waited for long enough: the channel is closed without an answer. */
  enough?: AbortSignal | undefined
}

export interface Home {
  /** Absolute, without a slash at its end unless it is the root; undefined: not known. */
  path: string | undefined
  /** What was said meanwhile and is not about this. */
  others: Buffer[]
}

/** @throws WireError the target breaks the protocol, or does not close the channel */
export async function askHome(line: HomeLine): Promise<Home> {
  const asking = new Asking(line)
  const giveUp = (): void => asking.giveUp()
  line.enough?.addEventListener('abort', giveUp)
  try {
    line.send(channelOpen('session', ours, windowBytes, windowBytes))
    for (let count = 0; count < messagesMax; count++) {
      if (asking.take(await line.next())) return { path: asking.path, others: asking.others }
    }
    throw new WireError('a channel that does not close')
  } finally {
    line.enough?.removeEventListener('abort', giveUp)
  }
}

class Asking {
  path: string | undefined
  readonly others: Buffer[] = []
  readonly #line: HomeLine
  #theirs: number | undefined
  #said: Buffer = Buffer.alloc(0)
  #isClosing = false

  constructor(line: HomeLine) {
    this.#line = line
  }

  giveUp(): void {
    this.#close()
  }

  /** True: the channel is gone. */
  take(message: Buffer): boolean {
    const type = message[0]!
    const isOurs = type >= sshMessage.openConfirmation && type <= sshMessage.channelFailure
    if (!isOurs) {
      this.others.push(message)
      return false
    }
    if (recipientOf(message) !== ours) throw new WireError('a channel that nobody opened')
    switch (type) {
      case sshMessage.openFailure: return true
      case sshMessage.openConfirmation: this.#ask(parseOpenConfirmation(message).sender); break
      case sshMessage.data: this.#hear(message.subarray(dataHeadBytes)); break
      case sshMessage.eof:
      case sshMessage.channelFailure: this.#close(); break
      case sshMessage.close:
        this.#close()
        return true
    }
    return false
  }

  #ask(theirs: number): void {
    if (this.#theirs !== undefined) throw new WireError('a channel that is opened twice')
    this.#theirs = theirs
    const packet = (kind: number, body: Buffer): Buffer =>
      Buffer.concat([sshUint32(body.length + 1), Buffer.of(kind), body])
    const version = 3
    this.#line.send(channelRequest(theirs, 'subsystem', true, 'sftp'))
    this.#line.send(channelData(theirs, Buffer.concat([
      packet(sftpType.init, sshUint32(version)),
      packet(realpath, Buffer.concat([sshUint32(1), sshFields('.')]))
    ])))
  }

  #hear(data: Buffer): void {
    if (this.#isClosing) return
    this.#said = Buffer.concat([this.#said, data])
    if (this.#said.length > windowBytes) throw new WireError('more SSH data than the window takes')
    for (;;) {
      const length = this.#said.length < 4 ? 0 : this.#said.readUInt32BE(0)
      if (length > windowBytes) return this.#close()
      if (this.#said.length < 4 + Math.max(length, 1)) return
      const packet = this.#said.subarray(4, 4 + length)
      this.#said = this.#said.subarray(4 + length)
      if (packet[0] === sftpType.version) continue
      this.path = homeOf(packet)
      return this.#close()
    }
  }

  #close(): void {
    if (this.#isClosing || this.#theirs === undefined) return
    this.#isClosing = true
    this.#line.send(channelSignal(sshMessage.close, this.#theirs))
  }
}

/** Of the answer to REALPATH: one name. */
function homeOf(packet: Buffer): string | undefined {
  try {
    const reader = new SshReader(packet)
    if (reader.byte() !== sftpType.name || reader.uint32() !== 1 || reader.uint32() !== 1) return undefined
    const bytes = reader.bytes()
    const path = bytes.toString('utf8')
    const isPath = bytes.length <= homeBytesMax && path.startsWith('/') && Buffer.from(path).equals(bytes)
    return isPath && !path.split('/').includes('..') ? path : undefined
  } catch (thrown) {
    if (thrown instanceof WireError) return undefined
    throw thrown
  }
}
