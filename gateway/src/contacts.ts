/** What is known of the people at the other end: who wrote, who was written to, and whom WhatsApp bars us from. */
import type { SealedFolder } from './vault.js';

/** WhatsApp does not always say how long error 463 lasts; in this time, in seconds, a contact is not tried again. */
const BARRED_S = 24 * 3600;

export interface Contact {
  /** They wrote to us: the chat is established, and WhatsApp lets us answer. */
  wrote: boolean;
  /** Known to be on WhatsApp: they wrote, we were able to write, or WhatsApp said so. */
  exists: boolean;
  /** When error 463 came, and until when it holds where that is known, in Unix seconds. */
  barred: { at: number; until: number | null } | null;
}

export class Contacts {
  constructor(private readonly folder: SealedFolder) {}

  find(jid: string): Contact {
    const kept = this.folder.read(this.#name(jid));
    return kept === null ? { wrote: false, exists: false, barred: null } : (JSON.parse(kept.toString()) as Contact);
  }

  /** They wrote: which also ends what barred us from them. */
  wrote(jid: string): void {
    const { wrote, barred } = this.find(jid);
    if (!wrote || barred !== null) this.#keep(jid, { wrote: true, exists: true, barred: null });
  }

  exists(jid: string): void {
    const contact = this.find(jid);
    if (!contact.exists) this.#keep(jid, { ...contact, exists: true });
  }

  bar(jid: string, until: number | null): void {
    this.#keep(jid, { ...this.find(jid), barred: { at: Date.now() / 1000, until } });
  }

  #name(jid: string): string {
    return this.folder.vault.name('contact', jid);
  }

  #keep(jid: string, contact: Contact): void {
    this.folder.write(this.#name(jid), JSON.stringify(contact));
  }
}

/** Whether error 463 still holds for a contact. */
export function isBarred({ barred }: Contact): boolean {
  return barred !== null && Date.now() / 1000 < (barred.until ?? barred.at + BARRED_S);
}
