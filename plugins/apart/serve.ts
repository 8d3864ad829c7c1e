// The driver's side of a thread: connections by number, each with the two things that a hook does with one.
// Nothing is caught that the driver throws out of turn: the thread ends, and its other side knows what that
// means.
import { parentPort } from 'node:worker_threads'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import { failureOf } from './words.ts'
import type { Asked, Client, Rows, Told } from './words.ts'

/** Answers what the other side asks; `connect` gets its options as they were given there. */
export function serve<Options>(connect: (options: Options) => Promise<Client>): void {
  const clients = new Map<number, Client>()
  const answer = async ({ client, connect: options, query }: Asked): Promise<Rows> => {
    if (options !== undefined) {
      clients.set(client, await connect(options as Options))
      return []
    }
    const known = clients.get(client)
    if (known === undefined || query === undefined) {
      throw new ConnectionLost('closed', 'the connection is closed')
    }
    return await known.query(query.sql, query.limitMs, query.binds)
  }
  parentPort?.on('message', (asked: Asked) => {
    if (asked.close === true) {
      clients.get(asked.client)?.close()
      clients.delete(asked.client)
      return
    }
    const tell = (told: Omit<Told, 'id'>): void => parentPort?.postMessage({ id: asked.id, ...told })
    void answer(asked).then(rows => tell({ rows }), (error: unknown) => tell({ error: failureOf(error) }))
  })
}
