/** What became of our messages: `messages.update` as docs/qr-gateway.md's event `status`. */
import { WAMessageStatus } from 'baileys';
import type { WAMessageKey, WAMessageUpdate } from 'baileys';
import type { Sends } from './sends.js';

export interface StatusEvent {
  wa_id: string;
  message_id: string | null;
  status: 'sent' | 'delivered' | 'read' | 'failed';
  timestamp: number;
  error: { code: string; message: string } | null;
}

/** Contracts §3.6, "Status". */
const NAMES = new Map<number, StatusEvent['status']>([
  [WAMessageStatus.ERROR, 'failed'],
  [WAMessageStatus.SERVER_ACK, 'sent'],
  [WAMessageStatus.DELIVERY_ACK, 'delivered'],
  [WAMessageStatus.READ, 'read'],
  [WAMessageStatus.PLAYED, 'read'],
]);
const RANKS = { sent: 1, failed: 2, delivered: 3, read: 4 };
const MAX_REMEMBERED = 10_000;

export class Statuses {
  /** The highest told of each message: every device of a person sends receipts of its own. */
  readonly #told = new Map<string, number>();

  constructor(private readonly sends: Sends) {}

  /** Null for what is not about a message of ours, says nothing new, or is no status. */
  read(key: WAMessageKey, update: WAMessageUpdate['update']): StatusEvent | null {
    const status = NAMES.get(update.status ?? WAMessageStatus.PENDING);
    const waId = key.id;
    if (!key.fromMe || !waId || status === undefined || !waId.startsWith('3EB0')) return null;
    if (RANKS[status] <= (this.#told.get(waId) ?? 0)) return null;
    this.#remember(waId, RANKS[status]);
    return {
      wa_id: waId,
      message_id: this.sends.find(waId)?.key ?? null,
      status,
      timestamp: Number(update.messageTimestamp) || Math.floor(Date.now() / 1000),
      error: status === 'failed' ? faultOf(update.messageStubParameters) : null,
    };
  }

  #remember(waId: string, rank: number): void {
    this.#told.delete(waId);
    this.#told.set(waId, rank);
    const oldest = this.#told.size > MAX_REMEMBERED ? this.#told.keys().next().value : undefined;
    if (oldest !== undefined) this.#told.delete(oldest);
  }
}

/** WhatsApp's code comes first in the stub parameters (Baileys, Socket/messages-recv.js, `handleBadAck`). */
function faultOf(parameters: unknown): StatusEvent['error'] {
  const code = Array.isArray(parameters) && parameters.length > 0 ? String(parameters[0]) : 'unknown';
  const message = code === '463' ? 'WhatsApp lets this number start no chat with this contact' : 'WhatsApp refused it';
  return { code, message };
}
