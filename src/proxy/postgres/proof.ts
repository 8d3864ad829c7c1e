// How a client proves who it is: SCRAM-SHA-256, bound to our certificate where the connection has TLS
// (-PLUS), or, when the listener allows it, a password in clear inside TLS. MD5 never. Each step takes
// exactly one message of exactly one kind; a client that says anything else breaks the protocol, whatever it
// meant.
import { SallyportError } from '../../errors.ts'
import { headerBytes, readFrame, readLength } from '../../wire/postgres/frame.ts'
import {
  authenticationCleartextPassword, authenticationSasl, authenticationSaslContinue, authenticationSaslFinal
} from '../../wire/postgres/messages.ts'
import { ScramServer } from '../../wire/postgres/scram.ts'
import {
  authenticationBytesMax, parsePassword, parseSaslInitialResponse
} from '../../wire/postgres/statements.ts'
import { verifyPassword } from '../../wire/postgres/verifier.ts'
import type { Client } from './client.ts'

const passwordTag = 0x70

/**
 * True when the client knows the password of `verifier`. `admit` is asked before the answer is judged, since
 * a hundred answers may come at one moment; what it throws is all that the client hears.
 * @throws WireError, SallyportError
 */
export async function proveScram(
  client: Client, verifier: string, channelBinding: Buffer | undefined, admit: () => void
): Promise<boolean> {
  const scram = new ScramServer({ verifier, channelBinding: client.encrypted ? channelBinding : undefined })
  client.write(authenticationSasl(scram.mechanisms))
  const { mechanism, data } = parseSaslInitialResponse(await passwordMessage(client))
  client.write(authenticationSaslContinue(scram.begin(mechanism, data)))
  const proof = await passwordMessage(client)
  admit()
  const final = scram.finish(proof)
  if (final === undefined) return false
  client.write(authenticationSaslFinal(final))
  return true
}

/** The same with the password itself. Only inside TLS. @throws WireError, SallyportError */
export async function provePassword(client: Client, verifier: string, admit: () => void): Promise<boolean> {
  client.write(authenticationCleartextPassword())
  const known = await verifyPassword(parsePassword(await passwordMessage(client)), verifier)
  admit()
  return known
}

/** The body of the one message that may come now. */
async function passwordMessage(client: Client): Promise<Buffer> {
  for (;;) {
    const { inbox } = client
    // Judged as soon as it is there: a stranger must not make us wait for the rest of a wrong message.
    if (inbox.length > 0 && inbox[0] !== passwordTag) {
      throw new SallyportError('protocol-violation', { detail: 'expected the answer to the login' })
    }
    if (inbox.length >= headerBytes) readLength(inbox, 1, authenticationBytesMax)
    const frame = readFrame(inbox, 0, inbox.length, authenticationBytesMax)
    if (frame !== undefined) {
      const message = client.take(frame.end)
      return message.subarray(frame.bodyStart)
    }
    await client.more()
  }
}
