// The tools that judge everything else: the test runner, the installer of Debian packages, the CI script and
// the container files. The runner is tried on files that uvu itself lets pass; each must come out as a
// failure with its reason. A runner that believes a bad file makes every other test worthless.
import { spawnSync } from 'node:child_process'
import {
  chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync,
  symlinkSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import type { Machine, Need } from '../tool/services.ts'
import { ensurePackages, missingPackages, programOf } from '../tool/services.ts'
import { costsIn, costsText, inOrder, takeNext } from '../tool/test-schedule.ts'
import { deadlineOf, findFiles, judge, runFile } from '../tool/test.ts'

const root = resolve(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'sallyport-tooling-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const head = "import { test } from 'uvu'\nimport * as assert from 'uvu/assert'\n"
const two = "test('one', () => assert.ok(true))\ntest('two', () => assert.ok(true))\n"
const good = `${head}${two}test.run()\n`
const countLines = '\\n  Total:     5\\n  Passed:    5\\n  Skipped:   0\\n  Duration:  1.00ms\\n\\n'

interface Planted {
  text: string
  /** Of the verdict: passed, failed, and the one reason. */
  expected: [passed: number, failed: number, reason: string]
}

const planted: Record<string, Planted> = {
  'before-throws': {
    text: `${head}test.before(() => { throw new Error('no') })\n${two}test.run()`,
    expected: [0, 2, '2 of 2 did not pass']
  },
  'after-each-throws': {
    text: `${head}test.after.each(() => { throw new Error('no') })\n${two}test.run()`,
    expected: [0, 2, '2 of 2 did not pass']
  },
  'no-run': { text: `${head}${two}`, expected: [0, 1, 'no count'] },
  'no-uvu': { text: 'console.log(1)', expected: [0, 1, 'no count'] },
  'empty': { text: `${head}test.run()`, expected: [0, 1, 'no tests ran'] },
  'only': { text: `${good.replace("test('two'", "test.only('two'")}`, expected: [1, 1, '1 skipped'] },
  'skip': { text: `${good.replace("test('two'", "test.skip('two'")}`, expected: [1, 1, '1 skipped'] },
  'hang': {
    text: `// deadline: 1 s\n${head}test('one', () => new Promise(() => setInterval(Date, 9)))\ntest.run()`,
    expected: [0, 1, 'still running after 1 s']
  },
  'server-left-open': {
    text: `// deadline: 1 s\nimport net from 'node:net'\nnet.createServer().listen(0, '127.0.0.1')\n${good}`,
    expected: [2, 1, 'still running after 1 s']
  },
  'late-rejection': {
    text: `${good}setTimeout(() => { void Promise.reject(new Error('late')) }, 100)`,
    expected: [2, 1, 'exit 1']
  },
  'exits-early': {
    text: `${head}test('one', () => process.exit(0))\n${two}test.run()`, expected: [0, 1, 'exit 1']
  },
  'killed': {
    text: `${good}process.on('exit', () => process.kill(process.pid, 'SIGKILL'))`,
    expected: [2, 1, 'ended by SIGKILL']
  },
  'fails': {
    text: good.replace('assert.ok(true)', "assert.is(1, 2, 'planted')"), expected: [1, 1, 'exit 1']
  },
  'not-typescript': { text: `${good}const = 1`, expected: [0, 1, 'exit 1'] },
  'fails-and-lies': {
    text: `${head}test('one', () => { process.stdout.write('${countLines}'); assert.ok(false) })\ntest.run()`,
    expected: [0, 1, 'exit 1']
  },
  'lies-and-runs-nothing': {
    text: `${head}process.stdout.write('${countLines}')\ntest.run()`, expected: [0, 1, 'no tests ran']
  },
  'leaves-a-child': {
    text: `import { spawn } from 'node:child_process'
      spawn('sleep', ['60'], { stdio: 'ignore' }).unref()\n${good}`,
    expected: [2, 1, 'left processes running']
  }
}

/** A folder with test files in it, from which `uvu` can be imported. */
function plant(name: string, files: Readonly<Record<string, string>>): string {
  const planting = join(folder, name)
  mkdirSync(join(planting, 'test', 'journeys'), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(planting, 'node_modules'))
  for (const [file, text] of Object.entries(files)) writeFileSync(join(planting, 'test', file), text)
  return planting
}

function runRunner(planting: string, ...words: string[]): { lines: string[], status: number | null } {
  const command = [join(root, 'tool/test.ts'), '--in', planting, ...words]
  const run = spawnSync(process.execPath, command, { encoding: 'utf8' })
  return { lines: run.stdout.trimEnd().split('\n'), status: run.status }
}

/** Gone, or a zombie that only waits to be reaped. */
function isGone(pid: number): boolean {
  return !existsSync(`/proc/${pid}/stat`) || /\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}

const runner = suite('tool/test.ts')

for (const [name, { text, expected: [passed, failed, reason] }] of Object.entries(planted)) {
  runner(`a file that ${name} is a failure`, async () => {
    const planting = plant(name, { 'bad.ts': text })
    const [file] = findFiles(planting, [])
    const ended = await runFile(planting, file!)
    const verdict = judge(ended, file!.deadlineSeconds)
    const reasons = verdict.reasons.join(', ')
    assert.equal([verdict.passed, verdict.failed], [passed, failed], `${reasons}\n${ended.output}`)
    assert.ok(verdict.reasons.some(said => said.startsWith(reason)), `${reasons} is not ${reason}`)
  })
}

runner('a hung file is killed with everything that it started', async () => {
  const planting = plant('hung-group', {
    'hung.ts': `// deadline: 2 s
      import { spawn } from 'node:child_process'
      const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 99)'], { stdio: 'inherit' })
      console.log('child', child.pid)`
  })
  const ended = await runFile(planting, findFiles(planting, [])[0]!)
  const pid = Number(/child (\d+)/.exec(ended.output)?.[1])
  assert.ok(ended.late)
  assert.ok(pid > 0 && isGone(pid), `${pid} still runs`)
})

runner('good files pass, and the last line is the count', () => {
  const planting = plant('good', { 'one.ts': good, 'journeys/two.ts': good })
  const { lines, status } = runRunner(planting)
  assert.is(lines.at(-1), '4 passed, 0 failed')
  assert.is(status, 0)
  const slowest = lines.flatMap(line => /^ +\d+\.\d s {2}(test\/.*)$/.exec(line)?.[1] ?? [])
  assert.equal(slowest.sort(), ['test/journeys/two.ts', 'test/one.ts'])
})

runner('one bad file fails the run, is named, and its output is shown', () => {
  const planting = plant('mixed', { 'one.ts': good, 'bad.ts': planted['fails']!.text })
  const { lines, status } = runRunner(planting)
  assert.is(lines.at(-1), '3 passed, 1 failed')
  assert.is(status, 1)
  assert.ok(lines.some(line => line.startsWith('FAIL  test/bad.ts')))
  assert.ok(lines.some(line => line.includes('planted')), 'the message of the assertion is there')
})

runner('words choose files, and a run of nothing is a failure', () => {
  const bad = planted['fails']!.text
  const planting = plant('words', { 'one.ts': good, 'journeys/two.ts': good, 'bad.ts': bad })
  assert.is(runRunner(planting, 'two', 'one').lines.at(-1), '4 passed, 0 failed')
  assert.is(runRunner(planting, 'journeys').lines.at(-1), '2 passed, 0 failed')
  const none = runRunner(planting, 'three')
  assert.is(none.lines.at(-1), '0 passed, 0 failed')
  assert.is(none.status, 1)
  assert.is(runRunner(planting, '--grep').status, 2)
})

runner('a deadline is read from the first lines only', () => {
  assert.is(deadlineOf('// What.\n// deadline: 300 s\n'), 300)
  assert.is(deadlineOf('// What.\n'), 240)
  assert.is(deadlineOf(`${'\n'.repeat(40)}// deadline: 300 s\n`), 240)
  assert.throws(() => deadlineOf('// deadline: 300 s What.\n'), /line of its own/)
})

runner('files that mostly wait run beside others, two run at any rate, and long ones go first', () => {
  const text = costsText(new Map([
    ['short', { seconds: 5, busy: 1 }], ['waits', { seconds: 60, busy: 0.3 }],
    ['heavy', { seconds: 80, busy: 1.5 }], ['waits-too', { seconds: 50, busy: 0.1 }],
    ['long', { seconds: 70, busy: 1 }], ['sleeps', { seconds: 1, busy: 0 }]
  ]))
  const costs = costsIn(text)
  assert.is(costsText(costs), text)
  const files = ['short', 'waits', 'new', 'heavy', 'waits-too', 'long', 'sleeps'].map(path => ({ path }))
  const queue = inOrder(files, costs)
  assert.equal(queue.map(({ path }) => path),
    ['heavy', 'long', 'waits', 'waits-too', 'new', 'short', 'sleeps'])
  const running = new Set<{ path: string }>()
  const start = (): (string | undefined)[] => {
    const started = []
    for (let file = takeNext(queue, running, costs); ; file = takeNext(queue, running, costs)) {
      started.push(file?.path)
      if (file === undefined) return started
      running.add(file)
    }
  }
  const end = (path: string): void => running.forEach(file => file.path === path && running.delete(file))
  assert.equal(start(), ['heavy', 'waits', 'waits-too', 'sleeps', undefined], 'no more than four')
  end('sleeps')
  assert.equal(start(), [undefined], 'the cores have no room')
  end('waits')
  end('waits-too')
  assert.equal(start(), ['long', undefined], 'two at any rate')
  end('heavy')
  assert.equal(start(), ['new', undefined], 'what nobody has measured counts as busy')
  for (const bad of ['5 1', '5 1 two words', 'five 1 file', '5 -1 file']) {
    assert.throws(() => costsIn(bad), /is not 'seconds busy path'/)
  }
})

runner('what a run put into its own folder for temporary files is gone with it', () => {
  const says = "import { tmpdir } from 'node:os'\ntest('says', () => { throw new Error(`in <${tmpdir()}>`) })"
  const planting = plant('temporary', { 'bad.ts': `${head}${says}\ntest.run()` })
  const usual = process.env['TMPDIR']
  const folderOf = (given: string | undefined): string | undefined => {
    delete process.env['TMPDIR']
    if (given !== undefined) process.env['TMPDIR'] = given
    return /in <(.*)>/.exec(runRunner(planting).lines.join())?.[1]
  }
  try {
    const own = folderOf(undefined)
    assert.ok(own === '/tmp' || own !== undefined && !existsSync(own), own)
    assert.is(folderOf(folder), folder, 'whoever gives one has it')
    assert.ok(existsSync(folder))
  } finally {
    delete process.env['TMPDIR']
    if (usual !== undefined) process.env['TMPDIR'] = usual
  }
})

runner('what cannot be removed of a folder in memory fails no run', () => {
  const place = mkdtempSync(join(tmpdir(), 'sallyport-place-'))
  try {
    // No process has such a number.
    const [shut, open] = ['sallyport-test-99999998-shut', 'sallyport-test-99999999-open']
    for (const name of [shut, open, `sallyport-test-${process.pid}-ours`]) mkdirSync(join(place, name))
    writeFileSync(join(place, shut, 'file'), '')
    chmodSync(join(place, shut), 0o500)
    for (const path of [place, join(place, open)]) chmodSync(path, 0o777)
    const text = `import { removeLeftOvers } from ${JSON.stringify(join(root, 'tool/test-folder.ts'))}
      if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534) }
      removeLeftOvers(${JSON.stringify(place)})`
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', text], { encoding: 'utf8' })
    assert.is(run.status, 0, run.stderr)
    assert.equal(readdirSync(place).sort(), [shut, `sallyport-test-${process.pid}-ours`].sort())
  } finally {
    chmodSync(join(place, 'sallyport-test-99999998-shut'), 0o700)
    rmSync(place, { recursive: true })
  }
})

runner('what files take is remembered for the next run, and forgotten with the file', () => {
  const known = ' 9 0.5 test/one.ts\n 9 0.5 test/gone.ts\n'
  const planting = plant('remember', { 'one.ts': good, 'costs.txt': known })
  assert.is(runRunner(planting, '--remember').lines.at(-1), '2 passed, 0 failed')
  const costs = costsIn(readFileSync(join(planting, 'test/costs.txt'), 'utf8'))
  assert.equal([...costs.keys()], ['test/one.ts'])
  assert.ok(costs.get('test/one.ts')!.seconds < 9)
})

runner.run()

const services = suite('tool/services.ts')

interface FakeMachine extends Machine {
  calls: string[]
  /** The cluster setting, as it was at each call. */
  settings: string[]
  /** The policy for services, likewise. */
  policies: string[]
}

function fakeMachine(isRoot: boolean, present: Set<string>): FakeMachine {
  const clusterSetting = join(folder, 'services', 'createcluster.d', 'setting.conf')
  const servicePolicy = join(folder, 'services', 'policy-rc.d')
  const [calls, settings, policies]: [string[], string[], string[]] = [[], [], []]
  return {
    isRoot, clusterSetting, servicePolicy, calls, settings, policies,
    isPresent: path => present.has(path),
    apt: words => {
      calls.push(words.join(' '))
      settings.push(readFileSync(clusterSetting, 'utf8'))
      const refuses = spawnSync(servicePolicy).status === 101
      policies.push(refuses ? 'refuses' : readFileSync(servicePolicy, 'utf8'))
      if (words[0] === 'install') for (const path of ['/usr/bin/psql', '/usr/bin/strace']) present.add(path)
    }
  }
}

services('nothing is asked of the package system while everything is present', () => {
  const machine = fakeMachine(true, new Set(['/usr/bin/psql']))
  ensurePackages(['psql'], machine)
  assert.equal(machine.calls, [])
})

services('root gets what is missing, once for all, and no database cluster with it', () => {
  const machine = fakeMachine(true, new Set())
  ensurePackages(['psql', 'strace'], machine)
  assert.equal(machine.calls, ['update', 'install -y --no-install-recommends postgresql-client-15 strace'])
  assert.equal(new Set(machine.settings), new Set(['create_main_cluster = false\n']))
  assert.not(existsSync(machine.clusterSetting), 'the setting is taken back')
})

services('an installation starts no service, and a machine keeps the policy that it has', () => {
  const machine = fakeMachine(true, new Set())
  ensurePackages(['psql', 'strace'], machine)
  assert.equal(new Set(machine.policies), new Set(['refuses']))
  assert.not(existsSync(machine.servicePolicy), 'ours is taken back')
  writeFileSync(machine.servicePolicy, 'theirs')
  const other = fakeMachine(true, new Set())
  ensurePackages(['psql', 'strace'], other)
  assert.equal(new Set(other.policies), new Set(['theirs']))
  assert.is(readFileSync(machine.servicePolicy, 'utf8'), 'theirs')
  rmSync(machine.servicePolicy)
})

services('another user is told the packages', () => {
  const machine = fakeMachine(false, new Set())
  const named = /as root: apt-get install .* strace libpostgresql-jdbc-java$/
  assert.throws(() => ensurePackages(['strace', 'pgjdbc'], machine), named)
  assert.equal(machine.calls, [])
  assert.throws(() => programOf('strace', machine), /strace is missing: apt-get install strace/)
})

services('a package that does not bring its program is an error', () => {
  const machine = fakeMachine(true, new Set())
  assert.throws(() => ensurePackages(['faketime'], machine), /without the expected program: libfaketime/)
})

services('packages are named once', () => {
  const needs: Need[] = ['postgres-15', 'pgbench', 'java', 'javac']
  const missing = missingPackages(needs, fakeMachine(true, new Set()))
  assert.equal(missing, ['postgresql-15', 'default-jdk-headless'])
})

services.run()

const ci = suite('.ci/run')

/** Runs the script in a folder of its own, with an npm that only does as `script` says. */
function runCi(name: string, script: string): { lines: string[], status: number | null, calls: string } {
  const place = join(folder, name)
  mkdirSync(join(place, '.ci'), { recursive: true })
  copyFileSync(join(root, '.ci/run'), join(place, '.ci/run'))
  writeFileSync(join(place, 'npm'), `#!/bin/sh\necho "$PWD $*" >> '${place}/calls'\n${script}\n`)
  for (const file of ['npm', '.ci/run']) chmodSync(join(place, file), 0o755)
  const env = { ...process.env, PATH: `${place}:${process.env['PATH']}` }
  const run = spawnSync(join(place, '.ci/run'), { cwd: '/', env, encoding: 'utf8' })
  const calls = readFileSync(join(place, 'calls'), 'utf8').replaceAll(place, '.')
  return { lines: run.stdout.trimEnd().split('\n'), status: run.status, calls }
}

ci('runs ci, test and check, and says the count last', () => {
  const script = 'echo "7 passed, 0 failed"; [ "$1" = test ] || echo "said $1"'
  const { lines, status, calls } = runCi('ci-good', script)
  assert.is(calls, '. ci\n. test\n. run check\n')
  assert.equal(lines.slice(-2), ['said run', '7 passed, 0 failed'])
  assert.is(status, 0)
})

ci('fails when any of them fails, and still says the count last', () => {
  for (const failing of ['ci', 'test', 'run']) {
    const count = failing === 'test' ? '6 passed, 1 failed' : '7 passed, 0 failed'
    const script = `[ "$1" = test ] && echo '${count}'; [ "$1" != ${failing} ]`
    const { lines, status } = runCi(`ci-${failing}`, script)
    assert.is(lines.at(-1), failing === 'ci' ? '0 passed, 1 failed' : count)
    assert.is(status, 1, failing)
  }
})

ci('a test run that breaks off is a failure, whatever it exits with', () => {
  const { lines, status } = runCi('ci-broken', 'echo "12 passed"')
  assert.is(lines.at(-1), '0 passed, 1 failed')
  assert.is(status, 1)
})

ci.run()

const containers = suite('Dockerfile and docker-compose.yml')

interface Compose {
  services: Record<string, {
    image?: string
    build?: unknown
    ports?: string[]
    networks?: string[]
    hostname?: string
    volumes?: string[]
    depends_on?: Record<string, unknown>
    environment?: Record<string, string>
  }>
  networks: Record<string, unknown>
  volumes: Record<string, unknown>
  configs: Record<string, { content: string }>
}

const compose = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8')) as Compose

containers('the compose file has two nodes, their store and Redis, and a target of each kind', () => {
  const entries = compose.services
  assert.equal(Object.keys(entries).sort(), [
    'proxy', 'proxy-two', 'redis', 'store', 'target-postgres', 'target-ssh'
  ])
  assert.match(entries['store']!.image!, /^postgres:1[5-9]/)
  assert.match(entries['target-postgres']!.image!, /^postgres:1[5-9]/)
  assert.match(entries['redis']!.image!, /^redis:/)
  assert.ok(entries['target-ssh']!.build !== undefined)
})

containers('whatever a service refers to is there, and only the nodes are reached, on loopback', () => {
  for (const [name, service] of Object.entries(compose.services)) {
    const missing = [
      ...Object.keys(service.depends_on ?? {}).filter(other => !(other in compose.services)),
      ...(service.networks ?? []).filter(network => !(network in compose.networks)),
      ...(service.volumes ?? []).filter(volume => !(volume.split(':')[0]! in compose.volumes))
    ]
    assert.equal(missing, [], name)
    for (const port of service.ports ?? []) {
      assert.ok(name.startsWith('proxy') && port.startsWith('127.0.0.1:'), port)
    }
    for (const [key, value] of Object.entries(service.environment ?? {})) {
      if (/PASSWORD|STORE/.test(key)) assert.match(value, /\$\{(STORE|TARGET)_PASSWORD:\?/, `${name} ${key}`)
    }
  }
})

containers('the settings of the proxy in the compose file are YAML and listen where the ports lead', () => {
  const settings = parse(compose.configs['sallyport']!.content) as { listen: Record<string, string | null> }
  const listened = Object.values(settings.listen).filter(address => address !== null)
  for (const node of ['proxy', 'proxy-two']) {
    const inside = compose.services[node]!.ports!.map(port => port.split(':').at(-1))
    assert.equal(listened.map(address => address.split(':')[1]), inside)
  }
})

containers('each node of the compose file says an address of its own to the other', () => {
  for (const name of ['proxy', 'proxy-two']) {
    const { hostname, networks } = compose.services[name]!
    // Within a network a service is called by its name, and the address is made of the host's.
    assert.equal([hostname, networks?.includes('inside')], [name, true])
  }
  const { listen } = parse(compose.configs['sallyport']!.content) as { listen: { http: string } }
  assert.match(listen.http, /^0\.0\.0\.0:/)
})

containers('the image runs as another user than root, and copies only what exists', () => {
  const lines = readFileSync(join(root, 'Dockerfile'), 'utf8').split('\n')
  const from = lines.filter(line => line.startsWith('FROM '))
  assert.ok(from.length > 0)
  for (const line of from) assert.match(line, /^FROM node:24[\w.-]*( AS build)?$/, 'and names no host')
  const user = lines.findIndex(line => line === 'USER node')
  assert.ok(user > 0 && user < lines.findIndex(line => line.startsWith('CMD ')))
  const copied = lines.filter(line => /^COPY (?!--from=build )/.test(line))
    .flatMap(line => line.split(' ').slice(1, -1))
  const allowed = readFileSync(join(root, '.dockerignore'), 'utf8').split('\n')
  for (const path of copied) {
    assert.ok(existsSync(join(root, path)), path)
    assert.ok(allowed.includes(`!${path}`), `.dockerignore keeps ${path} away`)
  }
})

containers.run()
