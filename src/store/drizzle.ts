// The one place that loads drizzle and postgres.js. Both come through `require`: as ES modules drizzle
// costs 0.4–0.9 s of CPU at every start (Node re-reads its 178 kB package.json for each of 118 files), by
// require 0.06 s. Everything in this room imports the words of the query builder from here; a direct import
// of 'drizzle-orm' in one more file brings the whole cost back. `import type` is free and stays direct.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const core = require('drizzle-orm/pg-core') as typeof import('drizzle-orm/pg-core')
const words = require('drizzle-orm') as typeof import('drizzle-orm')
const driver = require('drizzle-orm/postgres-js') as typeof import('drizzle-orm/postgres-js')

export const {
  bigint, boolean, index, integer, jsonb, pgTable, primaryKey, text, timestamp, uniqueIndex
} = core

export const {
  and, asc, count, desc, eq, exists, gt, gte, inArray, isNotNull, isNull, lt, lte, max, min, ne, not,
  notExists,
  notInArray, or, sql, DrizzleQueryError
} = words

export const { drizzle } = driver

/**
 * postgres.js: the driver towards the server and, through a socket of our own, towards the embedded store.
 */
export const postgres = require('postgres') as typeof import('postgres')
