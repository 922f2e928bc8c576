/** How a session stands with WhatsApp: what must survive a restart, beside the login itself. */
import type { SealedFolder } from './vault.js';

export interface Fault {
  code: string;
  message: string;
  /** Unix seconds. */
  at: number;
}

interface Facts {
  /** Digits; null while nothing is paired. */
  phone: string | null;
  /** Unix seconds. */
  paired_at: number | null;
  /** Where nothing connects by itself, until a person does something. */
  halted: 'logged_out' | 'banned' | null;
  /** Unix seconds: until then WhatsApp lets this number start no chats. */
  restricted_until: number | null;
  last_error: Fault | null;
}

const FILE = 'standing';
const NEW: Facts = { phone: null, paired_at: null, halted: null, restricted_until: null, last_error: null };

export class Standing {
  #facts: Facts;

  constructor(private readonly folder: SealedFolder) {
    const kept = folder.read(FILE);
    this.#facts = kept === null ? NEW : (JSON.parse(kept.toString()) as Facts);
  }

  get facts(): Readonly<Facts> {
    return this.#facts;
  }

  /** Null once the time is over. */
  get restrictedUntil(): number | null {
    const until = this.#facts.restricted_until;
    return until !== null && until > Date.now() / 1000 ? until : null;
  }

  /** On the disk when it returns. */
  change(facts: Partial<Facts>): void {
    this.#facts = { ...this.#facts, ...facts };
    this.folder.write(FILE, JSON.stringify(this.#facts));
  }
}
