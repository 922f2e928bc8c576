/**
 * What is shown, as a value, and how each thing that happens changes it. Nothing in here knows the network or the DOM.
 *
 * Messages are known by their id, and the page's own also by the client_id it gave them, so that whatever comes twice
 * (stream, history, poll, another tab) is shown once.
 */
import type { Attachment, Author, Choice, Delta, Message, Owner, Page } from './wire';

/** One of the page's own messages that is not yet in the log. */
export interface Pending {
  client_id: string;
  text: string;
  attachments: Attachment[];
  choice?: Choice | undefined;
  created_at: string;
  state: 'sending' | 'waiting' | 'refused' | 'accepted';
  reason: string;
}

/** The answer that is being written. */
export interface Draft {
  id: string;
  text: string;
  next: number;
  /** Pieces were missed: what is there stays as it is, until all of it comes. */
  isBroken: boolean;
}

export interface Conversation {
  /** In the order of the log, each once. */
  messages: readonly Message[];
  pending: readonly Pending[];
  draft: Draft | null;
  typing: Author | null;
  /** Who answers. */
  owner: Owner;
  /** Nobody has answered since that changed: the visitor is told. */
  isOwnerNew: boolean;
  /** There is more before the first message. */
  hasOlder: boolean;
  /** Where the stream goes on. */
  lastSeq: number;
  /** Up to here the visitor has seen it. */
  readUpTo: number;
}

export const EMPTY: Conversation = {
  messages: [],
  pending: [],
  draft: null,
  typing: null,
  owner: 'BOT',
  isOwnerNew: false,
  hasOlder: false,
  lastSeq: 0,
  readUpTo: 0,
};

/** A page of the log, of either end. `newer` holds what came after `lastSeq`; `newest` is the first look. */
export function withPage(state: Conversation, page: Page, kind: 'newest' | 'older' | 'newer'): Conversation {
  const next = page.data.reduce(withMessage, state);
  if (kind === 'older') return { ...state, messages: next.messages, pending: next.pending, hasOlder: page.more };
  // With more to come, the log's last number is not yet ours.
  if (kind === 'newer') return page.more ? next : { ...next, lastSeq: Math.max(next.lastSeq, Number(page.last_event_id)) };
  return { ...next, hasOlder: page.more, lastSeq: Number(page.last_event_id) };
}

export function withMessage(state: Conversation, message: Message): Conversation {
  const messages = state.messages.filter((other) => other.id !== message.id);
  let place = messages.length;
  while (place && messages[place - 1]!.seq > message.seq) place--;
  messages.splice(place, 0, message);
  const isAnswer = message.author !== 'user';
  return {
    ...state,
    messages,
    pending: state.pending.filter((own) => own.client_id !== message.client_id),
    draft: state.draft?.id === message.id ? null : state.draft,
    typing: isAnswer ? null : state.typing,
    // An answer says by itself who answers.
    owner: !isAnswer ? state.owner : message.author === 'agent' ? 'HUMAN' : 'BOT',
    isOwnerNew: state.isOwnerNew && !isAnswer,
    lastSeq: Math.max(state.lastSeq, message.seq),
    readUpTo: isAnswer && message.status === 'read' ? Math.max(state.readUpTo, message.seq) : state.readUpTo,
  };
}

export function withDelta(state: Conversation, delta: Delta): Conversation {
  if (state.messages.some((message) => message.id === delta.id)) return state;
  const last = state.draft?.id === delta.id ? state.draft : { id: delta.id, text: '', next: 0, isBroken: false };
  const draft = { ...last, next: Math.max(last.next, delta.i + 1) };
  // The first piece begins anew, also where the same answer is asked for a second time.
  if (delta.replace || delta.i === 0) {
    draft.text = delta.text;
    draft.isBroken = false;
    draft.next = delta.i + 1;
  } else if (delta.i === last.next && !last.isBroken) {
    draft.text += delta.text;
  } else if (delta.i > last.next) {
    draft.isBroken = true;
  }
  return { ...state, draft, typing: null, isOwnerNew: false };
}

/** Each connection says it anew; a human's taking over is told once. */
export function withOwner(state: Conversation, owner: Owner): Conversation {
  if (owner === 'HUMAN' && state.owner === owner) return state;
  return { ...state, owner, isOwnerNew: true, typing: owner === 'BOT' ? state.typing : null };
}

export function withFailed(state: Conversation, id: string): Conversation {
  return state.draft?.id === id ? { ...state, draft: null } : state;
}

export function withRead(state: Conversation, upTo: number): Conversation {
  return upTo > state.readUpTo ? { ...state, readUpTo: upTo } : state;
}

/** The outbox as it stands: what is ours, and what other tabs of the site have put into it, changed or taken out. */
export function withOutbox(state: Conversation, kept: readonly Pending[]): Conversation {
  const isKept = new Set(kept.map((own) => own.client_id));
  const isInLog = new Set(state.messages.map((message) => message.client_id));
  // What has left the outbox was accepted, and is shown until the log has it; what was refused was discarded.
  const accepted = state.pending
    .filter((own) => own.state !== 'refused' && !isKept.has(own.client_id))
    .map((own) => ({ ...own, state: 'accepted' as const }));
  return { ...state, pending: [...accepted, ...kept.filter((own) => !isInLog.has(own.client_id))] };
}

/** The last message that somebody else wrote. */
export function lastAnswer(state: Conversation): Message | undefined {
  return state.messages.findLast((message) => message.author !== 'user');
}

export function countUnread(state: Conversation): number {
  return state.messages.filter((message) => message.author !== 'user' && message.seq > state.readUpTo).length;
}
