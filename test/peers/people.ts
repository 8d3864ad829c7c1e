// People who use the command line beside alice: each logs in with a password and works with a token.
import type { RequestJson } from '../../src/api/client-types.ts'
import { createClient } from '../../src/cli/client.ts'
import { alicePassword } from './house.ts'
import type { Product } from './house.ts'
import { apiOf } from './inspector.ts'

/** Documents of users with the password of alice. */
export function people(...names: string[]): string {
  return names.map(name => `---
kind: user
name: ${name}
password: { env: ALICE_PASSWORD }
`).join('')
}

export interface Person {
  /** The command line; what `--json` prints. */
  json<T>(...words: string[]): Promise<T>
  /** … and the words of its refusal. */
  refusal(...words: string[]): Promise<string>
  /** The same API without starting a program each time. */
  decides(part: 'approve' | 'deny' | 'withdraw' | 'review', request: string): Promise<RequestJson>
}

/** Somebody who has logged in. */
export async function personOf(house: Product, name: string): Promise<Person> {
  const local = apiOf(house)
  const { token } = await local.post('/login', { body: { user: name, password: alicePassword } })
  const client = createClient({ ...local.connection, token, as: 'login' })
  const as = async <T>(act: () => Promise<T>): Promise<T> => {
    // Read when the command starts, which is before this returns.
    house.environment['SALLYPORT_TOKEN'] = token
    const running = act()
    delete house.environment['SALLYPORT_TOKEN']
    return running
  }
  return {
    json: <T>(...words: string[]) => as(() => house.json<T>(...words)),
    refusal: (...words) => as(() => house.refusal(...words)),
    decides: (part, request) => client.post(`/requests/{id}/${part}`, {
      params: { id: request }, body: {}
    })
  }
}
