/** The chat without its looks: joins session, stream, outbox and conversation, and tells when something has changed. */
import { asBlob, asFailure, asJson, asNothing } from './api';
import {
  EMPTY,
  lastAnswer,
  withDelta,
  withFailed,
  withMessage,
  withOutbox,
  withOwner,
  withPage,
  withRead,
} from './conversation';
import type { Conversation } from './conversation';
import { parseJson } from './json';
import { createOutbox } from './outbox';
import { backoff, createPause } from './pause';
import { createSession } from './session';
import type { Storage } from './storage';
import { createStream } from './stream';
import { uuid } from './uuid';
import type { Accepted, Attachment, Choice, Config, Delta, Identity, Message, Owner, Page } from './wire';

const PAGE_SIZE = 30;
/** A break that ends sooner than this is not shown. */
const LOST_AFTER_MS = 2_000;
const TYPING_LASTS_MS = 30_000;
/** An answer of which nothing more was heard for so long is not shown half-written any longer. */
const DRAFT_LASTS_MS = 60_000;
const TYPING_EVERY_MS = 3_000;

export interface ChatOptions {
  base: string;
  siteKey: string;
  storage: Storage;
  pageUrl: () => string;
  changed: () => void;
  /** For the page: `message` (a new one of somebody else's), `sent` (one of ours was accepted). */
  tell: (event: 'message' | 'sent', detail: unknown) => void;
}

export interface Chat {
  readonly conversation: Conversation;
  /** Null until the server has told it, in this page load or an earlier one. */
  readonly config: Config | null;
  /** The history is there. */
  readonly isLoaded: boolean;
  /** There has been no connection for a while. */
  readonly isLost: boolean;
  /** The server will not have this site or visitor. */
  readonly isRefused: boolean;
  /** This browser has a conversation, or something to send. */
  readonly isKnown: boolean;
  start(): void;
  stop(): void;
  /** The network is back, or the tab is looked at again. */
  wake(): void;
  /** The network is gone. */
  drop(): void;
  /** Whether the visitor has the messages before their eyes. */
  watched(isWatched: boolean): void;
  /** False if there are too many unsent messages already. */
  send(text: string, attachments: Attachment[], choice?: Choice): boolean;
  retry(clientId: string): void;
  discard(clientId: string): void;
  loadOlder(): Promise<void>;
  typing(isOn: boolean): void;
  upload(file: File): Promise<Attachment>;
  download(attachment: Attachment): Promise<Blob>;
  identify(identity: Identity): void;
  logout(): Promise<void>;
  /** Another tab has changed what is kept under this key. */
  storageChanged(key: string | null): void;
}

export function createChat(options: ChatOptions): Chat {
  const { storage, changed } = options;
  const outbox = createOutbox(storage);
  const sendPause = createPause();
  let conversation = withOutbox(EMPTY, outbox.all());
  let config = parseJson<Config | null>(storage.get('config'), null);
  /** Counts conversations: an answer that was asked for in an earlier one is not shown in this one. */
  let epoch = 0;
  let isLoaded = false;
  let isLost = false;
  let isRefused = false;
  let isWatched = false;
  let isLoadingOlder = false;
  let sending: AbortController | null = null;
  let lostTimer: ReturnType<typeof setTimeout> | undefined;
  let typingTimer: ReturnType<typeof setTimeout> | undefined;
  let draftTimer: ReturnType<typeof setTimeout> | undefined;
  let typedAt = 0;

  function show(next: Conversation): void {
    conversation = next;
    changed();
  }

  const session = createSession({
    ...options,
    made(answer, isOther) {
      config = answer.config;
      storage.set('config', JSON.stringify(config));
      if (outbox.dropOfOthers(answer.conversation_id)) conversation = { ...conversation, pending: [] };
      if (isOther) startAnew();
      else showOutbox();
    },
  });

  /** The conversation that unsent messages belong to, if they are a known user's. */
  function owner(): string | null {
    const current = session.current();
    return current?.verified ? current.conversation_id : null;
  }

  /** Forgets what is shown; it is loaded again before the next connection. */
  function startAnew(): void {
    epoch++;
    isLoaded = false;
    acknowledged.read = acknowledged.delivered = 0;
    show(withOutbox(EMPTY, outbox.all()));
    stream.restart();
  }

  function showOutbox(): void {
    show(withOutbox(conversation, outbox.all()));
  }

  // --- what comes -----------------------------------------------------------------------------------------------------

  const stream = createStream({
    call: session.call,
    after: () => conversation.lastSeq,
    async prepare() {
      while (!isLoaded) {
        const asked = epoch;
        const page = await session.call(`/messages?limit=${PAGE_SIZE}`, {}, asJson<Page>);
        if (asked !== epoch) continue;
        isLoaded = true;
        show(withPage(conversation, page, 'newest'));
        acknowledge();
      }
      void flush();
    },
    event(name, data) {
      try {
        handle(name, JSON.parse(data));
      } catch {
        // An event that cannot be read is passed over; what matters of it is in the history.
      }
    },
    page(page) {
      page.data.forEach(arrived);
      show(withPage(conversation, page, 'newer'));
    },
    connected(isConnected) {
      if (isConnected) {
        clearTimeout(lostTimer);
        lostTimer = undefined;
        if (isLost) lost(false);
        sendPause.wake();
      } else {
        lostTimer ??= setTimeout(lost, LOST_AFTER_MS, true);
      }
    },
    refused,
  });

  function lost(now: boolean): void {
    isLost = now;
    changed();
  }

  function refused(why?: string): void {
    isRefused = true;
    if (why) console.error(`replyline-chat: ${why}`);
    stop();
    changed();
  }

  /** What each event's data looks like is in the protocol. */
  function handle(name: string, data: unknown): void {
    if (name === 'message.created' || name === 'message.completed') {
      arrived(data as Message);
    } else if (name === 'message.delta') {
      clearTimeout(draftTimer);
      draftTimer = setTimeout(() => show({ ...conversation, draft: null }), DRAFT_LASTS_MS);
      show(withDelta(conversation, data as Delta));
    } else if (name === 'message.failed') {
      show(withFailed(conversation, (data as { id: string }).id));
    } else if (name === 'message.status') {
      const { up_to, status } = data as { up_to?: number; status: string };
      if (status === 'read' && up_to) show(withRead(conversation, up_to));
      if (status === 'processing') typing('assistant');
    } else if (name === 'typing') {
      const { on, author } = data as { on: boolean; author: 'assistant' | 'agent' | 'user' };
      if (author !== 'user') typing(on ? author : null);
    } else if (name === 'conversation.owner') {
      show(withOwner(conversation, (data as { owner: Owner }).owner));
    } else if (name === 'reset') {
      startAnew();
    }
  }

  function arrived(message: Message): void {
    const isNew = !conversation.messages.some((known) => known.id === message.id);
    if (message.client_id) outbox.remove(message.client_id);
    show(withMessage(conversation, message));
    if (!isNew || message.author === 'user') return;
    acknowledge();
    options.tell('message', message);
  }

  function typing(author: 'assistant' | 'agent' | null): void {
    clearTimeout(typingTimer);
    if (author) typingTimer = setTimeout(typing, TYPING_LASTS_MS, null);
    show({ ...conversation, typing: author, isOwnerNew: conversation.isOwnerNew && !author });
  }

  // --- what was seen --------------------------------------------------------------------------------------------------

  const acknowledged = { read: 0, delivered: 0 };
  let isAcknowledging = false;

  function acknowledge(): void {
    const last = lastAnswer(conversation);
    const state = isWatched ? 'read' : 'delivered';
    if (!last || !isLoaded) return;
    if (isWatched) show(withRead(conversation, last.seq));
    const isTold = last.status === 'read' || last.status === state || acknowledged.read >= last.seq || acknowledged[state] >= last.seq;
    if (isTold || isAcknowledging) return;
    isAcknowledging = true;
    const asked = epoch;
    session.call('/read', { json: { up_to: last.seq, state } }, asNothing).then(
      () => {
        isAcknowledging = false;
        if (asked === epoch) acknowledged[state] = last.seq;
        acknowledge();
      },
      // The next message, or the next look, tries it again.
      () => (isAcknowledging = false),
    );
  }

  // --- what goes ------------------------------------------------------------------------------------------------------

  /** Sends what is in the outbox, one after the other; between attempts other tabs may. */
  async function flush(): Promise<void> {
    if (sending) return;
    const run = (sending = new AbortController());
    let failures = 0;
    while (!run.signal.aborted && outbox.next()) {
      const delay = await alone(storage.key('outbox'), sendNext);
      if (run.signal.aborted) return;
      if (delay === 0) failures = 0;
      else await sendPause.wait(delay ?? backoff(failures++), delay !== null);
    }
    if (sending === run) sending = null;
  }

  /** Gives the milliseconds to wait before the next; null: as the backoff says. */
  async function sendNext(): Promise<number | null> {
    const item = outbox.next();
    if (!item) return 0;
    const { client_id, text, choice } = item;
    try {
      const attachments = item.attachments.map((attachment) => attachment.id);
      const accepted = await session.call('/messages', { json: { client_id, text, attachments, choice } }, asJson<Accepted>);
      takeOut(client_id);
      options.tell('sent', { id: accepted.id, client_id });
      return 0;
    } catch (error) {
      const failure = asFailure(error);
      const { detail = '', retry_after_ms = null } = failure.problem;
      if (failure.fatal) refused(detail);
      else if (failure.isRefusal) {
        change(client_id, 'refused', detail);
        return 0;
      }
      if (failure.status !== 429 || retry_after_ms! > 6e4) change(client_id, 'waiting');
      return retry_after_ms || null;
    }
  }

  function change(clientId: string, state: 'sending' | 'waiting' | 'refused', reason = ''): void {
    outbox.change(clientId, { state, reason });
    showOutbox();
  }

  /** Out of the outbox: it was accepted, or it is given up. */
  function takeOut(clientId: string): void {
    outbox.remove(clientId);
    showOutbox();
  }

  function stop(): void {
    stream.stop();
    sending?.abort();
    sending = null;
    sendPause.wake();
    clearTimeout(lostTimer);
    lostTimer = undefined;
    isLost = false;
  }

  return {
    get conversation() {
      return conversation;
    },
    get config() {
      return config;
    },
    get isLoaded() {
      return isLoaded;
    },
    get isLost() {
      return isLost;
    },
    get isRefused() {
      return isRefused;
    },
    get isKnown() {
      return session.isKnown() || outbox.all().length > 0;
    },
    start() {
      if (!isRefused) stream.start();
    },
    stop,
    wake() {
      stream.wake();
      sendPause.wake();
      if (isLoaded) void flush();
      acknowledge();
    },
    drop: stream.drop,
    watched(now) {
      isWatched = now;
      acknowledge();
    },
    send(text, attachments, choice) {
      const client_id = uuid();
      const created_at = new Date().toISOString();
      const item = { client_id, text, attachments, choice, created_at, state: 'sending' as const, reason: '', owner: owner() };
      if (!outbox.add(item)) return false;
      showOutbox();
      stream.start();
      void flush();
      return true;
    },
    retry(clientId) {
      change(clientId, 'sending');
      void flush();
    },
    discard: takeOut,
    async loadOlder() {
      const first = conversation.messages[0];
      if (isLoadingOlder || !first || !conversation.hasOlder) return;
      isLoadingOlder = true;
      const asked = epoch;
      try {
        const page = await session.call(`/messages?before=${first.seq}&limit=${PAGE_SIZE}`, {}, asJson<Page>);
        if (asked === epoch) show(withPage(conversation, page, 'older'));
      } catch {
        // Scrolling on asks again.
      } finally {
        isLoadingOlder = false;
      }
    },
    typing(isOn) {
      // Only what was begun is ended, and what goes on is said again now and then.
      if (!session.current() || (isOn ? Date.now() - typedAt < TYPING_EVERY_MS : !typedAt)) return;
      typedAt = isOn ? Date.now() : 0;
      session.call('/typing', { json: { on: isOn } }, asNothing).catch(() => {});
    },
    upload: (file) =>
      session.call(`/uploads?filename=${encodeURIComponent(file.name)}`, { file, timeoutMs: 120_000 }, asJson<Attachment>),
    download: (attachment) => session.call(`/uploads/${encodeURIComponent(attachment.id)}`, { timeoutMs: 120_000 }, asBlob),
    identify(identity) {
      const wasKnown = owner() !== null;
      if (!session.identify(identity)) return;
      // A stranger goes on reading until the new session shows whose conversation it is; after a known user nobody does.
      stop();
      if (wasKnown) startAnew();
      isLoaded = isRefused = false;
      stream.start();
    },
    async logout() {
      stop();
      isRefused = false;
      outbox.clear();
      const over = session.logout();
      startAnew();
      await over;
    },
    storageChanged(key) {
      if (key === storage.key('outbox')) showOutbox();
    },
  };
}

/** Runs it while no other tab runs its own, where the browser can tell; where not, client_id makes a double send harmless. */
function alone<T>(name: string, work: () => Promise<T>): Promise<T> {
  const locks = globalThis.navigator?.locks;
  // A sandboxed frame has the locks, but may not use them. The work itself never fails.
  return locks ? (locks.request(name, work) as Promise<T>).catch(work) : work();
}
