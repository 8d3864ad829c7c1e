// Requests for access over a plain list, for tests of the API that are about who may do what; the store's own
// are in test/requests.ts.
import type { RequestPort, RequestRow, RequestVerdict } from '../../src/api/ports-records.ts'
import { systemClock } from '../../src/clock.ts'
import { SallyportError } from '../../src/errors.ts'

export function requestsOf(rows: RequestRow[]): RequestPort {
  const changed = (
    id: string, verdict: RequestRow['decisions'][0]['verdict'], { by, reason = '' }: RequestVerdict,
    more: (row: RequestRow) => Partial<RequestRow>
  ): Promise<RequestRow> => {
    const row = rows.find(each => each.id === id)
    if (row === undefined) return Promise.reject(new SallyportError('not-found'))
    row.decisions = [...row.decisions, { by, verdict, reason, at: systemClock.now() }]
    return Promise.resolve(Object.assign(row, more(row)))
  }
  return {
    create: ({ reason = null, origin: _origin, ...request }) => {
      const at = systemClock.now()
      const row: RequestRow = {
        ...request, id: `req-${rows.length + 1}`.padEnd(8, '0'), reason, createdAt: at, expiresAt: at,
        state: request.emergency ? 'approved' : 'pending', validUntil: null, reviewedAt: null, decisions: []
      }
      rows.push(row)
      return Promise.resolve({ row, isNew: true })
    },
    get: id => Promise.resolve(rows.find(row => row.id === id)),
    list: ({ user, grants = [] }) => Promise.resolve(rows.filter(row =>
      user === undefined || row.user === user || grants.includes(row.grant))),
    approve: (id, verdict, approvers, count) => changed(id, 'approve', verdict, ({ decisions, state }) =>
      ({ state: decisions.filter(({ by }) => approvers.includes(by)).length >= count ? 'approved' : state })),
    deny: (id, verdict) => changed(id, 'deny', verdict, () => ({ state: 'denied' })),
    withdraw: (id, verdict) => changed(id, 'withdraw', verdict, () => ({ state: 'withdrawn' })),
    review: (id, verdict) => changed(id, 'review', verdict, () => ({ reviewedAt: systemClock.now() }))
  }
}
