// Asks a target for its host key, and for nothing else: the key exchange is broken off as soon as the key was
// seen. For targets that pin none, once.
import { connect } from 'node:net'
import type { Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import { typeOf } from '../../wire/ssh/key.ts'
import { offerOf, targetHostKeys } from './algorithms.ts'
import { Transport } from './transport.ts'

/** The line `type base64`. @throws SallyportError `target-unreachable` */
export async function scanHostKey(
  { host, port }: { host: string, port: number }, clock: Clock, limitMs: number
): Promise<string> {
  const socket = connect({ host, port, noDelay: true })
  let line: string | undefined
  const away = (detail: string): SallyportError => new SallyportError('target-unreachable', { detail })
  try {
    return await new Promise<string>((resolve, reject) => {
      const stop = clock.after(limitMs, () => reject(away('it showed no host key in time')))
      const ended = (error?: Error): void => {
        stop()
        if (line === undefined) reject(away(error?.message ?? 'it showed no host key'))
        else resolve(line)
      }
      socket.once('error', ended)
      socket.once('connect', () => {
        const verify = (blob: Buffer): boolean => {
          line = `${typeOf(blob)} ${blob.toString('base64')}`
          return false
        }
        const side = { kind: 'client', verify } as const
        const nothing = (): void => undefined
        new Transport({ socket, side, offer: offerOf(targetHostKeys), clock, readMode: 'stream' }, {
          ready: nothing, message: nothing, room: () => true, refused: nothing, drain: nothing, closed: ended
        }).start()
      })
    })
  } finally {
    socket.destroy()
  }
}
