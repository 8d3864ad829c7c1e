// `requests`: access that others have to agree to: asking for it, deciding on it, and who said what. Whoever
// decides is a person who has logged in: the local admin of the machine that serves is nobody's approver.
import type { RequestJson } from '../api/client-types.ts'
import { exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, flag, number, oneOf, text } from './connect.ts'
import type { Words } from './connect.ts'
import { shortTime } from './output.ts'

const states: Words<RequestJson['state']> = {
  pending: true, approved: true, denied: true, expired: true, withdrawn: true
}

export const list: Run = async call => {
  const client = await clientOf(call)
  const state = oneOf(call, 'state', states)
  const { requests } = await client.get('/requests', {
    query: {
      state, open: `${state === undefined && !flag(call, 'all')}`, before: text(call, 'before'),
      limit: number(call, 'limit', 100, 1)
    }
  })
  if (call.json) call.out.json(requests)
  else call.out.table(['ID', 'STATE', 'USER', 'CREDENTIAL', 'GRANT', 'CREATED', 'VALID UNTIL', 'REASON'],
    requests.map(request => [request.id, stateOf(request), request.user, request.credential, request.grant,
      shortTime(request.createdAt), shortTime(request.validUntil), request.reason ?? '']), 'no requests')
  return exit.ok
}

function stateOf({ state, emergency, needsReview }: RequestJson): string {
  if (!emergency) return state
  return needsReview ? `${state}, emergency: review it` : `${state}, emergency`
}

export const show: Run = async call => {
  const client = await clientOf(call)
  return print(call, await client.get('/requests/{id}', { params: { id: call.args[0]! } }))
}

export const create: Run = async call => {
  const client = await clientOf(call)
  const [reason, span] = [text(call, 'reason'), text(call, 'for')]
  return print(call, await client.post('/requests', {
    body: { credential: call.args[0]!, emergency: flag(call, 'emergency'), reason, for: span }
  }))
}

const changes = (part: 'approve' | 'deny' | 'withdraw' | 'review'): Run => async call => {
  const client = await clientOf(call)
  return print(call, await client.post(`/requests/{id}/${part}`, {
    params: { id: call.args[0]! }, body: { reason: text(call, 'reason') }
  }))
}

export const approve = changes('approve')
export const deny = changes('deny')
export const withdraw = changes('withdraw')
export const review = changes('review')

function print(call: Invocation, request: RequestJson): number {
  if (call.json) call.out.json(request)
  else call.out.list([
    ['id', request.id], ['state', stateOf(request)], ['user', request.user],
    ['credential', request.credential], ['grant', request.grant], ['reason', request.reason],
    ['asked for', `${request.validForSeconds}s`], ['created', shortTime(request.createdAt)],
    request.state === 'pending'
      ? ['to be decided by', shortTime(request.expiresAt)]
      : ['valid until', shortTime(request.validUntil)],
    ...request.decisions.map(({ by, verdict, reason, at }): [string, string] =>
      [`${verdict} by ${by}`, `${shortTime(at)}${reason === null ? '' : `  ${reason}`}`])
  ])
  return exit.ok
}
