/** One WhatsApp number: its connection, and what is kept of what goes over it. */
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { proto } from 'baileys';
import type { MessageUpsertType, WAMessage, WAMessageKey, WAMessageUpdate } from 'baileys';
import type { Logger } from 'pino';
import { Connection } from './connection.js';
import type { Code, Listener, State } from './connection.js';
import { Contacts } from './contacts.js';
import { readMessage } from './inbound.js';
import type { MessageEvent } from './inbound.js';
import { readJid } from './jid.js';
import type { Lease } from './lease.js';
import { Media } from './media.js';
import { Outbox } from './outbox.js';
import type { Webhook } from './outbox.js';
import { Pacer } from './pacing.js';
import { Refusal } from './refusal.js';
import { Seen } from './seen.js';
import { Sender } from './sending.js';
import type { Answer } from './sending.js';
import { Sends } from './sends.js';
import type { Order } from './sends.js';
import type { Settings } from './settings.js';
import { codeOf } from './socket.js';
import type { OpenSocket } from './socket.js';
import { Standing } from './standing.js';
import type { Fault } from './standing.js';
import { Statuses } from './statuses.js';
import { SealedFolder } from './vault.js';

const PURGE_EVERY_MS = 3_600_000;
const CONFIG = 'config';

export interface SessionConfig {
  webhook_url: string;
  webhook_secret: string;
  label: string | null;
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

export class Session implements Listener {
  readonly #connection: Connection;
  readonly #contacts: Contacts;
  readonly #media: Media;
  readonly #outbox: Outbox;
  readonly #pacer: Pacer;
  readonly #seen: Seen;
  readonly #sender: Sender;
  readonly #sends: Sends;
  readonly #standing: Standing;
  readonly #statuses: Statuses;
  readonly #purging: NodeJS.Timeout;
  #config: SessionConfig;
  #announced = '';

  /** The session of a folder with a config; nothing is connected before `start`. Throws where it cannot be read. */
  constructor(
    readonly id: string,
    private readonly folder: SealedFolder,
    lease: Lease,
    open: OpenSocket,
    private readonly settings: Settings,
    private readonly log: Logger,
  ) {
    const inside = (name: string): SealedFolder =>
      new SealedFolder(folder.vault, path.join(folder.path, name), `${id}/${name}`);
    this.#config = JSON.parse(String(folder.read(CONFIG))) as SessionConfig;
    this.#standing = new Standing(folder);
    this.#contacts = new Contacts(inside('contacts'));
    this.#media = new Media(inside('media'), settings.maxMediaBytes);
    this.#outbox = new Outbox(id, inside('outbox'), inside('rejected'), () => this.#webhook, settings, log);
    this.#pacer = new Pacer(settings);
    this.#seen = new Seen(inside('seen'));
    this.#sends = new Sends(id, inside('sends'));
    this.#statuses = new Statuses(this.#sends);
    const again = async (key: WAMessageKey): Promise<proto.IMessage | undefined> => this.#again(key);
    this.#connection = new Connection(id, inside('auth'), this.#standing, lease, open, again, this, log);
    const links = { maxBytes: settings.maxMediaBytes, allowPrivate: settings.allowPrivateLinks };
    this.#sender = new Sender(this.#connection, this.#sends, this.#contacts, this.#pacer, settings.dailyCap, links, log);
    this.#purging = setInterval(() => this.#purge(), PURGE_EVERY_MS).unref();
  }

  get view(): SessionView {
    const { phone, last_error } = this.#standing.facts;
    return {
      id: this.id,
      label: this.#config.label,
      state: this.#connection.state,
      phone,
      ...this.#connection.codes,
      restricted_until: this.#standing.restrictedUntil,
      last_error,
      waiting_events: this.#outbox.waiting,
    };
  }

  /** Deliver what waits, and connect unless a person must pair anew first. */
  start(): void {
    this.#outbox.start();
    this.#connection.start();
  }

  configure(config: SessionConfig): void {
    keepConfig(this.folder, config);
    this.#config = config;
    this.#outbox.poke();
  }

  /** Ask for a code to be typed on the telephone `phone` (digits). Throws Refusal. */
  async pair(phone: string): Promise<SessionView> {
    await this.#connection.pair(phone).catch((error: unknown) => this.#refuse(error));
    return this.view;
  }

  /** Connect anew; a session that was logged out or banned tries again. */
  restart(): SessionView {
    this.#connection.restart();
    return this.view;
  }

  /** Unlink the device, as far as WhatsApp can be reached, and delete the login. */
  async logout(): Promise<SessionView> {
    await this.#connection.logout();
    return this.view;
  }

  /** Close the connection and post no more; everything stays on disk. */
  close(): void {
    this.#connection.close();
    this.#outbox.stop();
    clearInterval(this.#purging);
  }

  /** Like `close`, but the device is unlinked first, as nobody will be able to do so later. */
  async forget(): Promise<void> {
    await this.#connection.unlink();
    this.close();
  }

  /** Throws Refusal. */
  async send(key: string, order: Order, typingMs: number): Promise<Answer> {
    return this.#sender.send(key, order, typingMs);
  }

  /** The file that came with a message. Throws Refusal. */
  async file(waId: string): Promise<Readable> {
    const file = this.#media.open(waId, (message) => this.#connection.socket().download(message));
    return file.catch((error: unknown) => {
      if (error instanceof Refusal) throw error;
      const code = codeOf(error);
      this.log.warn({ code }, 'WhatsApp did not hand a file over');
      if ([403, 404, 410].includes(code ?? 0)) throw new Refusal('unknown_media', 'WhatsApp no longer has the file');
      throw new Refusal('unavailable', 'WhatsApp did not hand the file over', 5000);
    });
  }

  /** Mark messages of a person read. Throws Refusal. */
  async read(to: string, waIds: string[]): Promise<void> {
    const keys = waIds.map((id) => ({ remoteJid: to, id, fromMe: false }));
    const socket = this.#connection.socket();
    await socket.readMessages(keys).catch((error: unknown) => this.#refuse(error));
  }

  /** Show "typing", or end it. Throws Refusal. */
  async typing(to: string, on: boolean): Promise<void> {
    const socket = this.#connection.socket();
    await socket.sendPresenceUpdate(on ? 'composing' : 'paused', to).catch((error: unknown) => this.#refuse(error));
  }

  /** Tell the webhook, if anything of the state, the codes or the restriction is new. */
  changed(): void {
    const { last_error: _, waiting_events: __, ...shown } = this.view;
    const announced = JSON.stringify(shown);
    if (announced === this.#announced) return;
    this.#announced = announced;
    this.#outbox.add('session', randomUUID(), this.view);
  }

  message(message: WAMessage, type: MessageUpsertType): void {
    const event = readMessage(message, type, {
      pairedAt: this.#standing.facts.paired_at,
      backlogS: this.settings.backlogS,
      isOurs: (waId) => this.#sends.find(waId) !== null,
    });
    if (event === null || this.#seen.has(event.id)) return;
    if (event.media !== null) this.#media.keep(message);
    this.#report(event);
  }

  update({ key, update }: WAMessageUpdate): void {
    const status = this.#statuses.read(key, update);
    if (status === null) return;
    const { wa_id: waId, error } = status;
    this.#outbox.add('status', this.#eventId('status', waId, status.status), status);
    if (error?.code === '429') this.#pacer.pause();
    if (error?.code === '463') void this.#bar(this.#sends.find(waId)?.to, readJid(key.remoteJid ?? ''));
  }

  /** The event first: a crash in between tells it twice, under one id, instead of never. */
  #report(event: MessageEvent): void {
    this.#outbox.add('message', this.#eventId('message', event.id), event);
    this.#seen.add(event.id);
    if (event.from_me) return this.#contacts.exists(event.from);
    this.#contacts.wrote(event.from);
    if (event.alt !== null) this.#contacts.wrote(event.alt);
  }

  /**
   * Error 463 is never tried again. How long it holds must be asked: Baileys 7.0.0-rc14 means to (`handleBadAck` in
   * Socket/messages-recv.js), but takes the branch before the one that asks.
   */
  async #bar(...jids: (string | null | undefined)[]): Promise<void> {
    const people = [...new Set(jids.filter((jid): jid is string => !!jid))];
    for (const jid of people) this.#contacts.bar(jid, null);
    try {
      const lock = await this.#connection.socket().fetchAccountReachoutTimelock();
      if (!lock.isActive || !lock.timeEnforcementEnds) return;
      const until = Math.floor(lock.timeEnforcementEnds.getTime() / 1000);
      for (const jid of people) this.#contacts.bar(jid, until);
    } catch {
      this.log.warn('WhatsApp did not say how long it restricts this number');
    }
  }

  /** A message of ours, for a telephone that could not decrypt it. */
  #again({ id }: WAMessageKey): proto.IMessage | undefined {
    const sent = this.#sends.find(id ?? '');
    if (sent?.message !== undefined) return proto.Message.decode(Buffer.from(sent.message, 'base64'));
    return sent === null || sent.file !== undefined ? undefined : { extendedTextMessage: { text: sent.text } };
  }

  #eventId(...parts: string[]): string {
    return this.folder.vault.name('event', this.id, ...parts);
  }

  #refuse(error: unknown): never {
    throw this.#sender.refusalOf(error);
  }

  get #webhook(): Webhook {
    return { url: this.#config.webhook_url, secret: this.#config.webhook_secret };
  }

  #purge(): void {
    this.#sends.purge();
    this.#seen.purge();
    this.#media.purge();
    this.#outbox.purge();
  }
}

/** Write a session's config; with it the session exists. */
export function keepConfig(folder: SealedFolder, config: SessionConfig): void {
  folder.write(CONFIG, JSON.stringify(config));
}
