// `templates prove`: both actions of a credential tried on its own target, with an account that belongs to no
// session. A shared account that somebody is using right now is left alone: proving would switch it off.
import type { ProofReport, Prove } from '../api/ports.ts'
import { SallyportError } from '../errors.ts'
import { proveTemplates } from '../jit/prove.ts'
import type { ProofStep } from '../jit/prove.ts'
import { parseTemplate } from '../jit/template.ts'
import { authenticatorOf, specOf } from './accounts.ts'
import { accessOf, addressOf } from './hooks.ts'
import type { Rooms } from './rooms.ts'

// Long enough for both actions at their limits; VALID UNTIL of what a crash would leave behind.
const proofMinutes = 10

export function createProve(rooms: Rooms): Prove {
  return async (name, signal, told) => {
    const { declared, templates, shelf, ledger, hooks, clock } = rooms
    const { credentials, targets } = await declared()
    const credential = credentials.get(name)
    const target = credential === undefined ? undefined : targets.get(credential.target)
    if (credential?.jit === undefined || target === undefined) {
      throw new SallyportError('not-found', { detail: `a credential ${name} with JIT` })
    }
    const shared = credential.jit.type === 'enable-disable'
    // By account, not by credential: another credential may share it.
    const [known] = shared ? await ledger.known(target.name, [credential.username ?? '']) : []
    if (known !== undefined && (known.wanted || known.state !== 'proved-gone')) {
      const problems = [`${known.name} is in use (${known.state}): prove it later`]
      throw new SallyportError('in-use', { problems })
    }
    const kit = { shelf, template: (id: string) => templates.get(id) }
    const spec = await specOf(kit, credential, credential.jit, target)
    const proof = await proveTemplates({
      hooks, signal, told: step => told?.(shown(step)),
      plugin: shelf.plugin(spec.plugin),
      opening: parseTemplate(spec.open.body, spec.open.version),
      closing: parseTemplate(spec.close.body, spec.close.version),
      access: await accessOf(rooms, addressOf(target), authenticatorOf(credential, credential.jit)),
      variables: spec.variables,
      expiresAt: new Date(clock.now().getTime() + proofMinutes * 60_000).toISOString(),
      username: shared ? credential.username : undefined
    })
    return { passed: proof.passed, steps: proof.steps.map(shown) }
  }
}

function shown({ tookMs, ...step }: ProofStep): ProofReport['steps'][0] {
  return { ...step, milliseconds: Math.round(tookMs) }
}
