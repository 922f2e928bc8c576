/** What of WhatsApp's messages is reported: contracts §3.6 and docs/qr-gateway.md, "Events". */
import { jidNormalizedUser } from 'baileys';
import type { MessageUpsertType, WAMessage } from 'baileys';
import { saidIn } from './content.js';
import type { MediaFacts } from './content.js';
import { isPerson } from './jid.js';

export interface MessageEvent {
  id: string;
  from: string;
  alt: string | null;
  from_me: boolean;
  type: string;
  text: string;
  name: string | null;
  timestamp: number;
  backlog: boolean;
  reply_to: string | null;
  target: string | null;
  media: ({ id: string } & MediaFacts) | null;
  content: Record<string, unknown>;
}

export interface Acceptance {
  /** Unix seconds; null while nothing was paired. */
  pairedAt: number | null;
  backlogS: number;
  /** Whether a message of ours, by its WhatsApp id, was sent through this gateway. */
  isOurs: (waId: string) => boolean;
}

/** What the business does on its own telephone, other than write to the person, is nothing that the person did. */
const NOT_OF_OURS = new Set(['reaction', 'edit', 'revoke', 'unknown']);

/** The event of a message; null for what is not reported. */
export function readMessage(message: WAMessage, type: MessageUpsertType, rules: Acceptance): MessageEvent | null {
  const { key } = message;
  const from = jidNormalizedUser(key.remoteJid ?? undefined);
  if (!key.id || !isPerson(from)) return null;
  const timestamp = seconds(message.messageTimestamp);
  const fromMe = key.fromMe === true;
  if (fromMe ? type !== 'notify' || rules.isOurs(key.id) : !isLive(type, timestamp, rules)) return null;
  const said = message.message ? saidIn(message.message) : null;
  if (said === null || (fromMe && NOT_OF_OURS.has(said.type))) return null;
  const alt = jidNormalizedUser(key.remoteJidAlt);
  return {
    id: key.id,
    from,
    alt: isPerson(alt) && alt !== from ? alt : null,
    from_me: fromMe,
    type: said.type,
    text: said.text,
    name: fromMe ? null : message.pushName || null,
    timestamp,
    backlog: type === 'append',
    reply_to: said.reply_to,
    target: said.target,
    media: said.media === null ? null : { id: key.id, ...said.media },
    content: said.content,
  };
}

/** `append` is what came while we were offline, and history too: only what is recent and after the pairing counts. */
function isLive(type: MessageUpsertType, timestamp: number, { pairedAt, backlogS }: Acceptance): boolean {
  if (type === 'notify') return true;
  return pairedAt !== null && timestamp >= Math.floor(pairedAt) && Date.now() / 1000 - timestamp <= backlogS;
}

function seconds(stamp: WAMessage['messageTimestamp']): number {
  const value = typeof stamp === 'number' ? stamp : Number(stamp ?? NaN);
  return Number.isFinite(value) ? value : Math.floor(Date.now() / 1000);
}
