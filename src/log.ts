// The operator's log: one JSON object a line on standard error. What peers said is quoted in it, so every
// control character, C1 byte and bidi override is escaped: a log that is read in a terminal must not act on
// that terminal. Secrets are `Secret`s and print as `<secret>`; there is no redaction by key name to rely on.
import { pino } from 'pino'
import { Secret } from './secret.ts'

export type Fields = Record<string, unknown>

export interface Log {
  info(fields: Fields, message: string): void
  warn(fields: Fields, message: string): void
  error(fields: Fields, message: string): void
}

// JSON.stringify escapes C0 only. U+007F–U+009F act on terminals, the rest reorders or hides text.
const active = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g

export function createLog(level: 'info' | 'warn' | 'error' | 'silent' = 'info'): Log {
  const sink = {
    write: (line: string): void => {
      process.stderr.write(line.replace(active, found =>
        `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`))
    }
  }
  const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, sink)
  const plain = (fields: Fields): Fields => Object.fromEntries(Object.entries(fields).map(([key, value]) =>
    [key, value instanceof Secret ? String(value) : value]))
  return {
    info: (fields, message) => logger.info(plain(fields), message),
    warn: (fields, message) => logger.warn(plain(fields), message),
    error: (fields, message) => logger.error(plain(fields), message)
  }
}
