// `sessions list`, `show`, `kill`, `receipt`, `search`: which sessions there are and what became of them.
import { verify as checkSignature } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import type { ReceiptJson, SessionJson } from '../api/client-types.ts'
import { inertLine } from '../recording/inert.ts'
import type { Client } from './client.ts'
import { exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number, oneOf, text } from './connect.ts'
import type { Words } from './connect.ts'
import { Failure } from './failure.ts'
import { bytesText, shortTime } from './output.ts'

/** A session has a few events, and a hundred verdicts at most. */
const eventsMax = 1000

const headings = [
  'ID', 'STATUS', 'USER', 'CREDENTIAL', 'TARGET', 'PROTOCOL', 'ACCOUNT', 'STARTED', 'ENDED', 'RECEIPT'
]

const statuses: Words<SessionJson['status']> = {
  opening: true, live: true, ended: true, refused: true, interrupted: true
}

export const list: Run = async call => {
  const client = await clientOf(call)
  const { sessions } = await client.get('/sessions', {
    query: {
      user: text(call, 'user'), credential: text(call, 'credential'), target: text(call, 'target'),
      status: oneOf(call, 'status', statuses), since: text(call, 'since'), until: text(call, 'until'),
      before: text(call, 'before'), limit: number(call, 'limit', 100, 1)
    }
  })
  if (call.json) call.out.json(sessions)
  else call.out.table(headings, sessions.map(session => [
    session.id, session.status, session.user, session.credential, session.target,
    [session.protocol, session.client ?? ''].join(' ').trim(), session.account?.name,
    shortTime(session.startedAt), shortTime(session.endedAt), session.receipt?.state
  ]), 'no sessions')
  return exit.ok
}

export const show: Run = async call => {
  const client = await clientOf(call)
  const session = await client.get('/sessions/{id}', { params: { id: call.args[0]! } })
  const verdicts = await verdictsOf(client, session.id)
  if (call.json) {
    call.out.json({ ...session, verdicts })
    return exit.ok
  }
  const { account, recording, receipt } = session
  call.out.list([
    ['id', session.id], ['status', session.status], ['user', session.user],
    ['credential', session.credential], ['target', session.target], ['protocol', session.protocol],
    ['database', session.database],
    ['grant', session.grant], ['address', session.address],
    ['client', session.client], ['node', session.node],
    ['started', shortTime(session.startedAt)], ['expires', shortTime(session.expiresAt)],
    ['ended', shortTime(session.endedAt)], ['reason', session.reason],
    ['account', account?.name], ['account state', account?.state],
    ...verdicts.length > 0 ? [['rules', countsOf(verdicts)] as [string, string]] : [],
    ['recording', recording?.sealed === false ? 'not sealed yet' : bytesText(recording?.bytes ?? null)],
    ['recording hash', recording?.headHash],
    ['receipt', receipt === null ? null : `${receipt.state}, signed ${shortTime(receipt.signedAt)}`]
  ])
  return exit.ok
}

interface VerdictJson {
  at: string
  verdict: string
  [fact: string]: unknown
}

/** What rules said in it, oldest first; nothing for those who may not read the audit. */
async function verdictsOf(client: Client, subject: string): Promise<VerdictJson[]> {
  try {
    const { events } = await client.get('/audit', { query: { subject, limit: eventsMax } })
    return events.filter(({ kind }) => kind.startsWith('rule.')).reverse()
      .map(({ at, kind, detail }) => ({ at, verdict: kind.slice('rule.'.length), ...detail as object }))
  } catch (thrown) {
    if (thrown instanceof Failure && thrown.code === 'not-allowed') return []
    throw thrown
  }
}

function countsOf(verdicts: readonly VerdictJson[]): string {
  const counts = new Map<string, number>()
  for (const { verdict } of verdicts) counts.set(verdict, (counts.get(verdict) ?? 0) + 1)
  return [...counts].map(([verdict, count]) => `${count} ${verdict}`).join(', ')
}

export const kill: Run = async call => {
  const client = await clientOf(call)
  const id = call.args[0]!
  const { done } = await client.post('/sessions/{id}/kill', { params: { id } })
  if (call.json) call.out.json({ id, killed: done })
  else call.out.line(done ? `ended ${id}` : `${id} is not alive`)
  return done ? exit.ok : exit.failed
}

export const receipt: Run = async call => {
  const given = call.args[0]!
  const found = existsSync(given)
    ? JSON.parse(readFileSync(given, 'utf8')) as ReceiptJson
    : await (await clientOf(call)).get('/sessions/{id}/receipt', { params: { id: given } })
  const key = text(call, 'public-key')
  const genuine = key === undefined ? undefined : await isGenuine(found, readFileSync(key, 'utf8'))
  if (call.json) call.out.json(genuine === undefined ? found : { ...found, genuine })
  else printReceipt(call, found, genuine)
  return genuine === false ? exit.failed : exit.ok
}

// What is signed is the body, in its canonical form: the rows around it are there to find it again.
async function isGenuine({ body, signature }: ReceiptJson, pem: string): Promise<boolean> {
  const { canonicalJson } = await import('../lease/receipt.ts')
  const { readPublicKeys } = await import('../recording/verify.ts')
  const bytes = Buffer.from(canonicalJson(body))
  return readPublicKeys(pem).some(key => checkSignature(null, bytes, key, Buffer.from(signature, 'base64')))
}

function printReceipt(call: Invocation, found: ReceiptJson, genuine: boolean | undefined): void {
  const word = genuine === undefined ? 'not checked: give --public-key' : genuine ? 'genuine' : 'NOT GENUINE'
  call.out.list([
    ['id', found.id], ['state', found.state], ['session', found.session], ['account', found.account],
    ['signed', shortTime(found.signedAt)], ['key', found.keyId], ['signature', word]
  ])
  call.out.line()
  call.out.line(JSON.stringify(found.body, null, 2))
}

export const search: Run = async call => {
  const client = await clientOf(call)
  const { hits, unanswered = [] } = await client.get('/search', {
    query: { query: call.args[0]!, session: text(call, 'session'), limit: number(call, 'limit', 100, 1) }
  })
  for (const { node, code } of unanswered) {
    call.out.aside(`not, or not all, looked through: the recordings of node ${node} (${code})`)
  }
  if (call.json) call.out.json(hits)
  else if (hits.length === 0) call.out.aside('nothing found')
  else for (const { session, user, target, atMs, kind, text: found } of hits) {
    const seconds = `${(atMs / 1000).toFixed(3)}s`
    call.out.line(inertLine(`${session}  ${seconds.padStart(10)}  ${user}@${target}  ${kind}: ${found}`))
  }
  return hits.length === 0 ? exit.failed : exit.ok
}
