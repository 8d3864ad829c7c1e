// Access that others have to agree to, over stock ssh: the wait is a banner, a refusal the text of the
// disconnect, and a client that leaves frees what waited for it. The product with a real sshd in a box.
// deadline: 120 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { RequestJson } from '../../src/api/client-types.ts'
import { until } from '../peers/house.ts'
import { apiOf, sessionsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import type { Person } from '../peers/people.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse
let carol: Person

test.before(async () => {
  house = await startSshHouse({
    grant: 'approval: { by: [carol], validFor: 1h, waitFor: 30s }', access: people('carol')
  })
  carol = await personOf(house, 'carol')
})
test.after(() => house.end())

interface Waiting {
  id: string
  text(): string
  kill(): void
  ended: Promise<number | null>
}

/** Stock ssh that runs a command as soon as it may; `id` is what its banner says. */
async function waiting(login?: string): Promise<Waiting> {
  const child = house.spawnSsh(['echo', 'ready'], login)
  let text = ''
  child.stdout!.on('data', chunk => { text += String(chunk) })
  child.stderr!.on('data', chunk => { text += String(chunk) })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  await until(async () => text, said => /request req-[0-9a-f]{10} needs one approval/.test(said), 10)
  const id = /req-[0-9a-f]{10}/.exec(text)?.[0] ?? ''
  return { id, text: () => text, kill: () => void child.kill('SIGKILL'), ended }
}

test('ssh is told by a banner, is refused at a denial, and goes on at an approval', async () => {
  const denied = await waiting()
  await carol.decides('deny', denied.id)
  assert.is.not(await denied.ended, 0)
  assert.match(denied.text(), /request for access was denied: request req-\S+ \[request-denied [0-9a-f]{6}\]/)

  const approved = await waiting()
  assert.is.not(approved.id, denied.id)
  assert.equal(await sessionsOf(apiOf(house)), [])
  await carol.decides('approve', approved.id)
  assert.is(await approved.ended, 0)
  assert.match(approved.text(), /is approved[^]*ready/)
  const { status, stdout } = await house.ssh(['echo', 'again'])
  assert.equal([status, stdout], [0, 'again\n'])
  await carol.decides('withdraw', approved.id)
})

test('a client that leaves while it waits frees everything, from a bare login as well', async () => {
  const left = async (): Promise<number> => {
    const { events } = await apiOf(house).get('/audit', { query: { kind: 'session.refused' } })
    return events.filter(({ detail }) => (detail as { code?: string }).code === 'client-closed').length
  }
  const named = await waiting()
  named.kill()
  await until(left, count => count === 1, 5)
  await carol.decides('withdraw', named.id)
  // A bare login with one credential asks for it when its channel opens, where a banner has no place.
  const created = async (): Promise<string | undefined> =>
    (await house.json<RequestJson[]>('requests', 'list', '--state', 'pending'))[0]?.id
  const gone = house.spawnSsh(['echo', 'ready'], 'alice')
  const id = await until(created, found => found !== undefined, 10)
  gone.kill('SIGKILL')
  await until(left, count => count === 2, 5)
  const bare = house.spawnSsh(['echo', 'ready'], 'alice')
  let text = ''
  bare.stdout!.on('data', chunk => { text += String(chunk) })
  assert.is(await created(), id, 'the request is there for the next connection')
  await carol.decides('approve', id!)
  await new Promise(resolve => { bare.once('close', resolve) })
  assert.is(text, 'ready\n')
  const live = async (): Promise<string[]> => (await sessionsOf(apiOf(house)))
    .filter(({ status }) => status === 'live').map(each => each.id)
  await until(live, found => found.length === 0, 5)
})

test.run()
