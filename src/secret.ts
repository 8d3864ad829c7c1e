// A value that must not be printed. Logs, JSON, string templates and the inspector all see `<secret>`;
// the one way in is `expose()`, so that `grep expose` lists every place where a secret is used.
import { inspect } from 'node:util'

const hidden = '<secret>'

export class Secret<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  /** The value itself. Call it at the last moment, as an argument, and never keep the result. */
  expose(): T {
    return this.#value
  }

  toString(): string {
    return hidden
  }

  toJSON(): string {
    return hidden
  }

  [inspect.custom](): string {
    return hidden
  }
}
