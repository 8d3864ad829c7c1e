// The front of an SSH session that a page of the console shows: the one of everybody who has proved who they
// are before (proxy/ssh/door.ts), with the page as its client. What it adds are words of the page: which
// session this is, and a refusal with its code.
import { SallyportError } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { Claim, Proof, Upstreaming } from '../../session/front.ts'
import { DoorFront } from '../ssh/door.ts'
import type { DoorSetting } from '../ssh/setting.ts'
import type { SshUpstream } from '../ssh/target.ts'
import type { Page } from './page.ts'
import { Terminal } from './terminal.ts'
import type { Size } from './terminal.ts'

export class TerminalFront extends DoorFront {
  readonly #page: Page
  #hasRelay = false

  constructor(page: Page, claim: Claim, size: Size, setting: DoorSetting) {
    const terminal = new Terminal(page, size, () => this.leave())
    super({
      transport: terminal, claim, ahead: terminal.opening,
      setting: {
        ...setting,
        refused(session, what, right) {
          if (right === 'shell') terminal.refuseShell()
          setting.refused(session, what, right)
        }
      },
      gone: () => undefined,
      tell: text => page.say({ type: 'notice', text })
    })
    this.#page = page
  }

  /** Nothing is proved here: what counts is the ticket of the claim. */
  override async prove(): Promise<Proof | undefined> {
    return undefined
  }

  override async refuse(error: SallyportError): Promise<void> {
    // The relay has said it.
    if (this.#hasRelay) await super.refuse(error)
    else this.#page.fail(error)
  }

  override async connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<SshUpstream> {
    if (upstreaming.target.protocol === 'ssh') return super.connect(upstreaming, signal)
    throw new SallyportError('not-allowed', { detail: 'a TCP target has no terminal' })
  }

  override async relay(target: SshUpstream, recording: Recording, signal: AbortSignal): Promise<Ending> {
    this.#hasRelay = true
    this.#page.say({ type: 'open', session: recording.session })
    return super.relay(target, recording, signal)
  }
}
