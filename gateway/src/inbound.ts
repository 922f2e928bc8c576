/** What of WhatsApp's messages is reported, and as what: contracts §3.6 and docs/qr-gateway.md, "Events". */
import { jidNormalizedUser, normalizeMessageContent, proto } from 'baileys';
import type { MessageUpsertType, WAMessage } from 'baileys';
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
}

export interface Acceptance {
  /** Unix seconds; null while nothing was paired. */
  pairedAt: number | null;
  backlogS: number;
  /** Whether a message of ours, by its WhatsApp id, was sent through this gateway. */
  isOurs: (waId: string) => boolean;
}

type Content = Pick<MessageEvent, 'type' | 'text'> & Partial<Pick<MessageEvent, 'target'>>;

/** Message kinds that say nothing to a person, or that belong to another message. */
const SILENT = new Set([
  'albumMessage', // its pictures follow as messages of their own
  'callLogMesssage',
  'encCommentMessage',
  'encEventResponseMessage',
  'encReactionMessage',
  'keepInChatMessage',
  'messageContextInfo',
  'messageHistoryBundle',
  'messageHistoryNotice',
  'pinInChatMessage',
  'placeholderMessage',
  'pollUpdateMessage',
  'secretEncryptedMessage',
  'senderKeyDistributionMessage',
  'stickerSyncRmrMessage',
]);

/** The event of a message; null for what is not reported. */
export function readMessage(message: WAMessage, type: MessageUpsertType, rules: Acceptance): MessageEvent | null {
  const { key } = message;
  const from = jidNormalizedUser(key.remoteJid ?? undefined);
  if (!key.id || !isPerson(from)) return null;
  const timestamp = seconds(message.messageTimestamp);
  const fromMe = key.fromMe === true;
  if (fromMe ? type !== 'notify' || rules.isOurs(key.id) : !isLive(type, timestamp, rules)) return null;
  const inner = normalizeMessageContent(message.message ?? undefined);
  const content = inner ? contentOf(inner) : null;
  if (inner === undefined || content === null) return null;
  const alt = jidNormalizedUser(key.remoteJidAlt);
  return {
    id: key.id,
    from,
    alt: isPerson(alt) && alt !== from ? alt : null,
    from_me: fromMe,
    type: content.type,
    text: content.text,
    name: fromMe ? null : message.pushName || null,
    timestamp,
    backlog: type === 'append',
    reply_to: quotedBy(inner),
    target: content.target ?? null,
  };
}

/** `append` is what came while we were offline, and history too: only what is recent and after the pairing counts. */
function isLive(type: MessageUpsertType, timestamp: number, { pairedAt, backlogS }: Acceptance): boolean {
  if (type === 'notify') return true;
  return pairedAt !== null && timestamp >= Math.floor(pairedAt) && Date.now() / 1000 - timestamp <= backlogS;
}

function contentOf(inner: proto.IMessage): Content | null {
  return textOf(inner) ?? mediaOf(inner) ?? choiceOf(inner) ?? aboutAnother(inner) ?? unknown(inner);
}

function textOf(inner: proto.IMessage): Content | null {
  const text = inner.conversation || inner.extendedTextMessage?.text;
  return text ? { type: 'text', text } : null;
}

function mediaOf(inner: proto.IMessage): Content | null {
  const { imageMessage: image, documentMessage: document, contactMessage: contact } = inner;
  const video = inner.videoMessage ?? inner.ptvMessage;
  const place = inner.locationMessage ?? inner.liveLocationMessage;
  if (image) return { type: 'image', text: image.caption ?? '' };
  if (video) return { type: 'video', text: video.caption ?? '' };
  if (inner.audioMessage) return { type: 'audio', text: '' };
  if (document) return { type: 'document', text: document.caption ?? document.fileName ?? '' };
  if (inner.stickerMessage ?? inner.lottieStickerMessage) return { type: 'sticker', text: '' };
  if (place) return { type: 'location', text: inner.locationMessage?.name ?? inner.liveLocationMessage?.caption ?? '' };
  if (contact) return { type: 'contacts', text: contact.displayName ?? '' };
  if (inner.contactsArrayMessage) return { type: 'contacts', text: inner.contactsArrayMessage.displayName ?? '' };
  return null;
}

function choiceOf(inner: proto.IMessage): Content | null {
  const button = inner.buttonsResponseMessage ?? inner.templateButtonReplyMessage;
  const poll = inner.pollCreationMessage ?? inner.pollCreationMessageV2 ?? inner.pollCreationMessageV3;
  if (button) return { type: 'button', text: button.selectedDisplayText ?? '' };
  if (inner.interactiveResponseMessage) {
    return { type: 'button', text: inner.interactiveResponseMessage.body?.text ?? '' };
  }
  if (inner.listResponseMessage) return { type: 'list', text: inner.listResponseMessage.title ?? '' };
  if (poll) return { type: 'poll', text: poll.name ?? '' };
  return null;
}

function aboutAnother(inner: proto.IMessage): Content | null {
  const { reactionMessage: reaction, protocolMessage: protocol } = inner;
  if (reaction) return { type: 'reaction', text: reaction.text ?? '', target: reaction.key?.id ?? null };
  const target = protocol?.key?.id ?? null;
  switch (protocol?.type) {
    case proto.Message.ProtocolMessage.Type.REVOKE:
      return { type: 'revoke', text: '', target };
    case proto.Message.ProtocolMessage.Type.MESSAGE_EDIT: {
      const edited = normalizeMessageContent(protocol.editedMessage ?? undefined);
      const content = edited ? (textOf(edited) ?? mediaOf(edited)) : null;
      return { type: 'edit', text: content?.text ?? '', target };
    }
    default:
      return null;
  }
}

function unknown(inner: proto.IMessage): Content | null {
  const kinds = Object.entries(inner).filter(([, value]) => value !== null && value !== undefined);
  const says = kinds.some(([kind]) => !SILENT.has(kind) && kind !== 'protocolMessage' && kind !== 'conversation');
  return says ? { type: 'unknown', text: '' } : null;
}

/** Every kind of content has its own `contextInfo`, all alike. */
function quotedBy(inner: proto.IMessage): string | null {
  for (const value of Object.values(inner) as unknown[]) {
    const context = (value as { contextInfo?: proto.IContextInfo | null } | null)?.contextInfo;
    if (context?.stanzaId) return context.stanzaId;
  }
  return null;
}

function seconds(stamp: WAMessage['messageTimestamp']): number {
  const value = typeof stamp === 'number' ? stamp : Number(stamp ?? NaN);
  return Number.isFinite(value) ? value : Math.floor(Date.now() / 1000);
}
