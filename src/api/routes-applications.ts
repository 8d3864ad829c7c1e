// Routes over the tokens of applications: a token is shown once, when it is made or rotated; what is kept is
// its hash. Admins make, rotate and end them; who may use one, and from where, is in the application's own
// document, and what it opens is in grants.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { duration, quote } from '../input.ts'
import { hashToken, mintApplicationToken } from './access.ts'
import type { ApiPorts, ApplicationTokenRow } from './ports.ts'
import { admins, route, watchers } from './route.ts'
import { applicationTokenJson, applicationTokenShape, done, freshApplicationTokenShape } from './shapes.ts'

/** A token that nobody rotates ends by itself. */
const tokenSecondsDefault = 90 * 86_400
const tokenSecondsMax = 366 * 86_400
/** Longest that an old token lives on beside its successor. */
const overlapSecondsMax = 7 * 86_400

const name = z.string()
const params = z.object({ name })
const one = z.object({ name, id: z.string().max(64) })
const ttl = duration.refine(seconds => seconds <= tokenSecondsMax, 'expected at most 366d')
  .default(tokenSecondsDefault)
const overlap = duration.refine(seconds => seconds <= overlapSecondsMax, 'expected at most 7d').optional()

export function applicationRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/applications/{name}/tokens', roles: watchers,
      summary: 'The tokens of an application that are valid, without the tokens themselves.', params,
      response: z.object({ tokens: z.array(applicationTokenShape) }),
      run: async ({ params: { name: of } }) => {
        await known(ports, of)
        return { tokens: (await ports.applicationTokens.list(of)).map(applicationTokenJson) }
      }
    }),
    route({
      method: 'post', path: '/applications/{name}/tokens', roles: admins,
      summary: 'Makes a token for an application and shows it, this once.', params,
      body: z.strictObject({ ttl }), response: freshApplicationTokenShape, issues: tokenName,
      run: async ({ params: { name: of }, body, caller }) => {
        await known(ports, of)
        const { token, fresh } = freshToken(of, body.ttl)
        return shownOnce(await ports.applicationTokens.add(fresh, caller.name), token)
      }
    }),
    route({
      method: 'post', path: '/applications/{name}/tokens/{id}/rotate', roles: admins,
      summary: 'Makes a new token in place of another, which ends after the overlap, at once without one.',
      params: one, body: z.strictObject({ ttl, overlap }), response: freshApplicationTokenShape,
      issues: tokenName,
      run: async ({ params: { name: of, id }, body, caller }) => {
        await known(ports, of)
        const { token, fresh } = freshToken(of, body.ttl)
        const row = await ports.applicationTokens.rotate(fresh, id, body.overlap ?? 0, caller.name)
        if (row !== undefined) return shownOnce(row, token)
        throw new SallyportError('not-found', { detail: `${quote(of)} has no valid token ${quote(id)}` })
      }
    }),
    route({
      method: 'delete', path: '/applications/{name}/tokens/{id}', roles: admins,
      summary: 'Ends a token of an application.', params: one, response: done,
      run: async ({ params: { name: of, id }, caller }) => {
        if (await ports.applicationTokens.remove(of, id, caller.name)) return { done: true }
        throw new SallyportError('not-found', { detail: `${quote(of)} has no token ${quote(id)}` })
      }
    })
  ]
}

function tokenName({ id, application }: z.output<typeof applicationTokenShape>): string {
  return `token ${id} of ${application}`
}

function freshToken(application: string, ttlSeconds: number) {
  const token = mintApplicationToken()
  return { token, fresh: { id: randomUUID(), hash: hashToken(token), application, ttlSeconds } }
}

function shownOnce(row: ApplicationTokenRow, token: string): z.output<typeof freshApplicationTokenShape> {
  return { ...applicationTokenJson(row), token }
}

async function known(ports: ApiPorts, application: string): Promise<void> {
  if ((await ports.policy.declared()).applications.has(application)) return
  throw new SallyportError('not-found', { detail: `no application ${quote(application)}` })
}
