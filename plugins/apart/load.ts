// Client libraries that only some installations need (`optionalDependencies`): they are loaded when a hook of
// theirs runs, never at start, and a missing one is said in words that name the package.
import { SallyportError } from '../../src/errors.ts'

/** Package and version, as in package.json. */
export const drivers = { tedious: '19.2.2', oracledb: '26.0.0' } as const

/**
 * What the package exports. @throws SallyportError('prerequisite-missing') when it is not installed
 */
export async function loadDriver<Exports>(name: string, version: string): Promise<Exports> {
  try {
    const loaded = await import(name) as { default?: Exports } & Exports
    return loaded.default ?? loaded
  } catch (cause) {
    const detail = `the package ${name} is not installed here: npm install ${name}@${version}`
    throw new SallyportError('prerequisite-missing', { detail, cause })
  }
}
