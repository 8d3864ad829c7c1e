// Values of LDAP templates that have a form: the place of new entries, attributes that an admin adds, and
// instants. Whatever has another form is refused before anything is sent.
import { SallyportError } from '../../src/errors.ts'

const attributeForm = /^([A-Za-z][A-Za-z0-9-]{0,63})=([^\0]{1,512})$/
/** The plugin's own. */
const ours = ['uid', 'cn', 'sn', 'description', 'userpassword', 'pwdendtime', 'pwdaccountlockedtime']

/** @throws SallyportError('invalid') for what is no distinguished name of a place for people */
export function assertBase(base: string): void {
  if (/^[A-Za-z][\w-]*=[^,\0]+(?:,\s*[A-Za-z][\w-]*=[^,\0]+)*$/.test(base)) return
  throw new SallyportError('invalid', { detail: 'base is not a distinguished name' })
}

/** `name=value` items as attributes. @throws SallyportError('invalid') */
export function attributesOf(items: readonly string[], reserved = ours): Record<string, string[]> {
  const attributes: Record<string, string[]> = {}
  for (const item of items) {
    const [, name, value] = attributeForm.exec(item) ?? []
    if (name === undefined || value === undefined || reserved.includes(name.toLowerCase())) {
      const detail = 'attributes: an item is not name=value, or is ours to set'
      throw new SallyportError('invalid', { detail })
    }
    const known = name.toLowerCase() === 'objectclass' ? 'objectClass' : name
    attributes[known] = [...attributes[known] ?? [], value]
  }
  return attributes
}

/** GeneralizedTime of an ISO 8601 instant. @throws SallyportError('invalid') */
export function generalized(instant: string): string {
  const ms = Date.parse(instant)
  if (Number.isNaN(ms)) throw new SallyportError('invalid', { detail: '`until` is not an instant' })
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z').replaceAll(/[-:T]/g, '')
}
