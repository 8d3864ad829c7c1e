// Throw-away rsyslog servers for tests: they take syslog over TLS and write what they understood of each
// message to a file, one line each, so that it is rsyslog's reading of it that is looked at.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeCertificates } from './postgres.ts'
import { programOf } from './services.ts'
import { give, startThrowaway } from './throwaway.ts'
import type { Throwaway } from './throwaway.ts'

export interface RsyslogServer extends Throwaway {
  /** PEM of the authority. */
  readonly caFile: string
  /** Facility, severity, application, kind, structured data and text of each message. */
  lines(): string[][]
}

const configuration = (base: string, port: number): string => `
global(workDirectory="${base}" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile="${base}/ca.crt" defaultNetstreamDriverCertFile="${base}/server.crt"
  defaultNetstreamDriverKeyFile="${base}/server.key")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="${port}")
template(name="read" type="string" string="%syslogfacility-text%\\t%syslogseverity-text%\\t%app-name%\\t\
%msgid%\\t%structured-data%\\t%msg%\\n")
action(type="omfile" file="${base}/messages" template="read")
`

export async function startRsyslog(): Promise<RsyslogServer> {
  const file = (base: string): string => join(base, 'rsyslog.conf')
  const server = await startThrowaway({
    prepare(place) {
      makeCertificates(place.base, place.base, place.account)
      for (const name of ['ca.crt', 'rsyslog.conf']) {
        if (name === 'rsyslog.conf') writeFileSync(file(place.base), configuration(place.base, place.port))
        give(join(place.base, name), place)
      }
    },
    command: ({ base }) => [programOf('rsyslogd'), '-n', '-iNONE', '-f', file(base)]
  })
  programOf('rsyslog-openssl')
  const messages = join(server.base, 'messages')
  return {
    ...server,
    caFile: join(server.base, 'ca.crt'),
    lines: () => existsSync(messages)
      ? readFileSync(messages, 'utf8').trimEnd().split('\n').map(line => line.split('\t'))
      : []
  }
}
