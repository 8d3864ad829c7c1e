// The plugins of this build: this list is the only way in (J9). No setting, upload or path adds one; whoever
// wants another plugin adds a line here and makes a build of their own.
import type { Plugin } from '../src/jit/plugin.ts'
import { activeDirectory } from './active-directory.ts'
import { aws, azure, gcp } from './cloud.ts'
import { http } from './http.ts'
import { ldap } from './ldap.ts'
import { linux } from './linux.ts'
import { mssql } from './mssql.ts'
import { mysql } from './mysql.ts'
import { oracle } from './oracle.ts'
import { postgres } from './postgres.ts'
import { redis } from './redis.ts'
import { sshCommand } from './ssh-command.ts'

export const shippedPlugins: readonly Plugin[] = [
  postgres, linux, mysql, mssql, oracle, redis, ldap, activeDirectory, http, aws, azure, gcp, sshCommand
]
