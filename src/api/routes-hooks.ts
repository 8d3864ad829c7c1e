// Routes over hooks: what plugins there are, how each target fares (its queue, its breaker, what came of the
// last action), and a proof that is told step by step while it runs on the target.
import { z } from 'zod'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import { printAddress, quote } from '../input.ts'
import type { Credential } from '../policy/types.ts'
import { byName, part } from './pages.ts'
import type { ApiPorts, ProofReport, Prove, ResourcePage } from './ports.ts'
import type { ErrorJson } from './client-types.ts'
import { resourceName } from './document-parts.ts'
import { admins, route, streamRoute, watchers } from './route.ts'
import { pluginShape, proofShape, targetHealthShape } from './shapes.ts'
import { jsonLines } from './stream.ts'

const proofLines = 'application/x-ndjson'

export function hookRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/plugins', roles: watchers,
      summary: 'The plugins of this build; nothing adds one.',
      response: z.object({ plugins: z.array(pluginShape) }),
      run: () => Promise.resolve({
        plugins: ports.shelf.plugins.map(({ id, actions, canEnableItself, variables }) =>
          ({ id, actions: [...actions], canEnableItself, supplies: Object.keys(variables) }))
      })
    }),
    route({
      method: 'get', path: '/targets/health', roles: watchers,
      summary: 'How each target fares with the hooks of this node: queue, breaker, last outcome; by name.',
      query: z.strictObject({ ...byName, name: part }),
      response: z.object({ node: z.string(), targets: z.array(targetHealthShape) }),
      run: async ({ query }) => ({ node: ports.node, targets: await healthOf(ports, query) })
    }),
    route({
      method: 'post', path: '/prove', roles: admins,
      summary: 'Runs both actions of a JIT credential on its target; nothing may remain.',
      body: z.strictObject({ credential: resourceName }),
      response: proofShape,
      run: async ({ body: { credential }, caller, signal }) => {
        const report = await proof(ports, credential, caller.name, told =>
          ports.prove(credential, signal, told))
        return { passed: report.passed, steps: report.steps.map(step => ({ ...step })) }
      }
    }),
    streamRoute({
      method: 'post', path: '/prove/steps', roles: admins,
      summary: 'The same, told while it runs: a JSON object a line for each step, and one for the end.',
      body: z.strictObject({ credential: resourceName }),
      response: { stream: [proofLines] },
      run: async ({ body: { credential }, caller }) => {
        await checkProvable(ports, credential)
        // Whoever leaves must not leave an account behind: what has begun runs to its end, which is bounded.
        const running = (told: Told): Promise<ProofReport> =>
          ports.prove(credential, new AbortController().signal, told)
        const steps = stepByStep(told => proof(ports, credential, caller.name, running, told))
        return { contentType: proofLines, live: true, chunks: jsonLines(steps) }
      }
    })
  ]
}

type Told = NonNullable<Parameters<Prove>[2]>

async function checkProvable(ports: ApiPorts, credential: string): Promise<string> {
  const row = await ports.resources.get('credential', credential)
  const named = `credential ${quote(credential)}`
  if (row === undefined) throw new SallyportError('not-found', { detail: `no ${named}` })
  const { target, jit } = row.spec as Credential
  if (jit?.enabled === true) return target
  throw new SallyportError('invalid', { problems: [`${named} has no jit that is enabled`] })
}

/** A proof with its two audit events. */
async function proof(
  ports: ApiPorts, credential: string, by: string, run: (told: Told) => Promise<ProofReport>,
  told: Told = () => undefined
): Promise<ProofReport> {
  const target = await checkProvable(ports, credential)
  await ports.audit.append('template.proving', by, credential, { target })
  const report = await run(told)
  await ports.audit.append('template.proved', by, credential, { passed: report.passed })
  return report
}

type Step = ProofReport['steps'][0]
type ProofLine =
  | Step & { kind: 'step' }
  | { kind: 'end', passed: boolean }
  | { kind: 'failed', error: ErrorJson }

/** Steps as they come, then the end: the verdict, or why there is none. */
async function* stepByStep(run: (told: Told) => Promise<ProofReport>): AsyncGenerator<ProofLine> {
  const steps: Step[] = []
  let heard = Promise.withResolvers<undefined>()
  const end = run(step => {
    steps.push(step)
    heard.resolve(undefined)
  }).then(
    ({ passed }): ProofLine => ({ kind: 'end', passed }),
    (thrown: unknown): ProofLine => {
      const { code, reference, problems, detail } = asSallyportError(thrown)
      const said = code === 'internal' ? {} : { detail }
      const error = { code, message: errorTable[code].client, reference, problems: [...problems], ...said }
      return { kind: 'failed', error }
    })
  for (let shown = 0; ;) {
    const over = await Promise.race([end, heard.promise])
    heard = Promise.withResolvers()
    while (shown < steps.length) yield { kind: 'step', ...steps[shown++]! }
    if (over === undefined) continue
    yield over
    return
  }
}

async function healthOf(
  { resources, health }: ApiPorts, page: ResourcePage
): Promise<z.input<typeof targetHealthShape>[]> {
  const rows = await resources.page('target', page)
  const { queues, last } = health.hooks()
  return rows.map(({ name, spec }) => {
    const { protocol, host, port } = spec as { protocol: string, host: string, port: number }
    // A target whose address was edited has a queue for each; the one that has something to say counts.
    const own = queues.filter(({ target }) => target === name)
    const queue = own.toSorted((one, other) => other.failures - one.failures)[0]
    const before = last.get(name)
    return {
      name, protocol, address: printAddress({ host, port }),
      breaker: queue?.breaker ?? 'closed', failures: queue?.failures ?? 0,
      lastError: queue?.lastError ?? null,
      running: own.reduce((sum, { running }) => sum + running, 0),
      waiting: own.reduce((sum, { waiting }) => sum + waiting, 0),
      last: before === undefined ? null : {
        ...before, at: before.at.toISOString(), error: before.error ?? null,
        tookMs: Math.round(before.tookMs)
      }
    }
  })
}
