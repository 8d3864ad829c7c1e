// Messages of SSH's connection protocol: what is written is read again, and what is a byte short or long is
// refused.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import * as wire from '../src/wire/ssh/connection.ts'
import { encodeTerminalModes, parseChannelRequest, terminalMode } from '../src/wire/ssh/request.ts'

const { sshMessage } = wire
const isWireError = (thrown: unknown): boolean => thrown instanceof WireError

/** Each message and what reads it. */
const samples: [payload: Buffer, read: (payload: Buffer) => unknown, expected: unknown][] = [
  [wire.channelOpen('session', 3, 2097152, 32768), wire.parseChannelOpen,
    { type: 'session', sender: 3, window: 2097152, packetBytesMax: 32768, purpose: { kind: 'session' } }],
  [wire.channelOpen('direct-tcpip', 1, 9, 8, 'db', 5432, '127.0.0.1', 40000),
    payload => wire.parseChannelOpen(payload).purpose,
    { kind: 'direct-tcpip', host: 'db', port: 5432, from: '127.0.0.1', fromPort: 40000 }],
  [wire.channelOpen('direct-streamlocal@openssh.com', 1, 9, 8, '/run/x', '', 0),
    payload => wire.parseChannelOpen(payload).purpose, { kind: 'direct-streamlocal', path: '/run/x' }],
  [wire.channelOpen('forwarded-streamlocal@openssh.com', 1, 9, 8, '/run/x', ''),
    payload => wire.parseChannelOpen(payload).purpose, { kind: 'forwarded-streamlocal', path: '/run/x' }],
  [wire.channelOpen('x11', 1, 9, 8, '10.0.0.1', 6010), payload => wire.parseChannelOpen(payload).purpose,
    { kind: 'x11', from: '10.0.0.1', fromPort: 6010 }],
  [wire.channelOpen('tun@openssh.com', 1, 9, 8, 1, 0), payload => wire.parseChannelOpen(payload).purpose,
    { kind: 'tun', mode: 1, unit: 0 }],
  [wire.openConfirmation(1, 2, 3, 4), wire.parseOpenConfirmation,
    { recipient: 1, sender: 2, window: 3, packetBytesMax: 4 }],
  [wire.openFailure(7, 1, 'no'), wire.parseOpenFailure, { recipient: 7, reason: 1, description: 'no' }],
  [wire.globalRequest('tcpip-forward', true, '', 0), wire.parseGlobalRequest,
    { type: 'tcpip-forward', wantReply: true, purpose: { kind: 'tcpip-forward', host: '', port: 0 } }],
  [wire.windowAdjust(5, 4294967295), wire.windowAdjustBytes, 4294967295],
  [wire.channelData(4294967295, Buffer.from('abc')), wire.dataBytes, 3],
  [wire.channelStderr(5, Buffer.from('abcd')), wire.extendedDataBytes, 4],
  [wire.channelRequest(2, 'shell', true), parseChannelRequest,
    { recipient: 2, type: 'shell', wantReply: true, purpose: { kind: 'shell' } }],
  [wire.channelRequest(2, 'env', false, 'LANG', 'C'), payload => parseChannelRequest(payload).purpose,
    { kind: 'env', name: 'LANG', value: 'C' }],
  [wire.channelRequest(2, 'exit-signal', false, 'TERM', false, 'bye', ''),
    payload => parseChannelRequest(payload).purpose,
    { kind: 'exit-signal', signal: 'TERM', coreDumped: false, message: 'bye' }],
  [wire.channelRequest(2, 'exit-status', false, 255), payload => parseChannelRequest(payload).purpose,
    { kind: 'exit-status', status: 255 }],
  [wire.channelRequest(2, 'x11-req', true, false, 'MIT-MAGIC-COOKIE-1', 'c0ffee', 0),
    payload => parseChannelRequest(payload).purpose,
    { kind: 'x11-req', single: false, protocol: 'MIT-MAGIC-COOKIE-1', screen: 0 }],
  [wire.channelRequest(2, 'break', true, 500), payload => parseChannelRequest(payload).purpose,
    { kind: 'break' }],
  [wire.channelRequest(2, 'window-change', false, 80, 24, 0, 0),
    payload => parseChannelRequest(payload).purpose,
    { kind: 'window-change', size: { columns: 80, rows: 24, widthPixels: 0, heightPixels: 0 } }]
]

test('what is written is read again', () => {
  for (const [payload, read, expected] of samples) assert.equal(read(payload), expected)
})

test('a message that is a byte short or long is refused', () => {
  for (const [payload, read] of samples) {
    for (let length = 0; length < payload.length; length++) {
      const where = `${payload.toString('hex')} ${length}`
      assert.throws(() => read(payload.subarray(0, length)), isWireError, where)
    }
    // An OPEN_CONFIRMATION may have more: its type decides.
    if (payload[0] === sshMessage.openConfirmation) continue
    assert.throws(() => read(Buffer.concat([payload, Buffer.of(0)])), isWireError, payload.toString('hex'))
  }
})

test('the modes of a terminal are read up to their end, and unknown opcodes end them', () => {
  const modes = new Map([[terminalMode.echo, 0], [terminalMode.lineFeed, 1]])
  const payload = (bytes: Buffer): Buffer =>
    wire.channelRequest(0, 'pty-req', true, 'xterm', 100, 30, 0, 0, bytes)
  const modesOf = (bytes: Buffer): unknown => {
    const { purpose } = parseChannelRequest(payload(bytes))
    return purpose.kind === 'pty-req' && [...purpose.modes]
  }
  assert.equal(modesOf(encodeTerminalModes(modes)), [...modes])
  assert.equal(modesOf(Buffer.alloc(0)), [])
  assert.equal(modesOf(Buffer.of(200, 1)), [])
  assert.throws(() => modesOf(Buffer.of(53, 0, 0)), isWireError)
})

test('the recipient is read at its offset, whatever the message is', () => {
  assert.is(wire.recipientOf(wire.channelSignal(sshMessage.close, 4000000000)), 4000000000)
  assert.is(wire.recipientOf(wire.channelData(9, Buffer.alloc(0))), 9)
  assert.is(wire.extendedDataType(wire.channelStderr(5, Buffer.from('abcd'))), wire.stderrType)
  assert.throws(() => wire.recipientOf(Buffer.of(97, 0, 0, 0)), isWireError)
})

test('names that nobody has are refused, unknown ones pass with their name', () => {
  assert.throws(() => wire.parseChannelOpen(wire.channelOpen('x'.repeat(257), 1, 9, 8)), isWireError)
  const unknown = parseChannelRequest(wire.channelRequest(2, 'new@example.org', true, 'anything', 7))
  assert.equal([unknown.type, unknown.purpose.kind], ['new@example.org', 'unknown'])
})

test.run()
