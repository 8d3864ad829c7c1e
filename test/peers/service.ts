// A service over TLS, as tests stand in for clouds that nobody can run here: a certificate of its own, every
// request with its body read, and an answer from one function. What it was asked is kept, so that a test can
// say what was never sent.
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { systemClock } from '../../src/clock.ts'
import { selfSignedCertificate } from '../../src/wire/x509.ts'

export interface Asked {
  method: string
  path: string
  query: URLSearchParams
  /** As it stood in the request line. */
  url: string
  headers: IncomingHttpHeaders
  body: string
}

export interface Said {
  status: number
  body?: string | object
  headers?: Record<string, string>
  /** The connection ends instead of an answer; what was asked has happened. */
  lost?: boolean
}

export interface Service extends AsyncDisposable {
  host: string
  port: number
  /** PEM. */
  ca: string
  asked: Asked[]
}

export async function startService(
  names: readonly string[], answer: (asked: Asked) => Said
): Promise<Service> {
  const now = systemClock.now().getTime()
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'a service', names: ['127.0.0.1', ...names], validFrom: new Date(now - 3_600_000),
    validUntil: new Date(now + 3_600_000)
  })
  const asked: Asked[] = []
  const server = createServer({ cert: certificate, key: privateKey }, (request, response) => {
    let body = ''
    request.setEncoding('utf8')
    request.on('data', (chunk: string) => { body += chunk })
    request.on('end', () => {
      const url = request.url ?? ''
      const [path = '', query = ''] = url.split('?', 2)
      const { method = '', headers } = request
      const asks = new URLSearchParams(query)
      const one = { method, path: decodeURIComponent(path), query: asks, url, headers, body }
      asked.push(one)
      const said = answer(one)
      if (said.lost === true) return void request.socket.destroy()
      const text = typeof said.body === 'object' ? JSON.stringify(said.body) : said.body ?? ''
      const type = typeof said.body === 'object' ? 'application/json' : 'text/xml'
      response.writeHead(said.status, { 'content-type': type, ...said.headers }).end(text)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    host: '127.0.0.1', port: (server.address() as AddressInfo).port, ca: certificate, asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await Promise.resolve()
    }
  }
}
