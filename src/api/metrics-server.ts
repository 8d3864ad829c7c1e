// The figures over plain HTTP for a Prometheus on this machine: `/metrics`, `/healthz`, `/readyz`, nothing
// else, and no token. Only for the machine's own addresses (the configuration refuses others): whoever is
// elsewhere asks the API over TLS, with the metrics token.
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Address } from '../input.ts'
import type { HealthPort } from './ports-records.ts'
import { metricsType } from './routes-health.ts'
import { listening } from './server.ts'

const connectionsMax = 32
const requestSecondsMax = 10

export interface MetricsServer {
  address: Address
  close(): Promise<void>
}

/** Starts listening; rejects as `listening` does. */
export async function serveMetrics(
  health: Pick<HealthPort, 'ready' | 'metrics'>, at: Address
): Promise<MetricsServer> {
  const server = createServer({
    requestTimeout: requestSecondsMax * 1000, headersTimeout: requestSecondsMax * 1000
  }, (request, response) => void answer(health, request, response))
  server.maxConnections = connectionsMax
  return {
    address: await listening(server, at),
    close: () => new Promise<void>(closed => {
      server.close(() => closed())
      server.closeAllConnections()
    })
  }
}

async function answer(
  health: Pick<HealthPort, 'ready' | 'metrics'>, { method, url }: IncomingMessage, response: ServerResponse
): Promise<void> {
  const { status, text, type = 'text/plain; charset=utf-8' } = method === 'GET'
    ? await answerTo(health, url ?? '')
    : { status: 405, text: 'GET only\n' }
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(text)
}

async function answerTo(
  health: Pick<HealthPort, 'ready' | 'metrics'>, url: string
): Promise<{ status: number, text: string, type?: string }> {
  switch (url.split('?')[0]) {
    case '/metrics': return { status: 200, text: await health.metrics(), type: metricsType }
    case '/healthz': return { status: 200, text: 'alive\n' }
    case '/readyz': {
      const isReady = await health.ready().catch(() => false)
      return isReady ? { status: 200, text: 'ready\n' } : { status: 503, text: 'not ready\n' }
    }
    default: return { status: 404, text: 'not found\n' }
  }
}
