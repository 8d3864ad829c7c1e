// Hostile bytes for everything that makes evidence of an SSH session: whatever comes, a codec throws a
// WireError or nothing, nothing loops, and nothing grows. Seeded: SALLYPORT_FUZZ_SEED chooses another run,
// SALLYPORT_FUZZ_ROUNDS a longer one.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { commandOf } from '../../src/proxy/ssh/command.ts'
import { EchoedInput } from '../../src/proxy/ssh/echo.ts'
import { WireError } from '../../src/wire/error.ts'
import * as wire from '../../src/wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../../src/wire/ssh/data.ts'
import type { SshField } from '../../src/wire/ssh/data.ts'
import { parseChannelRequest } from '../../src/wire/ssh/request.ts'
import { ScpDecoder } from '../../src/wire/ssh/scp.ts'
import { SftpDecoder } from '../../src/wire/ssh/sftp.ts'
import { seeded } from '../peers/recordings.ts'
import { TapeWorld } from '../peers/ssh-tape.ts'

const random = seeded(Number(process.env['SALLYPORT_FUZZ_SEED'] ?? 1))
const rounds = Number(process.env['SALLYPORT_FUZZ_ROUNDS'] ?? 300)

function pick<T>(values: readonly T[]): T {
  return values[random(values.length)]!
}

function noise(lengthMax: number): Buffer {
  return Buffer.from(Array.from({ length: random(lengthMax) }, () => random(256)))
}

/** True when it did what it promises: an answer or a WireError. */
function keepsPromise(act: () => unknown): boolean {
  try {
    act()
    return true
  } catch (thrown) {
    return thrown instanceof WireError
  }
}

/** A message that a client might send, for a channel that may be there. */
function message(): Buffer {
  const channel = pick([0, 1, 100, 101, 4294967295])
  return pick([
    () => wire.channelOpen(pick(['session', 'direct-tcpip', 'x11', 'none']), channel, 1, 1,
      ...pick([[], ['a', 1, 'b', 2], ['a', 1]])),
    () => wire.openConfirmation(channel, pick([0, 100, 101]), 1, 1), () => wire.openFailure(channel, 1, 'x'),
    () => wire.channelData(channel, noise(60)), () => wire.channelStderr(channel, noise(60)),
    () => wire.channelSignal(pick([96, 97, 99, 100]), channel), () => wire.windowAdjust(channel, random(9)),
    () => wire.channelRequest(channel, pick(['shell', 'pty-req', 'env', 'exit-status', 'none']), true,
      ...pick([[], ['a', 'b'], [1], ['xterm', 1, 2, 3, 4, noise(12)]])),
    () => wire.channelRequest(channel, 'exec', false, pick(['id', 'scp -t x', 'scp -f -r x', 'sftp-server'])),
    () => wire.channelRequest(channel, 'subsystem', true, 'sftp'),
    () => wire.globalRequest(pick(['tcpip-forward', 'keepalive@openssh.com']), true, '', 1),
    () => Buffer.of(pick([81, 82])), () => noise(40),
    () => Buffer.concat([Buffer.of(80 + random(21)), noise(40)])
  ])()
}

/** The same with a byte changed, cut off or added. */
function spoiled(payload: Buffer): Buffer {
  const bytes = Buffer.from(payload)
  if (bytes.length > 0) bytes[random(bytes.length)] = random(256)
  return pick([bytes, bytes.subarray(0, random(bytes.length + 1)), Buffer.concat([bytes, noise(5)])])
}

test('decoders answer or throw a WireError', () => {
  const readers = [
    wire.parseChannelOpen, wire.parseGlobalRequest, wire.parseOpenConfirmation, wire.parseOpenFailure,
    wire.recipientOf, wire.dataBytes, wire.extendedDataBytes, wire.extendedDataType, wire.windowAdjustBytes,
    parseChannelRequest
  ]
  for (let round = 0; round < rounds * 10; round++) {
    const payload = spoiled(message())
    for (const reader of readers) assert.ok(keepsPromise(() => reader(payload)), payload.toString('hex'))
  }
})

test('the tape takes any messages in any order', () => {
  for (let round = 0; round < rounds; round++) {
    const world = new TapeWorld({ input: pick(['none', 'echoed', 'all']) })
    for (let number = 0; number < 60; number++) {
      const payload = random(8) === 0 ? spoiled(message()) : message()
      const act = random(2) === 0 ? () => world.client(payload) : () => world.target(payload)
      assert.ok(keepsPromise(act), payload.toString('hex'))
    }
    world.tape.end()
    for (const event of world.recording.events()) assert.type(event['type'], 'string')
  }
})

test('typed bytes are kept or counted, each once', () => {
  for (let round = 0; round < rounds; round++) {
    let [typed, settled] = [0, 0]
    const echo = new EchoedInput({
      kept: line => { settled += line.length }, dropped: bytes => { settled += bytes }
    })
    for (let number = 0; number < 40; number++) {
      const keys = pick(['ls', '\r', '\x7f', '\x1b[A', 'a\nb\r'])
      const bytes = random(9) === 0 ? noise(6000) : Buffer.from(keys)
      if (random(2) === 0) {
        typed += bytes.length
        echo.typed(bytes)
      } else {
        echo.shown(bytes)
      }
    }
    echo.end()
    assert.is(settled, typed)
  }
})

/** A packet of SFTP: right, or nearly. */
function sftpPacket(): Buffer {
  const fields = pick<SshField[]>([
    [], [1], [random(4), '/x'], [random(4), '/x', 26, 0], [random(4), 'h'],
    [random(4), 'h', 0, random(99), 'data'],
    [random(4), 'h', 0, random(99), 32768], [random(4), 0, 'no', ''], [random(4), noise(80)],
    [random(4), 'posix-rename@openssh.com', '/a', '/b'], [random(4), '/a', '/b']
  ])
  const body = Buffer.concat([Buffer.of(pick([1, 3, 4, 5, 6, 9, 11, 13, 18, 101, 102, 103, 104, 200])),
    sshFields(...fields)])
  return Buffer.concat([sshUint32(body.length), body])
}

test('the decoders of transfers take any bytes in any pieces, and tell the same', () => {
  for (let round = 0; round < rounds; round++) {
    const steps = Array.from({ length: 30 }, () => {
      const scp = pick(['C0644 3 a\n', 'abc\0', '\0', 'D0755 0 d\n', 'E\n', 'T1 0 1 0\n', '\x01no\n'])
      const byte = random(40) === 0 ? noise(9) : Buffer.alloc(0)
      return { client: random(2) === 0, sftp: Buffer.concat([sftpPacket(), byte]), scp: Buffer.from(scp) }
    })
    const run = (lengthMax: number): unknown[] => {
      const told: unknown[] = []
      const tell = (what: unknown): void => void told.push(what)
      const listener = { file: tell, undecodable: tell }
      const sftp = new SftpDecoder(listener)
      const scp = new ScpDecoder(listener, 'upload', '/t')
      for (const step of steps) {
        for (let at = 0; at < step.sftp.length; at += lengthMax) {
          const piece = Buffer.from(step.sftp.subarray(at, at + lengthMax))
          if (step.client) assert.is(sftp.fromClient(piece), undefined)
          else sftp.fromServer(piece)
        }
        for (let at = 0; at < step.scp.length; at += lengthMax) {
          const piece = step.scp.subarray(at, at + lengthMax)
          if (step.client) scp.fromClient(piece)
          else scp.fromTarget(piece)
        }
      }
      sftp.end()
      scp.end()
      return told
    }
    assert.equal(run(1 + random(20)), run(100_000))
  }
})

test('what a judge lets pass is what came, byte for byte, in any pieces', () => {
  for (let round = 0; round < rounds; round++) {
    // Handles and extensions that nobody knows are refused, and so are types beyond these.
    const stream = Buffer.concat(Array.from({ length: 20 }, sftpPacket)
      .filter(packet => packet[4]! > 2 && packet[4]! < 21 && packet[4] !== 10))
    const sftp = new SftpDecoder({ file: () => undefined, undecodable: () => undefined }, () => true)
    const passed: Buffer[] = []
    let fed = 0
    const kept = keepsPromise(() => {
      while (fed < stream.length) {
        const piece = stream.subarray(fed, fed + 1 + random(50))
        passed.push(...sftp.fromClient(piece) ?? [piece])
        fed += piece.length
      }
      passed.push(...sftp.held() ?? [])
    })
    assert.ok(kept)
    const all = Buffer.concat(passed)
    assert.ok(stream.subarray(0, all.length).equals(all))
    if (fed === stream.length) assert.is(all.length, stream.length)
  }
})

test('any text is some command', () => {
  for (let round = 0; round < rounds; round++) {
    const words = ['scp', ' ', '-t', "'", '"', '\\', 'x', ';', 'é']
    const parts = Array.from({ length: random(6) }, () => pick(words))
    assert.type(commandOf(pick([noise(40), Buffer.from(parts.join(''))])).kind, 'string')
  }
  // Nothing of it takes time that grows faster than the text.
  assert.is(commandOf(Buffer.from(`scp -t ${"a'b'".repeat(8000)}`)).kind, 'scp')
})

test.run()
