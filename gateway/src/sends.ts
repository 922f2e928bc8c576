/** What this session sent: kept before it goes out, so that a repeat is known, and a telephone can ask for it again. */
import { createHash } from 'node:crypto';
import type { OrderedFile } from './files.js';
import type { SealedFolder } from './vault.js';

/** docs/qr-gateway.md, "Sending". */
const KEPT_MS = 24 * 3_600_000;
const DAY_MS = 24 * 3_600_000;

export interface Order {
  to: string;
  /** Of a file: its caption, which may be empty. */
  text: string;
  reply_to: string | null;
  /** Left out for a text. */
  file?: OrderedFile;
}

export interface Sent extends Order {
  /** The Idempotency-Key. */
  key: string;
  /** Whether the socket took it; else a repeat writes it again, under the same id. */
  written: boolean;
  /** Of a file, once it is written: the message in base64, for a telephone that asks for it again. */
  message?: string;
}

export class Sends {
  /** The number of messages begun in a UTC day. */
  #today = { day: dayOf(Date.now()), count: 0 };

  constructor(
    private readonly session: string,
    private readonly folder: SealedFolder,
  ) {
    this.purge();
    this.#today.count = folder.names().filter((name) => dayOf(folder.writtenAt(name)) === this.#today.day).length;
  }

  /** WhatsApp's id of a message: the same for the same key, whatever happened to this process in between. */
  idOf(key: string): string {
    const hash = createHash('sha256').update(`${this.session}\0${key}`).digest('hex');
    return `3EB0${hash.slice(0, 18).toUpperCase()}`;
  }

  find(waId: string): Sent | null {
    // Only what has the form of our own ids may become part of a path.
    const kept = /^3EB0[0-9A-F]{18}$/.test(waId) ? this.folder.read(waId) : null;
    return kept === null ? null : (JSON.parse(kept.toString()) as Sent);
  }

  /** On the disk when it returns. */
  keep(waId: string, sent: Sent): void {
    const isNew = !this.folder.has(waId);
    this.folder.write(waId, JSON.stringify(sent));
    if (isNew) this.#today = { day: dayOf(Date.now()), count: this.countToday() + 1 };
  }

  countToday(): number {
    return this.#today.day === dayOf(Date.now()) ? this.#today.count : 0;
  }

  purge(): void {
    for (const name of this.folder.names()) {
      if (Date.now() - this.folder.writtenAt(name) > KEPT_MS) this.folder.remove(name);
    }
  }
}

/** In ms, until a day's messages are counted anew: at midnight UTC. */
export function untilTomorrow(): number {
  return DAY_MS - (Date.now() % DAY_MS);
}

function dayOf(ms: number): number {
  return Math.floor(ms / DAY_MS);
}
