/** One number's connection to WhatsApp: from the first code to the last reconnect. */
import { EventEmitter, once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeCache } from '@cacheable/node-cache';
import type { ConnectionState, MessageUpsertType, WAMessage, WAMessageUpdate } from 'baileys';
import type { Logger } from 'pino';
import { AuthStore } from './auth.js';
import { Troubles } from './endings.js';
import type { Ending } from './endings.js';
import { phoneOf } from './jid.js';
import type { Lease } from './lease.js';
import { Refusal } from './refusal.js';
import type { Line } from './sending.js';
import { codeOf } from './socket.js';
import type { OpenSocket, SocketOptions, WhatsAppSocket } from './socket.js';
import type { Standing } from './standing.js';
import type { SealedFolder } from './vault.js';

export type State = 'connecting' | 'qr' | 'open' | 'closed' | 'logged_out' | 'banned';

export interface Code {
  code: string;
  /** Unix seconds. */
  expires_at: number;
}

/** Who hears what comes over the connection. What these throw is logged, and never reaches Baileys. */
export interface Listener {
  /** The state, a code or the restriction may be another. */
  changed(): void;
  message(message: WAMessage, type: MessageUpsertType): void;
  update(update: WAMessageUpdate): void;
}

/** A connection that was open for so long counts as good, and what went wrong before it no longer counts. */
const STEADY_MS = 60_000;
/** How long a code lives, in s: the first 60, each of the five after it 20 (Baileys, Socket/socket.js, `genPairQR`). */
const FIRST_QR_S = 60;
const NEXT_QR_S = 20;
const CODES_S = FIRST_QR_S + 5 * NEXT_QR_S;
const QR_WAIT_MS = 20_000;
const LOGOUT_WAIT_MS = 3000;
const RETRIES_S = 3600;

export class Connection implements Line {
  readonly #stop = new AbortController();
  readonly #changes = new EventEmitter();
  readonly #retries = new NodeCache<never>({ stdTTL: RETRIES_S, useClones: false });
  #auth: AuthStore | null = null;
  #socket: WhatsAppSocket | null = null;
  /** Raised whenever a socket is given up, so that what it still says is not heard. */
  #number = 0;
  #openedAt = 0;
  #troubles = new Troubles();
  #retry: NodeJS.Timeout | undefined;
  #retryAt = 0;
  #state: State = 'closed';
  #qr: Code | null = null;
  #pairingCode: Code | null = null;

  constructor(
    private readonly session: string,
    private readonly login: SealedFolder,
    private readonly standing: Standing,
    private readonly lease: Lease,
    private readonly open: OpenSocket,
    private readonly getMessage: SocketOptions['getMessage'],
    private readonly listener: Listener,
    private readonly log: Logger,
  ) {}

  get state(): State {
    return this.#state;
  }

  get codes(): { qr: Code | null; pairing_code: Code | null } {
    return { qr: this.#qr, pairing_code: this.#pairingCode };
  }

  get restrictedUntil(): number | null {
    return this.standing.restrictedUntil;
  }

  get stop(): AbortSignal {
    return this.#stop.signal;
  }

  socket(): WhatsAppSocket {
    if (!this.lease.held) throw new Refusal('not_owner', 'the lease of this session is lost', 1000);
    if (this.#state !== 'open' || this.#socket === null) throw this.#notConnected();
    return this.#socket;
  }

  /** Connect, unless a person must step in first. */
  start(): void {
    const { halted } = this.standing.facts;
    if (halted === null) this.#connect();
    else this.#become(halted);
  }

  /** Connect anew; a number that was logged out or banned tries again. */
  restart(): void {
    this.#hangUp();
    this.#troubles = new Troubles();
    this.standing.change({ halted: null, last_error: null });
    this.#connect();
  }

  /** Ask WhatsApp for a code to be typed on the telephone `phone` (digits). Throws Refusal, or what Baileys throws. */
  async pair(phone: string): Promise<void> {
    if (this.#state === 'open') throw new Refusal('already_open', 'the session is open');
    const isHalted = this.standing.facts.halted !== null;
    if (!isHalted && this.#auth?.paired) {
      throw new Refusal('not_connected', 'paired, and connects again; log it out first', this.#retryInMs());
    }
    // A login that is no longer taken would only be tried again.
    if (isHalted) this.login.empty();
    // Afresh, so that the code lives as long as WhatsApp lets it.
    this.restart();
    const number = this.#number;
    if (!(await this.#untilQr(number))) throw this.#notConnected();
    const expires = Math.floor(Date.now() / 1000) + CODES_S;
    const code = await this.#socket?.requestPairingCode(phone);
    if (!code || number !== this.#number) throw this.#notConnected();
    this.#pairingCode = { code, expires_at: expires };
    this.listener.changed();
  }

  /** Unlink the device, as far as WhatsApp can be reached, and delete the login. */
  async logout(): Promise<void> {
    await this.unlink();
    this.#halt('logged_out', null);
  }

  /** Unlink the device, as far as WhatsApp can be reached, and hang up. */
  async unlink(): Promise<void> {
    const socket = this.#state === 'open' ? this.#socket : null;
    if (socket !== null) {
      this.#number++;
      await Promise.race([socket.logout(), delay(LOGOUT_WAIT_MS)]).catch(() => {});
    }
    this.#hangUp();
  }

  /** Hang up for good; the login stays. */
  close(): void {
    this.#hangUp();
    this.#stop.abort();
    this.#retries.close();
  }

  #connect(): void {
    clearTimeout(this.#retry);
    const number = ++this.#number;
    try {
      const auth = new AuthStore(this.login, () => number === this.#number && this.lease.held);
      this.#auth = auth;
      this.#become('connecting');
      const { session, getMessage, log } = this;
      this.#socket = this.open({ session, auth, getMessage, retries: this.#retries, log });
      this.#listen(this.#socket, auth, number);
    } catch (error) {
      this.log.error({ reason: (error as Error).message }, 'the connection could not be begun');
      this.#ended(null);
    }
  }

  /** Hear what a socket says for as long as it is the one in use; one thing that fails does not take others with it. */
  #listen(socket: WhatsAppSocket, auth: AuthStore, number: number): void {
    const hear = (what: () => void): void => {
      if (number !== this.#number) return;
      try {
        what();
      } catch (error) {
        this.log.error({ reason: (error as Error).message }, 'what WhatsApp said could not be kept');
      }
    };
    socket.ev.on('creds.update', (update) => {
      hear(() => {
        Object.assign(auth.creds, update);
        auth.saveCreds();
      });
    });
    socket.ev.on('connection.update', (update) => hear(() => this.#hear(update)));
    socket.ev.on('messages.upsert', ({ messages, type }) => {
      for (const message of messages) hear(() => this.listener.message(message, type));
    });
    socket.ev.on('messages.update', (updates) => {
      for (const update of updates) hear(() => this.listener.update(update));
    });
  }

  #hear(update: Partial<ConnectionState>): void {
    // Who slept through its lease must not delete, on an old 401, the login that another now uses.
    if (!this.lease.held) return this.#hangUp();
    if (update.isNewLogin) this.standing.change({ paired_at: Date.now() / 1000 });
    if (update.qr) {
      const lifeS = this.#qr === null ? FIRST_QR_S : NEXT_QR_S;
      this.#qr = { code: update.qr, expires_at: Math.floor(Date.now() / 1000) + lifeS };
      this.#become('qr');
    }
    if (update.reachoutTimeLock) {
      const { isActive, timeEnforcementEnds: ends } = update.reachoutTimeLock;
      this.standing.change({ restricted_until: isActive && ends ? Math.floor(ends.getTime() / 1000) : null });
      this.listener.changed();
    }
    if (update.connection === 'open') this.#opened();
    if (update.connection === 'close') this.#ended(update.lastDisconnect?.error);
  }

  #opened(): void {
    this.#openedAt = performance.now();
    this.#qr = this.#pairingCode = null;
    const jid = this.#socket?.user?.id;
    const pairedAt = this.standing.facts.paired_at ?? Date.now() / 1000;
    this.standing.change({ phone: jid ? phoneOf(jid) : null, paired_at: pairedAt });
    this.#become('open');
  }

  #ended(error: unknown): void {
    const code = codeOf(error) ?? 428;
    if (this.#state === 'open' && performance.now() - this.#openedAt > STEADY_MS) this.#troubles = new Troubles();
    const ending = this.#troubles.weigh(code, this.#state === 'qr');
    this.log.warn({ code }, ending.message);
    this.#hangUp();
    switch (ending.course) {
      case 'logged_out':
      case 'banned':
        return this.#halt(ending.course, ending);
      case 'at_once':
        return this.#connect();
      default:
        return this.#connectLater(ending);
    }
  }

  #connectLater(ending: Ending): void {
    const waitMs = this.#troubles.waitMs(ending.course);
    this.#retryAt = performance.now() + waitMs;
    this.#retry = setTimeout(() => this.#connect(), waitMs).unref();
    this.#fault(ending);
    this.#become('closed');
  }

  #halt(state: 'logged_out' | 'banned', ending: Ending | null): void {
    if (state === 'logged_out') {
      this.login.empty();
      this.standing.change({ phone: null, paired_at: null });
    }
    this.standing.change({ halted: state });
    this.#fault(ending);
    this.#become(state);
  }

  #fault(ending: Ending | null): void {
    const at = Math.floor(Date.now() / 1000);
    const fault = ending === null ? null : { code: ending.code, message: ending.message, at };
    this.standing.change({ last_error: fault });
  }

  /** Give the socket up: what it still says or writes no longer counts. */
  #hangUp(): void {
    clearTimeout(this.#retry);
    this.#number++;
    this.#auth?.close();
    const socket = this.#socket;
    this.#socket = null;
    this.#qr = this.#pairingCode = null;
    socket?.end(undefined);
  }

  #become(state: State): void {
    this.#state = state;
    this.log.info({ state }, 'session');
    this.listener.changed();
    this.#changes.emit('change');
  }

  async #untilQr(number: number): Promise<boolean> {
    const signal = AbortSignal.timeout(QR_WAIT_MS);
    while (number === this.#number && this.#state === 'connecting') {
      try {
        await once(this.#changes, 'change', { signal });
      } catch {
        return false;
      }
    }
    return number === this.#number && this.#state === 'qr';
  }

  #notConnected(): Refusal {
    switch (this.#state) {
      case 'logged_out':
        return new Refusal('logged_out', 'the session was logged out and must be paired anew');
      case 'banned':
        return new Refusal('banned', 'WhatsApp barred this number');
      default:
        return new Refusal('not_connected', `the session is ${this.#state}`, this.#retryInMs());
    }
  }

  #retryInMs(): number {
    if (this.#state === 'qr') return 15_000;
    return this.#state === 'closed' ? Math.max(0, this.#retryAt - performance.now()) + 1000 : 1000;
  }
}
