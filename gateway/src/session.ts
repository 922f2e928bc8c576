/** One WhatsApp number: its connection, from the first code to the last reconnect. */
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeCache } from '@cacheable/node-cache';
import type { BaileysEventMap, ConnectionState, WAMessageUpdate } from 'baileys';
import type { Logger } from 'pino';
import { AuthStore } from './auth.js';
import { Contacts } from './contacts.js';
import { readMessage } from './inbound.js';
import type { Acceptance } from './inbound.js';
import { phoneOf } from './jid.js';
import type { Lease } from './lease.js';
import { Outbox } from './outbox.js';
import { Pacer } from './pacing.js';
import { Refusal } from './refusal.js';
import { Seen } from './seen.js';
import { Sender } from './sending.js';
import type { Answer, Line } from './sending.js';
import { Sends } from './sends.js';
import type { Order } from './sends.js';
import type { Settings } from './settings.js';
import { codeOf } from './socket.js';
import type { OpenSocket, WhatsAppSocket } from './socket.js';
import { Statuses } from './statuses.js';
import { SealedFolder } from './vault.js';

export type State = 'connecting' | 'qr' | 'open' | 'closed' | 'logged_out' | 'banned';

export interface SessionConfig {
  webhook_url: string;
  webhook_secret: string;
  label: string | null;
}

interface Code {
  code: string;
  /** Unix seconds. */
  expires_at: number;
}

interface Fault {
  code: string;
  message: string;
  /** Unix seconds. */
  at: number;
}

/** The session as docs/qr-gateway.md, "Calls", shows it. */
export interface SessionView {
  id: string;
  label: string | null;
  state: State;
  phone: string | null;
  qr: Code | null;
  pairing_code: Code | null;
  restricted_until: number | null;
  last_error: Fault | null;
  waiting_events: number;
}

/** What must survive a restart, beside the login. */
interface Standing {
  phone: string | null;
  paired_at: number | null;
  /** Where nothing connects by itself. */
  halted: 'logged_out' | 'banned' | null;
  restricted_until: number | null;
  last_error: Fault | null;
}

type Ending = 'at_once' | 'back_off' | 'yield' | 'once_more' | 'logged_out' | 'banned';

/** What is done when a connection ends: contracts §3.6, "DisconnectReason". Every other code backs off. */
const ENDINGS: Record<number, { ending: Ending; code: string; message: string }> = {
  401: { ending: 'logged_out', code: 'logged_out', message: 'WhatsApp or the telephone ended this login' },
  402: { ending: 'banned', code: 'temporarily_banned', message: 'WhatsApp barred this number for a time' },
  403: { ending: 'banned', code: 'banned', message: 'WhatsApp barred this number' },
  405: { ending: 'yield', code: 'client_outdated', message: 'WhatsApp refuses this version: see GATEWAY_WA_VERSION' },
  406: { ending: 'logged_out', code: 'login_refused', message: 'WhatsApp no longer takes this login' },
  408: { ending: 'back_off', code: 'connection_lost', message: 'the connection was lost, or nobody scanned the code' },
  411: { ending: 'logged_out', code: 'multidevice_mismatch', message: 'the telephone must be updated and paired anew' },
  428: { ending: 'back_off', code: 'connection_closed', message: 'the connection was closed' },
  440: { ending: 'yield', code: 'connection_replaced', message: 'somebody else connected with this login' },
  500: { ending: 'once_more', code: 'bad_session', message: 'WhatsApp found the login damaged' },
  503: { ending: 'back_off', code: 'service_unavailable', message: 'WhatsApp is not available' },
  515: { ending: 'at_once', code: 'restart_required', message: 'WhatsApp asks to connect anew' },
};
const OTHERWISE = { ending: 'back_off', code: 'connection_failed', message: 'the connection failed' } as const;

const BACK_OFF_MS = { first: 1000, most: 60_000 };
const YIELD_MS = { first: 120_000, most: 1_800_000 };
/** A connection that was open for so long counts as good, and what went wrong before it no longer counts. */
const STEADY_MS = 60_000;
/** How long a code lives, in s: the first 60, each of the five after it 20 (Baileys, Socket/socket.js, `genPairQR`). */
const FIRST_QR_S = 60;
const NEXT_QR_S = 20;
const CODES_S = FIRST_QR_S + 5 * NEXT_QR_S;
/** So many rounds of codes are offered before it is taken that nobody looks: about half an hour. */
const ROUNDS = 10;
const QR_WAIT_MS = 20_000;
const LOGOUT_WAIT_MS = 3000;
const PURGE_EVERY_MS = 3_600_000;

export class Session implements Line {
  readonly #acceptance: Omit<Acceptance, 'pairedAt'>;
  readonly #folders: { own: SealedFolder; auth: SealedFolder };
  readonly #log: Logger;
  readonly #stop = new AbortController();
  readonly #changes = new EventEmitter();
  readonly #contacts: Contacts;
  readonly #outbox: Outbox;
  readonly #pacer: Pacer;
  readonly #retries = new NodeCache<never>({ stdTTL: 3600, useClones: false });
  readonly #seen: Seen;
  readonly #sender: Sender;
  readonly #sends: Sends;
  readonly #statuses: Statuses;
  readonly #purging: NodeJS.Timeout;
  #config: SessionConfig;
  #auth: AuthStore | null = null;
  #socket: WhatsAppSocket | null = null;
  /** Raised whenever a socket is given up, so that what it still says is not heard. */
  #connection = 0;
  #openedAt = 0;
  #failures = 0;
  #replaced = 0;
  #damaged = 0;
  #rounds = 0;
  #retry: NodeJS.Timeout | undefined;
  #retryAt = 0;
  #state: State = 'closed';
  #qr: Code | null = null;
  #pairingCode: Code | null = null;
  #standing: Standing;
  #announced = '';

  /** The session in its folder; nothing is connected before `start`. Throws where its files cannot be opened. */
  constructor(
    readonly id: string,
    folder: SealedFolder,
    private readonly lease: Lease,
    private readonly open: OpenSocket,
    settings: Settings,
    log: Logger,
  ) {
    const inside = (name: string): SealedFolder => subfolder(folder, id, name);
    this.#folders = { own: folder, auth: inside('auth') };
    this.#log = log.child({ session: id });
    this.#standing = readJson<Standing>(folder, 'standing') ?? {
      phone: null,
      paired_at: null,
      halted: null,
      restricted_until: null,
      last_error: null,
    };
    this.#contacts = new Contacts(inside('contacts'));
    this.#outbox = new Outbox(id, inside('outbox'), inside('rejected'), () => this.#webhook, settings, this.#log);
    this.#pacer = new Pacer(settings);
    this.#seen = new Seen(inside('seen'));
    this.#sends = new Sends(id, inside('sends'));
    this.#sender = new Sender(this, this.#sends, this.#contacts, this.#pacer, settings.dailyCap, this.#log);
    this.#statuses = new Statuses(this.#sends);
    this.#acceptance = { backlogS: settings.backlogS, isOurs: (waId) => this.#sends.find(waId) !== null };
    this.#config = readJson<SessionConfig>(folder, 'config') ?? { webhook_url: '', webhook_secret: '', label: null };
    this.#purging = setInterval(() => this.#purge(), PURGE_EVERY_MS).unref();
  }

  get stop(): AbortSignal {
    return this.#stop.signal;
  }

  get restrictedUntil(): number | null {
    const until = this.#standing.restricted_until;
    return until !== null && until > Date.now() / 1000 ? until : null;
  }

  get view(): SessionView {
    const { phone, last_error } = this.#standing;
    return {
      id: this.id,
      label: this.#config.label,
      state: this.#state,
      phone,
      qr: this.#qr,
      pairing_code: this.#pairingCode,
      restricted_until: this.restrictedUntil,
      last_error,
      waiting_events: this.#outbox.waiting,
    };
  }

  /** Deliver what waits, and connect unless a person must pair anew first. */
  start(): void {
    this.#outbox.start();
    if (this.#standing.halted === null) this.#connect();
    else this.#become(this.#standing.halted);
  }

  configure(config: SessionConfig): void {
    this.#folders.own.write('config', JSON.stringify(config));
    this.#config = config;
    this.#outbox.poke();
  }

  /** Ask WhatsApp for a code to be typed on the telephone `phone` (digits). Throws Refusal. */
  async pair(phone: string): Promise<SessionView> {
    if (this.#state === 'open') throw new Refusal('already_open', 'the session is open');
    if (this.#standing.halted === null && this.#auth?.paired) {
      throw new Refusal('not_connected', 'the session is paired and connects again; log it out first', this.#retryInMs());
    }
    // Afresh, so that the code lives as long as WhatsApp lets it; a login that is no longer taken would only be tried again.
    if (this.#standing.halted !== null) this.#folders.auth.empty();
    this.restart();
    const connection = this.#connection;
    if (!(await this.#untilQr(connection))) throw this.#notConnected();
    const expires = Math.floor(Date.now() / 1000) + CODES_S;
    try {
      const code = await this.#socket?.requestPairingCode(phone);
      if (code && connection === this.#connection) this.#pairingCode = { code, expires_at: expires };
    } catch (error) {
      throw this.#sender.refusalOf(error);
    }
    if (this.#pairingCode === null) throw this.#notConnected();
    this.#announce();
    return this.view;
  }

  /** Connect anew; a session that was logged out or banned tries again. */
  restart(): void {
    this.#hangUp();
    this.#failures = this.#replaced = this.#damaged = this.#rounds = 0;
    this.#stand({ halted: null, last_error: null });
    this.#connect();
  }

  /** Unlink the device, as far as WhatsApp can be reached, and delete the login. */
  async logout(): Promise<void> {
    await this.#unlink();
    this.#halt('logged_out', null);
  }

  /** Close the connection and post no more; everything stays on disk. */
  close(): void {
    this.#hangUp();
    this.#stop.abort();
    this.#outbox.stop();
    clearInterval(this.#purging);
    this.#retries.close();
  }

  /** Like `close`, but the device is unlinked first, as nobody will be able to do so later. */
  async forget(): Promise<void> {
    await this.#unlink();
    this.close();
  }

  send(key: string, order: Order, typingMs: number): Promise<Answer> {
    return this.#sender.send(key, order, typingMs);
  }

  /** Mark messages of a person read. Throws Refusal. */
  async read(to: string, waIds: string[]): Promise<void> {
    const socket = this.socket();
    const keys = waIds.map((id) => ({ remoteJid: to, id, fromMe: false }));
    await socket.readMessages(keys).catch((error: unknown) => {
      throw this.#sender.refusalOf(error);
    });
  }

  /** Show "typing", or end it. Throws Refusal. */
  async typing(to: string, on: boolean): Promise<void> {
    const socket = this.socket();
    await socket.sendPresenceUpdate(on ? 'composing' : 'paused', to).catch((error: unknown) => {
      throw this.#sender.refusalOf(error);
    });
  }

  socket(): WhatsAppSocket {
    if (!this.lease.held) throw new Refusal('not_owner', 'the lease of this session is lost', 1000);
    if (this.#state !== 'open' || this.#socket === null) throw this.#notConnected();
    return this.#socket;
  }

  get #webhook(): { url: string; secret: string } {
    return { url: this.#config.webhook_url, secret: this.#config.webhook_secret };
  }

  #connect(): void {
    clearTimeout(this.#retry);
    const connection = ++this.#connection;
    const auth = new AuthStore(this.#folders.auth, () => connection === this.#connection && this.lease.held);
    this.#auth = auth;
    this.#become('connecting');
    try {
      this.#socket = this.open({
        session: this.id,
        auth,
        getMessage: async ({ id }) => {
          const sent = this.#sends.find(id ?? '');
          return sent === null ? undefined : { extendedTextMessage: { text: sent.text } };
        },
        retries: this.#retries,
        log: this.#log,
      });
      this.#listen(this.#socket, auth, connection);
    } catch (error) {
      this.#log.error({ kind: (error as Error).name }, 'the connection could not be begun');
      this.#ended(null);
    }
  }

  /** Hear what a socket says for as long as it is the one in use; nothing here may throw into Baileys. */
  #listen(socket: WhatsAppSocket, auth: AuthStore, connection: number): void {
    const on = <E extends keyof BaileysEventMap>(event: E, hear: (data: BaileysEventMap[E]) => void): void =>
      socket.ev.on(event, (data) => {
        if (connection !== this.#connection) return;
        try {
          hear(data);
        } catch (error) {
          this.#log.error({ of: event, reason: (error as Error).message }, 'what WhatsApp said could not be kept');
        }
      });
    on('creds.update', (update) => {
      Object.assign(auth.creds, update);
      auth.saveCreds();
    });
    on('connection.update', (update) => this.#hearConnection(update));
    on('messages.upsert', ({ messages, type }) => {
      for (const message of messages) this.#hearMessage(message, type);
    });
    on('messages.update', (updates) => {
      for (const update of updates) this.#hearStatus(update);
    });
  }

  #hearConnection(update: Partial<ConnectionState>): void {
    if (update.isNewLogin) this.#stand({ paired_at: Date.now() / 1000 });
    if (update.qr) {
      const lifeS = this.#qr === null ? FIRST_QR_S : NEXT_QR_S;
      this.#qr = { code: update.qr, expires_at: Math.floor(Date.now() / 1000) + lifeS };
      this.#become('qr');
    }
    if (update.reachoutTimeLock) {
      const { isActive, timeEnforcementEnds: ends } = update.reachoutTimeLock;
      this.#stand({ restricted_until: isActive && ends ? Math.floor(ends.getTime() / 1000) : null });
      this.#announce();
    }
    if (update.connection === 'open') this.#opened();
    if (update.connection === 'close') this.#ended(update.lastDisconnect?.error);
  }

  #opened(): void {
    this.#openedAt = performance.now();
    this.#rounds = 0;
    const jid = this.#socket?.user?.id;
    this.#stand({
      phone: jid ? phoneOf(jid) : null,
      paired_at: this.#standing.paired_at ?? Date.now() / 1000,
    });
    this.#qr = this.#pairingCode = null;
    this.#become('open');
  }

  #ended(error: unknown): void {
    const wasSteady = this.#state === 'open' && performance.now() - this.#openedAt > STEADY_MS;
    if (wasSteady) this.#failures = this.#replaced = this.#damaged = 0;
    const code = codeOf(error) ?? 428;
    const { ending, ...fault } = ENDINGS[code] ?? OTHERWISE;
    const nobodyScanned = this.#state === 'qr' && code === 408 && ++this.#rounds >= ROUNDS;
    this.#log.warn({ code }, fault.message);
    this.#hangUp();
    if (ending === 'banned' || ending === 'logged_out') return this.#halt(ending, fault);
    if (nobodyScanned) return this.#halt('logged_out', { code: 'qr_expired', message: 'nobody scanned the code' });
    if (ending === 'once_more' && ++this.#damaged > 1) return this.#halt('logged_out', fault);
    if (ending === 'at_once') return this.#connect();
    const waitMs = ending === 'yield' ? doubling(YIELD_MS, this.#replaced++) : doubling(BACK_OFF_MS, this.#failures++);
    this.#retryAt = performance.now() + waitMs;
    this.#retry = setTimeout(() => this.#connect(), waitMs).unref();
    this.#stand({ last_error: { ...fault, at: Math.floor(Date.now() / 1000) } });
    this.#become('closed');
  }

  #halt(state: 'logged_out' | 'banned', fault: Omit<Fault, 'at'> | null): void {
    if (state === 'logged_out') {
      this.#folders.auth.empty();
      this.#stand({ phone: null, paired_at: null });
    }
    const last = fault === null ? null : { ...fault, at: Math.floor(Date.now() / 1000) };
    this.#stand({ halted: state, last_error: last });
    this.#become(state);
  }

  /** Give the socket up: what it still says or writes no longer counts. */
  #hangUp(): void {
    clearTimeout(this.#retry);
    this.#connection++;
    this.#auth?.close();
    const socket = this.#socket;
    this.#socket = null;
    this.#qr = this.#pairingCode = null;
    socket?.end(undefined);
  }

  async #unlink(): Promise<void> {
    const socket = this.#state === 'open' ? this.#socket : null;
    if (socket !== null) {
      this.#connection++;
      await Promise.race([socket.logout(), delay(LOGOUT_WAIT_MS)]).catch(() => {});
    }
    this.#hangUp();
  }

  #hearMessage(message: BaileysEventMap['messages.upsert']['messages'][number], type: 'notify' | 'append'): void {
    const event = readMessage(message, type, { ...this.#acceptance, pairedAt: this.#standing.paired_at });
    if (event === null || this.#seen.has(event.id)) return;
    this.#outbox.add('message', this.#folders.own.vault.name('message', this.id, event.id), event);
    this.#seen.add(event.id);
    if (event.from_me) return this.#contacts.exists(event.from);
    this.#contacts.wrote(event.from);
    if (event.alt !== null) this.#contacts.wrote(event.alt);
  }

  #hearStatus({ key, update }: WAMessageUpdate): void {
    const status = this.#statuses.read(key, update);
    if (status === null) return;
    const { error, wa_id: waId } = status;
    this.#outbox.add('status', this.#folders.own.vault.name('status', this.id, waId, status.status), status);
    if (error?.code === '429') this.#pacer.pause();
    if (error?.code === '463') void this.#bar([this.#sends.find(waId)?.to, key.remoteJid]);
  }

  /** Error 463 is never tried again; how long it holds must be asked, as Baileys 7.0.0-rc14 asks only for other codes. */
  async #bar(jids: (string | null | undefined)[]): Promise<void> {
    const people = [...new Set(jids.filter((jid): jid is string => !!jid))];
    for (const jid of people) this.#contacts.bar(jid, null);
    try {
      const lock = await this.#socket?.fetchAccountReachoutTimelock();
      if (!lock?.isActive || !lock.timeEnforcementEnds) return;
      const until = Math.floor(lock.timeEnforcementEnds.getTime() / 1000);
      for (const jid of people) this.#contacts.bar(jid, until);
    } catch {
      this.#log.warn('WhatsApp did not say how long it restricts this number');
    }
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

  async #untilQr(connection: number): Promise<boolean> {
    const signal = AbortSignal.timeout(QR_WAIT_MS);
    while (connection === this.#connection && this.#state === 'connecting') {
      try {
        await once(this.#changes, 'change', { signal });
      } catch {
        return false;
      }
    }
    return connection === this.#connection && this.#state === 'qr';
  }

  #stand(change: Partial<Standing>): void {
    this.#standing = { ...this.#standing, ...change };
    this.#folders.own.write('standing', JSON.stringify(this.#standing));
  }

  #become(state: State): void {
    this.#state = state;
    this.#log.info({ state }, 'session');
    this.#announce();
    this.#changes.emit('change');
  }

  /** Tell the webhook, if anything of the state, the codes or the restriction is new. */
  #announce(): void {
    const view = this.view;
    const { last_error: _, waiting_events: __, ...shown } = view;
    const announced = JSON.stringify(shown);
    if (announced === this.#announced) return;
    this.#announced = announced;
    this.#outbox.add('session', randomUUID(), view);
  }

  #purge(): void {
    this.#sends.purge();
    this.#seen.purge();
    this.#outbox.purge();
  }
}

/** A folder of its own inside a session's, its contents sealed for that place. */
function subfolder(folder: SealedFolder, id: string, name: string): SealedFolder {
  return new SealedFolder(folder.vault, path.join(folder.path, name), `${id}/${name}`);
}

function readJson<T>(folder: SealedFolder, name: string): T | null {
  const kept = folder.read(name);
  return kept === null ? null : (JSON.parse(kept.toString()) as T);
}

/** With up to a quarter more, so that many gateways that lost WhatsApp together do not come back together. */
function doubling({ first, most }: { first: number; most: number }, before: number): number {
  return Math.min(most, first * 2 ** before) * (1 + Math.random() / 4);
}
