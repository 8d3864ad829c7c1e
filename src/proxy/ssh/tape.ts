// The evidence of an SSH session.
import { frameKind } from '../../recording/recording.ts'
import type { Recording } from '../../recording/recording.ts'
import { message } from './channels.ts'
import type { Tape } from './tape-port.ts'

export class SshTape implements Tape {
  readonly #recording: Recording

  constructor(recording: Recording) {
    this.#recording = recording
  }

  fromClient(payload: Buffer): void {
    if (payload[0] === message.request) this.event({ type: 'request', text: payload.toString('latin1', 9) })
  }

  fromTarget(payload: Buffer): void {
    if (payload[0] === message.data) this.#recording.append(frameKind.output, 1, payload.subarray(9))
  }

  event(event: Record<string, unknown>): void {
    this.#recording.append(frameKind.event, 0, Buffer.from(JSON.stringify(event)))
  }

  end(): void {
    return undefined
  }
}
