// What a page of the console gets, and what it shows to whom. Only the server decides who may do what; here
// it is only about not offering what would be refused.
import type { CallerJson } from '../api/client-types.ts'

export interface PageProps {
  /** The variable parts of its address. */
  parts: readonly string[]
  query: URLSearchParams
  caller: CallerJson
}

export function isWatcher({ roles }: CallerJson): boolean {
  return roles.includes('auditor') || roles.includes('admin')
}

export function isAdmin({ roles }: CallerJson): boolean {
  return roles.includes('admin')
}
