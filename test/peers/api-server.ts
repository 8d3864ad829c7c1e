// A real HTTPS server of the API over the in-memory ports, in a folder like that of `serve`: certificate,
// configuration, and the file of the local admin. And the command line tool, run as a person runs it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { mintLocalToken, publishLocalAdmin } from '../../src/api/local-admin.ts'
import type { ApiPorts } from '../../src/api/ports.ts'
import { createSallyportApi } from '../../src/api/routes.ts'
import { serveApi } from '../../src/api/server.ts'
import type { ApiServer } from '../../src/api/server.ts'
import { systemClock } from '../../src/clock.ts'
import { selfSignedCertificate } from '../../src/wire/x509.ts'
import { createMemory } from './api-ports.ts'
import type { Memory } from './api-ports.ts'

export interface Place extends AsyncDisposable {
  memory: Memory
  ports: ApiPorts
  server: ApiServer
  url: string
  ca: string
  localToken: string
  /** The folder where `sallyport` is run: holds sallyport.yaml and data. */
  folder: string
  /** Runs `sallyport` there. */
  run(line: readonly string[], how?: RunOptions): Promise<Ran>
}

export interface RunOptions {
  env?: Record<string, string>
  input?: string
  cwd?: string
}

export interface Ran {
  code: number | null
  out: string
  err: string
  json<T = Record<string, unknown>>(): T
}

const entry = fileURLToPath(new URL('../../src/cli/sallyport.ts', import.meta.url))

/** A folder with a configuration; nothing runs there yet. */
export function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-cli-'))
  mkdirSync(join(folder, 'data', 'tls'), { recursive: true, mode: 0o700 })
  mkdirSync(join(folder, 'recordings'))
  writeFileSync(join(folder, 'sallyport.yaml'),
    'listen: { ssh: null, postgres: null, http: "127.0.0.1:0" }\n')
  return folder
}

export async function openPlace(): Promise<Place> {
  const { memory, ports } = createMemory()
  const folder = makeFolder()
  const now = systemClock.now().getTime()
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'test', names: ['127.0.0.1'], validFrom: new Date(now - 60_000),
    validUntil: new Date(now + 3_600_000)
  })
  writeFileSync(join(folder, 'data', 'tls', 'ca.pem'), certificate)
  const localToken = mintLocalToken()
  const app = createSallyportApi(ports, { localToken, loginTokenSeconds: 3600 })
  const keys = { key: privateKey, certificate }
  const server = await serveApi(app, { host: '127.0.0.1', port: 0 }, keys, systemClock)
  await publishLocalAdmin(join(folder, 'data'), localToken, server.address)
  return {
    memory, ports, server, folder, ca: certificate, localToken: localToken.expose(),
    url: `https://127.0.0.1:${server.address.port}`,
    run: (line, how = {}) => run(folder, line, how),
    async [Symbol.asyncDispose]() {
      await server.close(0)
      rmSync(folder, { recursive: true })
    }
  }
}

/**
 * Runs `sallyport` in a folder, with nothing of this process's own environment that could change what it
 * does.
 */
export async function run(folder: string, line: readonly string[], how: RunOptions = {}): Promise<Ran> {
  const child = spawn(process.execPath, [entry, ...line], {
    cwd: how.cwd ?? folder,
    env: { PATH: process.env['PATH'] ?? '', HOME: join(folder, 'home'), ...how.env },
    stdio: ['pipe', 'pipe', 'pipe']
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { err += text })
  // A command that does not read its input may be gone before it is written.
  child.stdin.on('error', () => undefined)
  child.stdin.end(how.input ?? '')
  const [code] = await once(child, 'close') as [number | null]
  return { code, out, err, json: <T>() => JSON.parse(out) as T }
}
