// What machines ask this node at addresses that they expect: whether the process is alive, whether it takes
// sessions, and its figures. The first two are open to anyone and say nothing else; the figures name targets
// and are for auditors, admins and whoever has the token of the configuration.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import type { ApiPorts } from './ports.ts'
import { route, streamRoute, watchers } from './route.ts'

/** As Prometheus wants it. */
export const metricsType = 'text/plain; version=0.0.4; charset=utf-8'

export function healthRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/healthz', atRoot: true, roles: 'anyone',
      summary: 'Whether the process answers: asks nobody else.',
      response: z.object({ status: z.literal('alive') }),
      run: () => Promise.resolve({ status: 'alive' as const })
    }),
    route({
      method: 'get', path: '/readyz', atRoot: true, roles: 'anyone',
      summary: 'Whether this node takes sessions: 503 while the store is away, and during a stop.',
      response: z.object({ status: z.literal('ready') }),
      run: async () => {
        if (await ports.health.ready()) return { status: 'ready' as const }
        throw new SallyportError('shutting-down')
      }
    }),
    streamRoute({
      method: 'get', path: '/metrics', atRoot: true, roles: [...watchers, 'metrics'],
      summary: 'The figures of this node, in the text format of Prometheus.',
      response: { stream: [metricsType] },
      run: async () => ({ contentType: metricsType, chunks: once(await ports.health.metrics()) })
    })
  ]
}

async function* once(text: string): AsyncGenerator<string> {
  yield text
}
