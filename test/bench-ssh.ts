// What the SSH benchmark prints of its samples: a wrong ratio would pass for a fast proxy.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { percentile, tableOf } from '../tool/bench-report.ts'
import { bulkRows } from '../tool/bench-ssh.ts'

test('ratios are those of each round with the bastion of the same round', () => {
  const rows = bulkRows(['direct', 'two hops', 'ours'], [
    [{ rate: 200, cpu: NaN }, { rate: 400, cpu: NaN }, { rate: 300, cpu: NaN }],
    [{ rate: 100, cpu: 4 }, { rate: 200, cpu: 2 }, { rate: 150, cpu: 3 }],
    [{ rate: 50, cpu: 2 }, { rate: 200, cpu: 1 }, { rate: 300, cpu: 1 }]
  ])
  assert.equal(rows, [
    ['direct', '300', '-', '-', '0.50'],
    ['two hops', '150', '3.00', '1.00', '1.00'],
    ['ours', '200', '1.00', '0.50', '1.00']
  ])
})

test('a table has a line under its head, and a percentile is one of the values', () => {
  assert.equal(tableOf(['way', 'ms'], [['direct', '1']]), ['| way | ms |', '| --- | --- |', '| direct | 1 |'])
  assert.equal([percentile([3, 1, 2], 50), percentile([3, 1, 2], 99)], [2, 3])
  assert.ok(Number.isNaN(percentile([], 50)))
})

test.run()
