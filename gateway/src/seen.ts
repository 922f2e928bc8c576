/** The messages that were reported: WhatsApp sends one again after a reconnect, or when it had no receipt. */
import type { SealedFolder } from './vault.js';

const KEPT_MS = 24 * 3_600_000;

export class Seen {
  constructor(private readonly folder: SealedFolder) {
    this.purge();
  }

  has(waId: string): boolean {
    return this.folder.has(this.#name(waId));
  }

  /** Only once its event is on the disk: else a crash in between would lose the message for good. */
  add(waId: string): void {
    this.folder.write(this.#name(waId), '');
  }

  purge(): void {
    for (const name of this.folder.names()) {
      if (Date.now() - this.folder.writtenAt(name) > KEPT_MS) this.folder.remove(name);
    }
  }

  #name(waId: string): string {
    return this.folder.vault.name('seen', waId);
  }
}
