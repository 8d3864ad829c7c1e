// What plugins say alike whose system keeps no fence of ours: accounts are created, deleted, opened and
// closed, an account that is shut cannot open itself, and our claim is checked before each step but not
// together with its effect, so that the runner looks before and after (steps.ts).
import type { Action, Plugin } from '../src/jit/plugin.ts'
import { knockAt } from './reach.ts'

export const unfenced = {
  apiVersion: 1,
  actions: new Set<Action>(['create', 'delete', 'enable', 'disable']),
  canEnableItself: false,
  fences: false,
  knock: knockAt
} satisfies Partial<Plugin>
