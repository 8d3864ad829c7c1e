// Both sides of an SSH connection with the recorder between them, and the recording as a list: what tests of
// the evidence share. Nothing here judges.
import { SshTape } from '../../src/proxy/ssh/tape.ts'
import type { SshTapeOptions } from '../../src/proxy/ssh/tape.ts'
import { frameKind } from '../../src/recording/recording.ts'
import type { FrameKind, Recording } from '../../src/recording/recording.ts'
import * as wire from '../../src/wire/ssh/connection.ts'
import type { SshField } from '../../src/wire/ssh/data.ts'

const { sshMessage } = wire

/** A recording that only remembers. */
export class ListRecording implements Recording {
  readonly session = 's1'
  readonly failed = new AbortController().signal
  readonly frames: { kind: FrameKind, lane: number, body: Buffer }[] = []

  append(kind: FrameKind, lane: number, ...parts: readonly Uint8Array[]): void {
    this.frames.push({ kind, lane, body: Buffer.concat(parts) })
  }

  commit(): true {
    return true
  }

  seal(): Promise<never> {
    return Promise.reject(new Error('nobody seals this'))
  }

  /** All bytes of a kind on a lane. */
  text(kind: 'input' | 'output', lane = 1): string {
    const found = this.frames.filter(frame => frame.kind === frameKind[kind] && frame.lane === lane)
    return Buffer.concat(found.map(frame => frame.body)).toString()
  }

  events(type?: string): Record<string, unknown>[] {
    return this.frames
      .filter(frame => frame.kind === frameKind.event)
      .map(({ lane, body }): Record<string, unknown> => ({ lane, ...JSON.parse(body.toString()) as object }))
      .filter(event => type === undefined || event['type'] === type)
  }
}

/** One connection. Channels of the client have its number; the target's is 100 more. */
export class TapeWorld {
  readonly recording = new ListRecording()
  readonly tape: SshTape

  constructor(options: SshTapeOptions = {}) {
    this.tape = new SshTape(this.recording, options)
  }

  client(payload: Buffer): Buffer[] | undefined {
    return this.tape.fromClient(payload)
  }

  target(payload: Buffer): void {
    this.tape.fromTarget(payload)
  }

  open(number = 0, type = 'session', ...more: SshField[]): void {
    this.client(wire.channelOpen(type, number, 2 ** 32 - 1, 2 ** 15, ...more))
    this.target(wire.openConfirmation(number, number + 100, 2 ** 32 - 1, 2 ** 15))
  }

  /** A request of the client, and the target's answer. */
  request(type: string, fields: SshField[] = [], yes = true, number = 0): void {
    this.client(wire.channelRequest(number + 100, type, true, ...fields))
    this.target(wire.channelSignal(yes ? sshMessage.channelSuccess : sshMessage.channelFailure, number))
  }

  exec(command: string, number = 0): void {
    this.open(number)
    this.request('exec', [command], true, number)
  }

  shell(number = 0): void {
    this.open(number)
    this.request('pty-req', ['xterm', 80, 24, 0, 0, ''], true, number)
    this.request('shell', [], true, number)
  }

  /** Data of the client. */
  say(data: string | Buffer, number = 0): Buffer[] | undefined {
    return this.client(wire.channelData(number + 100, Buffer.from(data)))
  }

  /** Data of the target. */
  hear(data: string | Buffer, number = 0): Buffer {
    const payload = wire.channelData(number, Buffer.from(data))
    this.target(payload)
    return payload.subarray(wire.dataHeadBytes)
  }

  close(number = 0): void {
    this.client(wire.channelSignal(sshMessage.eof, number + 100))
    this.target(wire.channelSignal(sshMessage.close, number))
    this.client(wire.channelSignal(sshMessage.close, number + 100))
  }
}
