/** One message on its way out: docs/qr-gateway.md, "Sending", and contracts §3.7. */
import { setTimeout as delay } from 'node:timers/promises';
import { proto } from 'baileys';
import type { AnyMessageContent, WAMessage } from 'baileys';
import type { Logger } from 'pino';
import { isBarred } from './contacts.js';
import type { Contacts } from './contacts.js';
import { contentOf } from './files.js';
import { isPhone } from './jid.js';
import { fetchLink } from './links.js';
import type { LinkRules } from './links.js';
import type { Pacer } from './pacing.js';
import { Refusal } from './refusal.js';
import { untilTomorrow } from './sends.js';
import type { Order, Sends } from './sends.js';
import { codeOf } from './socket.js';
import type { WhatsAppSocket } from './socket.js';

/** A telephone shows "typing" for about ten seconds after it was last said. */
const TYPING_EVERY_MS = 8000;
/** Baileys may wait for ever for an answer of WhatsApp; a caller may not. */
const LONGEST_WRITE_MS = 60_000;
/** How long "not on WhatsApp" is believed. */
const ABSENT_MS = 600_000;
const MAX_ABSENT = 10_000;

/** The connection of this moment. */
export interface Line {
  /** Throws the Refusal that says why there is none. */
  socket(): WhatsAppSocket;
  /** Until when WhatsApp lets this number start no chats, in Unix seconds; null where it may. */
  readonly restrictedUntil: number | null;
  /** Aborted when the session is closed for good. */
  readonly stop: AbortSignal;
}

export interface Answer {
  repeated: boolean;
  body: { message_id: string; wa_id: string };
}

export class Sender {
  readonly #inFlight = new Map<string, Order>();
  /** When a number was found not to be on WhatsApp, in Unix ms. */
  readonly #absent = new Map<string, number>();

  constructor(
    private readonly line: Line,
    private readonly sends: Sends,
    private readonly contacts: Contacts,
    private readonly pacer: Pacer,
    private readonly dailyCap: number,
    private readonly links: LinkRules,
    private readonly log: Logger,
  ) {}

  /** Write a message to WhatsApp's socket, once for each key. Throws Refusal. */
  async send(key: string, order: Order, typingMs: number): Promise<Answer> {
    const waId = this.sends.idOf(key);
    const body = { message_id: key, wa_id: waId };
    const kept = this.sends.find(waId);
    const before = this.#inFlight.get(key) ?? kept;
    if (before !== null && !isSame(before, order)) {
      throw new Refusal('key_reused', 'the Idempotency-Key came with another message before');
    }
    if (this.#inFlight.has(key)) throw new Refusal('in_flight', 'the message is being sent at this moment', 1000);
    if (kept?.written) return { repeated: true, body };
    this.#inFlight.set(key, order);
    try {
      await this.#send(key, waId, order, typingMs);
    } catch (error) {
      throw this.refusalOf(error);
    } finally {
      this.#inFlight.delete(key);
    }
    return { repeated: false, body };
  }

  /** What to tell a caller of an error of Baileys. A rate limit of WhatsApp pauses the number. */
  refusalOf(error: unknown): Refusal {
    if (error instanceof Refusal) return error;
    const { name, message } = error as Error;
    if (name === 'AbortError') return new Refusal('unavailable', 'the session is being closed', 2000);
    const code = codeOf(error);
    if (code === 429 || /rate-overlimit/.test(message)) {
      return new Refusal('paced', 'WhatsApp says that this number writes too fast', this.pacer.pause());
    }
    if (code === 428 || code === 408 || code === 503) {
      return new Refusal('not_connected', 'the connection to WhatsApp was lost', 2000);
    }
    this.log.error({ code, kind: name }, 'WhatsApp could not be written to');
    return new Refusal('internal', 'WhatsApp could not be written to', 5000);
  }

  async #send(key: string, waId: string, order: Order, typingMs: number): Promise<void> {
    this.line.socket();
    this.#refuseBarred(order.to);
    this.#refuseCapped(waId);
    const waitMs = this.pacer.claim(key, order.to, typingMs);
    if (waitMs > 0) throw new Refusal('paced', 'too fast for this number', waitMs);
    await this.#refuseAbsent(order.to);
    const content = await this.#content(order);
    this.#refuseCapped(waId);
    // From here on a repeat writes under the same id, whatever becomes of this process.
    this.sends.keep(waId, { ...order, key, written: false });
    await this.#type(order.to, typingMs);
    const sent = await this.pacer.turn(order.to, this.line.stop, () => this.#write(waId, order, content));
    const again = order.file !== undefined && sent?.message ? { message: encoded(sent.message) } : {};
    this.sends.keep(waId, { ...order, key, written: true, ...again });
    this.contacts.exists(order.to);
  }

  #refuseBarred(to: string): void {
    const contact = this.contacts.find(to);
    if (isBarred(contact)) {
      const until = contact.barred?.until ?? null;
      throw new Refusal('restricted', 'WhatsApp refused a message to this contact (463)', null, until);
    }
    // In a time-lock only those who wrote may be answered; to try others prolongs it (contracts §3.7).
    const { restrictedUntil } = this.line;
    if (restrictedUntil !== null && !contact.wrote) {
      throw new Refusal('restricted', 'WhatsApp lets this number start no chats', null, restrictedUntil);
    }
  }

  /** A message that was begun before has been counted. */
  #refuseCapped(waId: string): void {
    if (this.dailyCap === 0 || this.sends.countToday() < this.dailyCap || this.sends.find(waId) !== null) return;
    throw new Refusal('capped', 'the messages of this day are used up', untilTomorrow());
  }

  /** Messages to numbers that are not registered are what spam looks like (contracts §3.7). */
  async #refuseAbsent(to: string): Promise<void> {
    if (!isPhone(to) || this.contacts.find(to).exists) return;
    if (Date.now() - (this.#absent.get(to) ?? 0) > ABSENT_MS) {
      const found = await this.line.socket().onWhatsApp(to);
      if (found === undefined) throw new Refusal('unavailable', 'WhatsApp did not say whether the number exists', 5000);
      if (found.some(({ exists }) => exists)) return this.contacts.exists(to);
      if (this.#absent.size >= MAX_ABSENT) this.#absent.clear();
      this.#absent.set(to, Date.now());
    }
    throw new Refusal('not_on_whatsapp', 'the number is not on WhatsApp');
  }

  async #type(to: string, typingMs: number): Promise<void> {
    if (typingMs === 0) return;
    for (let left = typingMs; left > 0; left -= TYPING_EVERY_MS) {
      await this.#presence('composing', to);
      await delay(Math.min(left, TYPING_EVERY_MS), undefined, { signal: this.line.stop });
    }
    await this.#presence('paused', to);
  }

  /** A sign of life is not worth a message: if it fails, the message will say so itself. */
  async #presence(type: 'composing' | 'paused', to: string): Promise<void> {
    try {
      await this.line.socket().sendPresenceUpdate(type, to);
    } catch {
      return;
    }
  }

  /** Without `linkPreview: null` Baileys would fetch whatever the text links to. */
  async #content({ text, file }: Order): Promise<AnyMessageContent> {
    if (file === undefined) return { text, linkPreview: null };
    return contentOf(file, await fetchLink(file.link, this.links), text);
  }

  async #write(
    waId: string,
    { to, reply_to: replyTo }: Order,
    content: AnyMessageContent,
  ): Promise<WAMessage | undefined> {
    const options = { messageId: waId, ...(replyTo === null ? {} : { quoted: this.#quoted(to, replyTo) }) };
    const written = this.line.socket().sendMessage(to, content, options);
    const late = new AbortController();
    const timeout = delay(LONGEST_WRITE_MS, undefined, { signal: late.signal }).then(() => {
      throw new Refusal('unavailable', 'WhatsApp did not take the message in time', 5000);
    });
    return Promise.race([written, timeout]).finally(() => {
      late.abort();
      timeout.catch(() => {});
    });
  }

  /** What others wrote is not kept, so that the quote of it is empty; its id leads the telephone to it. */
  #quoted(to: string, waId: string): WAMessage {
    const ours = this.sends.find(waId);
    return { key: { remoteJid: to, id: waId, fromMe: ours !== null }, message: { conversation: ours?.text ?? '' } };
  }
}

function isSame(one: Order, other: Order): boolean {
  const facts = ({ to, text, reply_to, file }: Order): string =>
    JSON.stringify([to, text, reply_to, file?.kind, file?.link, file?.filename]);
  return facts(one) === facts(other);
}

function encoded(message: proto.IMessage): string {
  return Buffer.from(proto.Message.encode(message).finish()).toString('base64');
}
