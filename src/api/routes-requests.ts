// Routes over requests for access that needs approval (D5). People ask for themselves and for nobody else;
// users whom the grant names as approvers decide, and never on a request of their own. Whoever is neither,
// nor looks after the audit, does not learn that a request exists.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote, readDuration } from '../input.ts'
import { approversOf, decidedBy, requestable, termsOf } from '../policy/approvals.ts'
import type { Declared } from '../policy/types.ts'
import { resourceName } from './document-parts.ts'
import type { ApiPorts } from './ports.ts'
import type { RequestRow } from './ports-records.ts'
import { everyone, route, watchers } from './route.ts'
import type { Caller } from './route.ts'
import { requestJson, requestShape } from './shapes.ts'

const requestsPerAnswerMax = 1_000
const reasonCharactersMax = 500
const requestId = z.string().regex(/^[0-9A-Za-z_-]{4,64}$/, 'expected the id of a request')
const params = z.object({ id: requestId })
// People read it in terminals: no control characters.
const reason = z.string().trim().min(1).max(reasonCharactersMax)
  .regex(/^\P{Cc}*$/u, 'expected one line of text')
const said = z.strictObject({ reason: reason.optional() })
const span = z.string().transform((text, context) => {
  const seconds = readDuration(text)
  if (seconds !== undefined) return seconds
  context.addIssue(`expected a duration such as 30m or 2h, not ${quote(text)}`)
  return z.NEVER
})

type Part = 'approve' | 'deny' | 'withdraw' | 'review'

export function requestRoutes(ports: ApiPorts) {
  const { requests } = ports
  const changing = <P extends Part>(
    part: P, summary: string, act: (row: RequestRow, by: string, reason?: string) => Promise<RequestRow>
  ) => route({
    method: 'post', path: `/requests/{id}/${part}`, roles: everyone, summary, params, body: said,
    response: requestShape,
    run: async ({ params: { id }, body, caller }) => {
      const row = await decidable(ports, id, caller, part)
      return requestJson(await act(row, caller.name, body.reason))
    }
  })
  return [
    ...lookingRoutes(ports), creating(ports),
    changing('approve', 'Agrees to a request; the last approval that is needed opens the access.',
      async (row, by, why) => {
        const { approvers, count } = await decidingOn(ports, row)
        return requests.approve(row.id, { by, reason: why }, approvers, count)
      }),
    changing('deny', 'Denies a request, which ends it.', ({ id }, by, why) =>
      requests.deny(id, { by, reason: why })),
    changing('withdraw', 'Takes a request or an approval back; sessions that rest on it end at once.',
      ({ id }, by, why) => requests.withdraw(id, { by, reason: why })),
    changing('review', 'Notes that an emergency access was looked at.', ({ id }, by, why) =>
      requests.review(id, { by, reason: why }))
  ]
}

function lookingRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/requests', roles: everyone,
      summary: 'Requests, newest first: the own ones and those that the caller decides on; auditors see all.',
      query: z.strictObject({
        state: z.enum(['pending', 'approved', 'denied', 'expired', 'withdrawn']).optional(),
        open: z.enum(['true', 'false']).transform(text => text === 'true').optional(),
        before: requestId.optional(),
        limit: z.coerce.number<number>().int().min(1).max(requestsPerAnswerMax).default(100)
      }),
      response: z.object({ requests: z.array(requestShape) }),
      run: async ({ query, caller }) => {
        const decidesOn = decidedBy(await ports.policy.declared(), caller.name)
        const scope = isWatcher(caller) ? {} : { user: caller.name, ...decidesOn }
        return { requests: (await ports.requests.list({ ...query, ...scope })).map(requestJson) }
      }
    }),
    route({
      method: 'get', path: '/requests/{id}', roles: everyone, summary: 'One request.', params,
      response: requestShape,
      run: async ({ params: { id }, caller }) =>
        requestJson(await requestOf(ports, await ports.policy.declared(), id, caller))
    })
  ]
}

function creating(ports: ApiPorts) {
  return route({
    method: 'post', path: '/requests', roles: everyone,
    summary: 'Asks for a credential that needs approval; answers the request that is open for it already.',
    body: z.strictObject({
      credential: resourceName, reason: reason.optional(), emergency: z.boolean().default(false),
      for: span.optional()
    }),
    response: requestShape, issues: ({ id }) => `request ${id}`,
    run: async ({ body: { credential, reason: why, emergency, for: seconds }, caller, address }) => {
      const declared = await ports.policy.declared()
      if (caller.how === 'local' || !declared.users.has(caller.name)) {
        const problem = 'people ask for themselves: run `sallyport login` as one of them'
        throw new SallyportError('not-allowed', { problems: [problem] })
      }
      const now = ports.clock.now()
      const { rule, approval } = requestable(declared, caller.name, credential, emergency, now)
      const problems = [
        ...emergency && why === undefined ? ['reason: is missing: somebody will review it'] : [],
        ...(seconds ?? 0) > approval.validForSeconds ? ['for: is longer than the grant gives'] : []
      ]
      if (problems.length > 0) throw new SallyportError('invalid', { problems })
      const { row } = await ports.requests.create({
        user: caller.name, grant: rule.name, credential, reason: why, emergency,
        validForSeconds: seconds ?? approval.validForSeconds, origin: `https from ${address}`
      })
      return requestJson(row)
    }
  })
}

function isWatcher(caller: Caller): boolean {
  return caller.roles.some(role => watchers.includes(role))
}

function isApprover(declared: Declared, row: RequestRow, caller: Caller): boolean {
  return caller.how === 'token' && approversOf(declared, row).includes(caller.name)
}

/** A request that the caller may see. */
async function requestOf(
  ports: ApiPorts, declared: Declared, id: string, caller: Caller
): Promise<RequestRow> {
  const row = await ports.requests.get(id)
  if (row !== undefined) {
    const isOwn = caller.how === 'token' && row.user === caller.name
    if (isOwn || isWatcher(caller) || isApprover(declared, row, caller)) return row
  }
  throw new SallyportError('not-found', { detail: `no request ${quote(id)}` })
}

/** … and may do this to. What is a person's own is theirs to withdraw, and never to decide. */
async function decidable(ports: ApiPorts, id: string, caller: Caller, part: Part): Promise<RequestRow> {
  const declared = await ports.policy.declared()
  const row = await requestOf(ports, declared, id, caller)
  if (isApprover(declared, row, caller)) return row
  const isOwn = caller.how === 'token' && row.user === caller.name
  if (part === 'withdraw' && (isOwn || caller.roles.includes('admin'))) return row
  const detail = isOwn
    ? 'nobody decides on a request of their own'
    : `grant ${row.grant} does not name ${caller.name} as an approver`
  throw new SallyportError('not-allowed', { detail, problems: [detail] })
}

/** As the grant says them now. */
async function decidingOn(
  ports: ApiPorts, row: RequestRow
): Promise<{ approvers: readonly string[], count: number }> {
  const declared = await ports.policy.declared()
  const count = termsOf(declared, row.grant)?.count
  if (count === undefined) {
    throw new SallyportError('conflict', { problems: [`grant: ${row.grant} asks for no approval any more`] })
  }
  return { approvers: approversOf(declared, row), count }
}
