// The routes of `sallyport connect`, a ticket for the listener of TCP targets, and of sessions in a page of
// the console, a ticket for one more WebSocket. Whether its caller may open the credential is decided there,
// as for every session, and not here; a ticket only says who comes.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import type { ApiPorts } from './ports.ts'
import { everyone, route } from './route.ts'
import { browserTicketShape, ticketShape } from './shapes.ts'

export function connectRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'post', path: '/connections', roles: everyone,
      summary: 'A ticket for one session with a TCP target, to be brought to the listener within moments.',
      body: z.strictObject({ credential: z.string().min(1).max(256) }),
      response: ticketShape, issues: ({ expiresAt }) => `a ticket that ended at ${expiresAt}`,
      run: async ({ body: { credential }, caller }) => {
        const { policy } = ports
        const user = (await policy.declared()).users.get(caller.name)
        if (caller.how === 'local' || user === undefined) {
          const problem = 'only people with a grant open targets: run `sallyport login` as one of them'
          throw new SallyportError('not-allowed', { problems: [problem] })
        }
        const login = policy.readLoginName(`${user.name}+${credential}`)
        if (login === undefined) {
          throw new SallyportError('invalid', { problems: [`credential: ${quote(credential)} is no name`] })
        }
        const door = ports.tunnel()
        if (door === undefined) {
          const detail = 'this node takes no connections to TCP targets (listen.tcp)'
          throw new SallyportError('not-found', { detail })
        }
        const { ticket, expiresAt } = door.issue(user.name, policy.printLoginName(login))
        return { ticket, expiresAt: expiresAt.toISOString(), host: door.host, port: door.port }
      }
    }),
    route({
      method: 'post', path: '/browser/tickets', roles: everyone,
      summary: 'A ticket for one session in a page of the console, to be brought to its WebSocket at once.',
      response: browserTicketShape,
      run: async ({ caller, cookie }) => {
        const { policy } = ports
        const user = (await policy.declared()).users.get(caller.name)
        const { family } = caller
        if (cookie.token === undefined || family === undefined) {
          throw new SallyportError('not-found', { detail: 'no cookie' })
        }
        if (user === undefined) {
          const problem = 'only people with a grant open targets, from a page of the console'
          throw new SallyportError('not-allowed', { problems: [problem] })
        }
        const { ticket, expiresAt } = ports.browserTicket(user.name, family)
        return { ticket, expiresAt: expiresAt.toISOString() }
      }
    })
  ]
}
