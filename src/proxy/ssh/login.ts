// How a person proves who they are (RFC 4252, 4256): a signature by one of their keys, a certificate of an
// authority, or the password, in a request or as an answer to a question; after that, where a second factor
// is wanted, a one-time code as an answer to one. A key that is only offered proves nothing; the key that
// counts is the one that signed this very connection (its session id). Whatever belongs to another phase ends
// the connection. For a name that nobody has everything looks and takes the same.
import { BlockList, isIPv6 } from 'node:net'
import { SallyportError } from '../../errors.ts'
import { inConsole } from '../../session/confirm.ts'
import type { Challenge, Proof, SecondFactor } from '../../session/front.ts'
import { isCertificateType, readCertificate } from '../../wire/ssh/certificate.ts'
import type { Certificate } from '../../wire/ssh/certificate.ts'
import { SshReader, sshFields, sshUint32 } from '../../wire/ssh/data.ts'
import { blobOf, fingerprintOf, typeOf } from '../../wire/ssh/key.ts'
import { algorithmsOf, verifySignature } from '../../wire/ssh/signature.ts'
import type { Presence } from '../../wire/ssh/signature.ts'
import { verifyPassword } from '../../wire/postgres/verifier.ts'
import type { Mailbox } from './mailbox.ts'
import { transportMessage } from './transport.ts'

export const loginMessage = {
  request: 50, failure: 51, success: 52, banner: 53, keyIsGood: 60, question: 60, answer: 61
} as const

/** OpenSSH's MaxAuthTries: passwords and signatures that were wrong. */
const failuresMax = 6
/** Keys that were offered and are not known: an agent holds many. */
const offersMax = 32
/** All requests of a login together: a stranger who only asks is sent away, too. */
const requestsMax = 64
/** People type no more; also what a verifier is asked to digest. */
const passwordBytesMax = 1024
/** Six digits, and what people put around them. */
const codeBytesMax = 64
/** A login name reaches us before anything is proved. What is longer is cut, and then nobody's name. */
const loginBytesMax = 257
const service = 'ssh-connection'
/** Critical option of OpenSSH: the key must have asked for a PIN. */
const verifyRequired = 'verify-required'
const methods = 'publickey,password,keyboard-interactive'
/** What can still be used once the first factor is proved: only here a question can be asked. */
const secondMethods = 'keyboard-interactive'

/** One line that a client shows before it is logged in. */
export function bannerOf(line: string): Buffer {
  return Buffer.concat([Buffer.of(loginMessage.banner), sshFields(`sallyport: ${line}\r\n`, '')])
}

/** What a login needs of its connection. */
export interface LoginPorts {
  mailbox: Mailbox
  address: string
  send(message: Uint8Array): void
  sessionId(): Uint8Array
  now(): Date
  /** Throws `auth-throttled` when the source has failed too often. */
  admit(): void
  /** A proof that was wrong: counted for the source. */
  failed(): void
}

interface Request {
  login: string
  method: string
  reader: SshReader
  whole: Buffer
}

export class Login {
  readonly #ports: LoginPorts
  #first: Request | undefined
  /** The first factor, once it is proved and a second one is wanted; it stays proved. */
  #proved: Proof | undefined
  #failures = 0
  #offers = 0

  constructor(ports: LoginPorts) {
    this.#ports = ports
  }

  /** The login name of the first request. @throws SallyportError `protocol-violation`, or the mailbox's */
  async claim(): Promise<string> {
    const asked = new SshReader(await this.#ports.mailbox.next())
    if (asked.byte() !== transportMessage.serviceRequest || asked.text() !== 'ssh-userauth') {
      throw violation('expected the request for ssh-userauth')
    }
    this.#ports.send(Buffer.concat([Buffer.of(transportMessage.serviceAccept), sshFields('ssh-userauth')]))
    this.#first = await this.#request()
    return this.#first.login
  }

  /** Undefined when the person ran out of attempts. @throws SallyportError */
  async prove(challenge: Challenge): Promise<Proof | undefined> {
    let request = this.#first ?? await this.#request()
    const { login } = request
    for (let requests = 1; ; requests++) {
      // RFC 4252 allows another name; then what was looked up would be another person's.
      if (request.login !== login) throw violation('the login name changed')
      const proof = await this.#attempt(request, challenge)
      if (proof !== undefined) return proof
      const worn = this.#failures >= failuresMax || this.#offers >= offersMax || requests >= requestsMax
      if (worn) return undefined
      request = await this.#request()
    }
  }

  async #request(): Promise<Request> {
    const whole = await this.#ports.mailbox.next()
    const reader = new SshReader(whole)
    if (reader.byte() !== loginMessage.request) throw violation('expected a request to log in')
    const name = reader.bytes().subarray(0, loginBytesMax)
    if (reader.text() !== service) throw violation('a service that does not exist')
    return { login: name.toString('utf8'), method: reader.text(), reader, whole }
  }

  async #attempt(request: Request, challenge: Challenge): Promise<Proof | undefined> {
    const { method } = request
    const { secondFactor } = challenge
    const asks = method === 'keyboard-interactive'
    if (this.#proved === undefined || secondFactor === undefined) {
      const proof = await this.#firstFactor(request, challenge)
      if (proof === undefined || secondFactor === undefined) return proof
      this.#proved = proof
      // After an answer the code is one more question; after a signature or a password it is another method.
      return asks ? this.#code(proof, secondFactor) : this.#refuse('partial')
    }
    if (asks) return this.#code(this.#proved, secondFactor)
    return this.#refuse(method === 'none' ? '' : 'wrong')
  }

  #firstFactor(request: Request, challenge: Challenge): Promise<Proof | undefined> {
    switch (request.method) {
      case 'publickey': return this.#publicKey(request, challenge)
      case 'password': return this.#password(request, challenge)
      // Without a question: what there is to prove is not to be typed here.
      case 'keyboard-interactive': return challenge.inConsole === true
        ? Promise.resolve({ method: inConsole })
        : this.#question(challenge)
      // What clients ask to learn the methods; it is no attempt.
      case 'none': return this.#refuse('')
      default: return this.#refuse('wrong')
    }
  }

  /** `wrong`: a failed attempt, counted; `offer`: a key that is not known; `partial`: right, but not all. */
  async #refuse(what: '' | 'offer' | 'wrong' | 'partial'): Promise<undefined> {
    if (what === 'offer') this.#offers++
    if (what === 'wrong') {
      this.#failures++
      this.#ports.failed()
      this.#ports.admit()
    }
    const left = this.#proved === undefined ? methods : secondMethods
    this.#ports.send(Buffer.concat([Buffer.of(loginMessage.failure), sshFields(left, what === 'partial')]))
    return undefined
  }

  // ---- passwords

  async #password({ reader }: Request, challenge: Challenge): Promise<Proof | undefined> {
    const changes = reader.boolean()
    const password = reader.text()
    if (changes || !await this.#knows(password, challenge)) return this.#refuse('wrong')
    return { method: 'password' }
  }

  async #question(challenge: Challenge): Promise<Proof | undefined> {
    const password = await this.#ask('Password: ', false)
    if (!await this.#knows(password, challenge)) return this.#refuse('wrong')
    return { method: 'keyboard-interactive' }
  }

  /** The answer to one question; the empty one when there were none or several. */
  async #ask(question: string, echo: boolean): Promise<string> {
    this.#ports.send(Buffer.concat([
      Buffer.of(loginMessage.question), sshFields('', '', ''), sshUint32(1), sshFields(question, echo)
    ]))
    const answer = new SshReader(await this.#ports.mailbox.next())
    if (answer.byte() !== loginMessage.answer) throw violation('expected the answer to a question')
    return answer.uint32() === 1 ? answer.text() : ''
  }

  async #knows(password: string, { verifier }: Challenge): Promise<boolean> {
    this.#ports.admit()
    // HMAC pads its key with zero bytes: with some behind it a password would be the same one.
    if (Buffer.byteLength(password) > passwordBytesMax || password.includes('\0')) return false
    return verifyPassword(password, verifier)
  }

  // ---- the second factor

  async #code({ method }: Proof, { check }: SecondFactor): Promise<Proof | undefined> {
    const code = await this.#ask('One-time code: ', true)
    this.#ports.admit()
    if (Buffer.byteLength(code) > codeBytesMax || !await check(code)) return this.#refuse('wrong')
    // Again: many guesses, each over a connection of its own, may have come at the same moment.
    this.#ports.admit()
    return { method: `${method}, one-time code` }
  }

  // ---- keys

  async #publicKey({ reader, whole }: Request, challenge: Challenge): Promise<Proof | undefined> {
    const signs = reader.boolean()
    const algorithm = reader.text()
    const blob = reader.bytes()
    const known = this.#keyOf(blob, algorithm, challenge)
    if (known === undefined) return this.#refuse('offer')
    if (!signs) {
      this.#ports.send(Buffer.concat([Buffer.of(loginMessage.keyIsGood), sshFields(algorithm, blob)]))
      return undefined
    }
    this.#ports.admit()
    const signedBytes = whole.length - reader.left
    const signature = reader.bytes()
    const data = Buffer.concat([sshFields(this.#ports.sessionId()), whole.subarray(0, signedBytes)])
    const verdict = verifySignature(known.key, known.algorithm, signature, data)
    if (reader.left > 0 || verdict === undefined) return this.#refuse('wrong')
    const { key, certificate } = known
    const lacking = lackingOf(verdict.presence, challenge, certificate)
    if (lacking !== undefined) {
      const line = await challenge.presence?.lacks(lacking, fingerprintOf(key))
      // Said in between: another key of the agent may be the right one.
      if (line !== undefined) this.#ports.send(bannerOf(line))
      return this.#refuse('wrong')
    }
    const by = certificate === undefined ? '' : `, certificate ${certificate.keyId} ${certificate.serial}`
    return { method: `publickey ${fingerprintOf(key)}${by}` }
  }

  /** The plain key that must sign, when this blob may prove the person. */
  #keyOf(
    blob: Buffer, algorithm: string, challenge: Challenge
  ): { key: Buffer, algorithm: string, certificate?: Certificate } | undefined {
    try {
      const type = typeOf(blob)
      if (isCertificateType(type)) return this.#certified(blob, algorithm, challenge)
      if (!algorithmsOf(type).includes(algorithm)) return undefined
      const isKnown = challenge.publicKeys.some(line => blobOf(line).equals(blob))
      return isKnown ? { key: blob, algorithm } : undefined
    } catch {
      return undefined
    }
  }

  /**
   * OpenSSH's rules: an authority that is trusted, this name, this moment, no condition that is not known.
   */
  #certified(
    blob: Buffer, algorithm: string, { authorities, name }: Challenge
  ): { key: Buffer, algorithm: string, certificate: Certificate } | undefined {
    const certificate = readCertificate(blob)
    // Under the name of a plain key it would be another request than the one that was signed.
    const [, base = ''] = /^(.+)-cert-v01@openssh\.com$/.exec(algorithm) ?? []
    const plain = base.startsWith('sk-') ? `${base}@openssh.com` : base
    const now = BigInt(Math.floor(this.#ports.now().getTime() / 1000))
    const holds = certificate.kind === 'user'
      && authorities.some(line => blobOf(line).equals(certificate.authority))
      && certificate.principals.includes(name)
      && certificate.validAfter <= now && now < certificate.validBefore
      && this.#conditionsHold(certificate)
      && algorithmsOf(typeOf(certificate.key)).includes(plain)
    return holds ? { key: certificate.key, algorithm: plain, certificate } : undefined
  }

  #conditionsHold({ criticalOptions }: Certificate): boolean {
    for (const [option, value] of criticalOptions) {
      // What the signature must say is not known yet.
      if (option === verifyRequired) continue
      // A forced command is one for the target, which the person does not log in to.
      if (option !== 'source-address') return false
      if (!comesFrom(this.#ports.address, value)) return false
    }
    return true
  }
}

/**
 * What a right signature does not say and should. A FIDO key that nobody touched may have been used by
 * malware while its owner was away, one that asked for no PIN by whoever found it.
 */
function lackingOf(
  presence: Presence | undefined, { presence: rule }: Challenge, certificate: Certificate | undefined
): 'touch-required' | 'pin-required' | undefined {
  // Here the authority asks for it, of whatever key it certified.
  const certified = certificate?.criticalOptions.has(verifyRequired) === true
  if (certified && presence?.verified !== true) return 'pin-required'
  if (presence === undefined) return undefined
  if ((rule?.touch ?? true) && !presence.touched) return 'touch-required'
  return rule?.pin === true && !presence.verified ? 'pin-required' : undefined
}

/** `addresses`: CIDR, as `ssh-keygen -O source-address` takes it. */
function comesFrom(address: string, addresses: string): boolean {
  const family = (text: string): 'ipv4' | 'ipv6' => isIPv6(text) ? 'ipv6' : 'ipv4'
  const list = new BlockList()
  for (const pattern of addresses.split(',')) {
    const [network = '', bits] = pattern.split('/')
    // Node takes an IPv4 address for one of ::/0; OpenSSH does not.
    if (family(network) !== family(address)) continue
    if (bits === undefined) list.addAddress(network, family(network))
    else list.addSubnet(network, Number(bits), family(network))
  }
  return list.check(address, family(address))
}

function violation(detail: string): SallyportError {
  return new SallyportError('protocol-violation', { detail })
}
