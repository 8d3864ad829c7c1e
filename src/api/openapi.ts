// The OpenAPI 3.1 description of the API, made from the route table: what the server checks is what the
// document says, because both read the same schemas. Served at /openapi.json; clients of other languages
// are made from it.
import { z } from 'zod'
import { errorTable } from '../errors.ts'
import { apiPrefix } from './calling.ts'
import { cookieName } from './cookie.ts'
import { keyHeader, repeatHeader } from './idempotency.ts'
import type { Route } from './route.ts'

/** Where a route is found. */
export function addressOf({ path, atRoot }: Pick<Route, 'path' | 'atRoot'>): string {
  return atRoot === true ? path : apiPrefix + path
}

/** The JSON that every refusal and failure has. */
export const errorShape = z.object({
  error: z.object({
    code: z.enum(Object.keys(errorTable) as [keyof typeof errorTable]),
    message: z.string(),
    /** Six hex digits that the log carries too. */
    reference: z.string(),
    /** One line for each thing that is wrong, beginning with its path. */
    problems: z.array(z.string()),
    /** What happened exactly, and what to look at next: for auditors and admins only. */
    detail: z.string().optional(),
    hint: z.string().optional()
  })
})

/** Makes the document; `version` is that of the program. */
export function openApiOf(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    const path = addressOf(route)
    paths[path] ??= {}
    paths[path][route.method] = operationOf(route)
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sallyport', version,
      description: 'Sessions, accounts that live only as long as they do, and the proof that they are gone.'
    },
    paths,
    components: {
      schemas: { Error: jsonSchema(errorShape, 'output') },
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer' }, cookie: { type: 'apiKey', in: 'cookie', name: cookieName }
      }
    }
  }
}

const keyParameter = {
  name: keyHeader, in: 'header', required: false, schema: { type: 'string', minLength: 1, maxLength: 200 },
  description: 'A repeat with the same key does it once: it gets the same answer for 10 minutes (marked by '
    + `${repeatHeader}), and 409 already-issued for a day. 422 key-reused: for another request; `
    + '409 still-running or outcome-unknown: ask later, or look what there is.'
}

function conditionsOf({ method, path, response }: Route): unknown[] {
  const header = (name: string, description: string): unknown =>
    ({ name, in: 'header', required: false, schema: { type: 'string' }, description })
  if (method === 'get' && response instanceof z.ZodType) {
    return [header('if-none-match', 'The `etag` of an answer that is there: 304 when it is still the same.')]
  }
  if (path === '/apply' || (method === 'delete' && path.startsWith('/resources/'))) {
    return [header('if-match', 'The `etag` that was read: 412 not-as-expected when it changed meanwhile.')]
  }
  return path.endsWith('/recording')
    ? [header('range', 'One range of bytes of a sealed recording: 206.'), header('if-range', 'Its `etag`.')]
    : []
}

function operationOf(route: Route): Record<string, unknown> {
  const { roles } = route
  return {
    operationId: operationId(route),
    summary: route.summary,
    security: roles === 'anyone' ? [] : [{ token: [] }, { cookie: [] }],
    'x-roles': roles === 'anyone' ? ['anyone'] : roles,
    parameters: [
      ...parametersOf(route.params, 'path'), ...parametersOf(route.query, 'query'),
      ...route.issues === undefined ? [] : [keyParameter], ...conditionsOf(route)
    ],
    ...(route.body === undefined ? {} : {
      requestBody: {
        required: true, content: { 'application/json': { schema: jsonSchema(route.body, 'input') } }
      }
    }),
    responses: {
      200: { description: 'Done.', content: contentOf(route) },
      default: {
        description: 'Refused or failed.',
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } }
      }
    }
  }
}

// `get /sessions/{id}/kill` → `getSessionsIdKill`
function operationId({ method, path }: Route): string {
  return `${method}${path}`.replace(/[^a-z]+(.?)/gi, (_, next: string) => next.toUpperCase())
}

function contentOf({ response }: Route): Record<string, unknown> {
  if (response instanceof z.ZodType) return { 'application/json': { schema: jsonSchema(response, 'output') } }
  return Object.fromEntries(response.stream.map(type => [type, {}]))
}

function parametersOf(schema: z.ZodType | undefined, place: 'path' | 'query'): unknown[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = jsonSchema(schema, 'input')
  return Object.entries(properties).map(([name, property]) => ({
    name, in: place, required: place === 'path' || required.includes(name), schema: property
  }))
}

interface ObjectSchema {
  properties?: Record<string, unknown>
  required?: string[]
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): ObjectSchema {
  const options = { target: 'draft-2020-12', io, unrepresentable: 'any' } as const
  const { $schema: _, ...rest } = z.toJSONSchema(schema, options)
  return rest as ObjectSchema
}
