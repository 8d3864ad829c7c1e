// The receivers of audit events that the configuration names, each with a courier of its own: one that is
// slow or away holds up nobody else. A receiver that fails is an alarm in the log and in the audit itself,
// at its first failure and when it is over; what it missed it gets then.
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { startCourier } from '../delivery/courier.ts'
import type { AuditEvent, Courier, Receiver } from '../delivery/courier.ts'
import { syslogReceiver } from '../delivery/syslog.ts'
import { webhookReceiver } from '../delivery/webhook.ts'
import { SallyportError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { AuditLog } from '../store/audit.ts'
import type { AuditOutbox, Behind } from '../store/audit-outbox.ts'
import { readGiven } from './given-secret.ts'

export interface Deliveries {
  /** Each receiver with its failure and how far it is behind. */
  look(): Promise<readonly Delivery[]>
  close(): Promise<void>
}

export interface Delivery {
  receiver: string
  failure: string | undefined
  behind: Behind
}

export interface DeliveryPorts {
  config: Pick<Config, 'audit'>
  clock: Clock
  log: Log
  audit: AuditLog
  outbox: AuditOutbox
  version: string
}

const nothing: Behind = { events: 0, oldestSeconds: 0, aside: 0, givenUp: 0, givenUpAt: undefined }

/** Throws `invalid` when a file or a secret that the configuration names is not there. */
export function startDeliveries(ports: DeliveryPorts): Deliveries {
  const couriers = receiversOf(ports).map(receiver => courierOf(ports, receiver))
  return {
    async look() {
      if (couriers.length === 0) return []
      const behind = await ports.outbox.behind()
      return couriers.map(courier => ({
        receiver: courier.receiver, failure: courier.failure(),
        behind: behind.get(courier.receiver) ?? nothing
      }))
    },
    async close() {
      await Promise.all(couriers.map(courier => courier.close()))
      if (couriers.length > 0) await ports.outbox.release().catch(() => undefined)
    }
  }
}

function receiversOf({ config: { audit }, clock, version }: DeliveryPorts): Receiver[] {
  const { syslog, webhooks } = audit
  const toSyslog = syslog === undefined ? [] : [syslogReceiver({
    ...syslog.address, transport: syslog.transport, hostname: hostname(), clock,
    ca: pem(syslog.ca, 'audit.syslog.ca'), certificate: pem(syslog.certificate, 'audit.syslog.certificate'),
    key: pem(syslog.key, 'audit.syslog.key')
  })]
  return [...toSyslog, ...webhooks.map(({ name, url, secret, events, ca }) => webhookReceiver({
    name, url, events, clock, version,
    secret: readGiven(secret, `audit.webhooks ${name}: secret`), ca: pem(ca, `audit.webhooks ${name}: ca`)
  }))]
}

function pem(file: string | undefined, what: string): string | undefined {
  if (file === undefined) return undefined
  try {
    return readFileSync(file, 'utf8')
  } catch {
    const problems = [`${what}: file ${file} cannot be read`]
    throw new SallyportError('invalid', { detail: problems[0], problems })
  }
}

function courierOf({ clock, outbox, log, audit }: DeliveryPorts, receiver: Receiver): Courier {
  const { name } = receiver
  // The event waits for its turn like all others: for other receivers, and for this one when it is back.
  const note = (kind: string, detail: Record<string, unknown>): Promise<void> =>
    audit.append(`audit.${kind}`, 'system', name, detail).catch(() => undefined)
  const about = async (kind: string, event: AuditEvent, why: string, words: string): Promise<void> => {
    const { chain, seq, kind: of } = event
    log.error({ receiver: name, chain, seq, kind: of, why }, words)
    // A receiver that refuses what is said about refusals would make them without end.
    if (!of.startsWith('audit.')) await note(kind, { chain, seq, kind: of, why })
  }
  return startCourier({
    clock, receiver, outbox,
    async alarm(kind, why) {
      if (kind === 'receiver-failing') log.error({ receiver: name, why }, 'audit events are not taken')
      else log.info({ receiver: name }, 'audit events are taken again')
      await note(kind, why === '' ? {} : { why })
    },
    refused: (event, why) => about('event-refused', event, why, 'an audit event is refused, others go on'),
    givenUp: (event, why) => about('event-given-up', event, why, 'an audit event was given up')
  })
}
