/**
 * What a WhatsApp message says, in the words of docs/qr-gateway.md, "Events".
 *
 * `replyline/evolution/content.py` reads the same messages as Evolution API posts them; `test/messages.json` holds examples that
 * both must read alike.
 */
import { proto } from 'baileys';

type Json = Record<string, unknown>;

/** What is told of a file; it is fetched by the message's id. */
export interface MediaFacts {
  mime: string | null;
  size: number | null;
  /** Base64. */
  sha256: string | null;
  filename: string | null;
  seconds: number | null;
  voice: boolean;
}

export interface Said {
  type: string;
  text: string;
  target: string | null;
  content: Json;
  media: MediaFacts | null;
  reply_to: string | null;
}

type Words = Pick<Said, 'type' | 'text'> & Partial<Said>;

/** Envelopes around the message itself: those of Baileys (Utils/messages.js, `getFutureProofMessage`), and some it lacks. */
const WRAPPERS = [
  'ephemeralMessage',
  'viewOnceMessage',
  'viewOnceMessageV2',
  'viewOnceMessageV2Extension',
  'documentWithCaptionMessage',
  'editedMessage',
  'associatedChildMessage',
  'groupMentionedMessage',
  'botInvokeMessage',
  'lottieStickerMessage',
  'statusMentionMessage',
] as const;

/** Kinds that say nothing to a person, or that belong to another message: they are neither told nor apologised for. */
const SILENT = new Set([
  'albumMessage', // its pictures follow as messages of their own
  'callLogMesssage', // so spelt by WhatsApp
  'encCommentMessage',
  'encEventResponseMessage',
  'encReactionMessage',
  'keepInChatMessage',
  'messageContextInfo',
  'messageHistoryBundle',
  'messageHistoryNotice',
  'pinInChatMessage',
  'pollUpdateMessage',
  'protocolMessage',
  'secretEncryptedMessage',
  'senderKeyDistributionMessage',
  'stickerSyncRmrMessage',
]);

const MAX_DEPTH = 8;
const MAX_CARDS = 20;
const MAX_OPTIONS = 30;

/** What a message says; null where it says nothing to a person. */
export function saidIn(message: proto.IMessage): Said | null {
  const { inner, isWrapped } = unwrap(message);
  const words = wordsOf(inner) ?? unknown(inner, isWrapped);
  if (words === null) return null;
  const context = contextIn(inner);
  const content = { ...words.content, ...(context === null ? {} : contextOf(context)) };
  return { target: null, media: null, ...words, content, reply_to: context?.stanzaId || null };
}

/** The message inside its envelopes. */
export function unwrap(message: proto.IMessage): { inner: proto.IMessage; isWrapped: boolean } {
  let inner = message;
  let isWrapped = false;
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const name = WRAPPERS.find((wrapper) => inner[wrapper]);
    if (name === undefined) break;
    inner = inner[name]?.message ?? {};
    isWrapped = true;
  }
  return { inner, isWrapped };
}

function wordsOf(inner: proto.IMessage): Words | null {
  const text = inner.conversation || inner.extendedTextMessage?.text;
  if (text) return { type: 'text', text };
  return fileOf(inner) ?? placeOf(inner) ?? cardsOf(inner) ?? choiceOf(inner) ?? aboutAnother(inner) ?? moreOf(inner);
}

function fileOf(inner: proto.IMessage): Words | null {
  const { imageMessage: image, audioMessage: audio, documentMessage: document, stickerMessage: sticker } = inner;
  const video = inner.videoMessage ?? inner.ptvMessage;
  if (image) return { type: 'image', text: image.caption ?? '', media: factsOf(image) };
  if (video) return { type: 'video', text: video.caption ?? '', media: { ...factsOf(video), seconds: video.seconds ?? null } };
  if (audio) {
    return { type: 'audio', text: '', media: { ...factsOf(audio), seconds: audio.seconds ?? null, voice: audio.ptt === true } };
  }
  if (document) {
    const filename = document.fileName || document.title || null;
    return { type: 'document', text: document.caption ?? '', media: { ...factsOf(document), filename } };
  }
  return sticker ? { type: 'sticker', text: '', media: factsOf(sticker) } : null;
}

interface FileMessage {
  mimetype?: string | null;
  fileLength?: unknown;
  fileSha256?: Uint8Array | null;
}

function factsOf({ mimetype, fileLength, fileSha256 }: FileMessage): MediaFacts {
  const sha256 = fileSha256?.length ? Buffer.from(fileSha256).toString('base64') : null;
  return { mime: mimetype || null, size: numberOf(fileLength), sha256, filename: null, seconds: null, voice: false };
}

function placeOf(inner: proto.IMessage): Words | null {
  const { liveLocationMessage: live, locationMessage: fixed } = inner;
  const place = live ?? fixed;
  if (!place) return null;
  const location = {
    latitude: place.degreesLatitude ?? null,
    longitude: place.degreesLongitude ?? null,
    name: fixed?.name || null,
    address: fixed?.address || null,
    url: fixed?.url || null,
    live: live !== null && live !== undefined,
  };
  const text = live?.caption || fixed?.comment || fixed?.name || '';
  return { type: 'location', text, content: { location } };
}

function cardsOf(inner: proto.IMessage): Words | null {
  const cards = inner.contactsArrayMessage?.contacts ?? (inner.contactMessage ? [inner.contactMessage] : []);
  if (cards.length === 0) return null;
  const contacts = cards
    .slice(0, MAX_CARDS)
    .map(({ displayName, vcard }) => ({ name: displayName || null, vcard: vcard || null }));
  const names = contacts.map(({ name }) => name).filter(Boolean);
  return { type: 'contacts', text: names.join(', '), content: { contacts } };
}

function choiceOf(inner: proto.IMessage): Words | null {
  const { buttonsResponseMessage: button, templateButtonReplyMessage: template, listResponseMessage: row } = inner;
  if (button) return chosen('button', button.selectedButtonId, button.selectedDisplayText);
  if (template) return chosen('template_button', template.selectedId, template.selectedDisplayText);
  if (row) return chosen('list', row.singleSelectReply?.selectedRowId, row.title, row.description);
  return inner.interactiveResponseMessage ? nativeFlow(inner.interactiveResponseMessage) : null;
}

type Maybe = string | null | undefined;

function chosen(kind: string, id: Maybe, title: Maybe, description?: Maybe): Words | null {
  if (!id && !title) return null;
  const choice = { kind, id: id || null, title: title || null, description: description || null };
  return { type: kind === 'list' ? 'list' : 'button', text: title || id || '', content: { choice } };
}

/** A tapped quick reply names its id; anything else is the answer to a form. `paramsJson` is JSON inside the message. */
function nativeFlow({ body, nativeFlowResponseMessage: reply }: proto.Message.IInteractiveResponseMessage): Words | null {
  const { name, paramsJson: json } = reply ?? {};
  if (!name || ['quick_reply', 'single_select', 'menu_options'].includes(name)) {
    const { id, display_text: shown, title, description } = readObject(json);
    return chosen('button', textOf(id), body?.text || textOf(shown) || textOf(title), textOf(description));
  }
  return { type: 'form', text: body?.text ?? '', content: { form: { name, json: json || null } } };
}

function readObject(json: Maybe): Json {
  try {
    const read: unknown = JSON.parse(json ?? '');
    return typeof read === 'object' && read !== null ? (read as Json) : {};
  } catch {
    return {};
  }
}

function aboutAnother(inner: proto.IMessage): Words | null {
  const { reactionMessage: reaction, protocolMessage: protocol } = inner;
  if (reaction) return { type: 'reaction', text: reaction.text ?? '', target: reaction.key?.id ?? null };
  const target = protocol?.key?.id ?? null;
  if (target === null) return null;
  switch (protocol?.type) {
    case proto.Message.ProtocolMessage.Type.REVOKE:
      return { type: 'revoke', text: '', target };
    case proto.Message.ProtocolMessage.Type.MESSAGE_EDIT:
      return { type: 'edit', text: (protocol.editedMessage && saidIn(protocol.editedMessage)?.text) || '', target };
    default:
      return null;
  }
}

/** Orders, questions about a product, polls; and what another business or a person sends that is words in the end. */
function moreOf(inner: proto.IMessage): Words | null {
  const { orderMessage: order, productMessage: asked, groupInviteMessage: invite, eventMessage: event } = inner;
  if (order) return orderOf(order);
  if (asked) {
    const product = { id: asked.product?.productId || null, title: asked.product?.title || null };
    return { type: 'product', text: asked.body ?? '', content: { product } };
  }
  const poll =
    inner.pollCreationMessage ?? inner.pollCreationMessageV2 ?? inner.pollCreationMessageV3 ?? inner.pollCreationMessageV5;
  if (poll) {
    const options = (poll.options ?? []).map(({ optionName }) => optionName).filter(Boolean).slice(0, MAX_OPTIONS);
    return { type: 'poll', text: poll.name ?? '', content: { poll: { question: poll.name || null, options } } };
  }
  const words = businessWords(inner);
  if (words) return { type: 'text', text: words };
  if (invite) return { type: 'invite', text: lines(invite.groupName, invite.caption) };
  return event ? { type: 'event', text: lines(event.name, event.description) } : null;
}

function orderOf(order: proto.Message.IOrderMessage): Words {
  const total = numberOf(order.totalAmount1000);
  const told = {
    id: order.orderId || null,
    text: order.message || null,
    items: order.itemCount ?? null,
    total: total === null ? null : total / 1000,
    currency: order.totalCurrencyCode || null,
  };
  return { type: 'order', text: order.message ?? '', content: { order: told } };
}

function businessWords(inner: proto.IMessage): string {
  const template = inner.templateMessage?.hydratedTemplate ?? inner.templateMessage?.hydratedFourRowTemplate;
  return (
    lines(template?.hydratedTitleText, template?.hydratedContentText) ||
    lines(inner.interactiveMessage?.header?.title, inner.interactiveMessage?.body?.text) ||
    inner.buttonsMessage?.contentText ||
    lines(inner.listMessage?.title, inner.listMessage?.description)
  );
}

function lines(...words: Maybe[]): string {
  return words.filter(Boolean).join('\n');
}

/** An empty envelope is a view-once message that only the telephone may open. */
function unknown(inner: proto.IMessage, isWrapped: boolean): Words | null {
  const kinds = Object.entries(inner).filter(([, value]) => value !== null && value !== undefined);
  const says = kinds.some(([kind, value]) => !SILENT.has(kind) && value !== '');
  return says || (isWrapped && kinds.length === 0) ? { type: 'unknown', text: '' } : null;
}

/** Every kind of content has its own `contextInfo`, all alike. */
function contextIn(inner: proto.IMessage): proto.IContextInfo | null {
  for (const value of Object.values(inner) as unknown[]) {
    const context = (value as { contextInfo?: proto.IContextInfo | null } | null)?.contextInfo;
    if (context) return context;
  }
  return null;
}

/** The message that was replied to, and the advertisement that led here. */
function contextOf(context: proto.IContextInfo): Json {
  const parts: Json = {};
  if (context.stanzaId) {
    const text = (context.quotedMessage && saidIn(context.quotedMessage)?.text) || null;
    parts.quoted = { id: context.stanzaId, from: context.participant || null, text };
  }
  const { externalAdReply: ad } = context;
  if (ad && (ad.sourceId || context.entryPointConversionSource === 'ctwa_ad')) {
    parts.ad = {
      source_type: ad.sourceType || null,
      source_id: ad.sourceId || null,
      source_url: ad.sourceUrl || null,
      title: ad.title || null,
      body: ad.body || null,
      click_id: ad.ctwaClid || null,
    };
  }
  if (context.isForwarded) parts.forwarded = true;
  return parts;
}

/** A number, or the Long that protobuf.js makes of a 64-bit one. */
function numberOf(value: unknown): number | null {
  if (value === null || value === undefined) return null;
  const found = Number(value as number);
  return Number.isFinite(found) ? found : null;
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}
