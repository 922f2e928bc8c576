/** The log from top to bottom, as values: each row has a key that stays the same for as long as its message is shown. */
import type { Conversation, Pending } from './conversation';
import type { Attachment, Author, Content } from './wire';

/** Messages of one author that follow one another within this time stand together. */
const GROUP_MS = 5 * 60_000;

export interface Row {
  key: string;
  /** The server's id; empty where the message is not in its log. */
  id: string;
  author: Author;
  text: string;
  attachments: Attachment[];
  content?: Content | null;
  /** The id of the option that the visitor chose. */
  chosen?: string | undefined;
  at: Date;
  /** `streaming`: it is being written; without text there are only dots to show. */
  state: Pending['state'] | 'done' | 'streaming';
  reason: string;
  /** The first and the last of a group. */
  isFirst: boolean;
  isLast: boolean;
  /** The first of a day. */
  isNewDay: boolean;
  /** The newest of the visitor's own messages, whatever follows it. */
  isNewestOwn: boolean;
}

export function rowsOf(conversation: Conversation, greeting: string | null): Row[] {
  const rows: Row[] = [];
  let last: Row | undefined;

  function add(row: Omit<Row, 'isFirst' | 'isLast' | 'isNewDay' | 'isNewestOwn'>): void {
    const isNewDay = row.at.toDateString() !== last?.at.toDateString();
    const isFirst = isNewDay || last?.author !== row.author || Number(row.at) - Number(last.at) > GROUP_MS;
    if (last) last.isLast = isFirst;
    last = { ...row, isFirst, isNewDay, isLast: true, isNewestOwn: false };
    rows.push(last);
  }

  const first = conversation.messages[0] ?? conversation.pending[0];
  // The greeting is the beginning of it all, so it is only shown where the beginning is.
  if (greeting && !conversation.hasOlder) {
    const at = first ? new Date(first.created_at) : new Date();
    add({ key: 'greeting', id: '', author: 'assistant', text: greeting, attachments: [], at, state: 'done', reason: '' });
  }
  const chosen = new Map<string, string>();
  // What the server refused was not chosen.
  for (const { choice } of [...conversation.messages, ...conversation.pending.filter((own) => own.state !== 'refused')]) {
    if (choice) chosen.set(choice.message_id, choice.option_id);
  }
  for (const message of conversation.messages) {
    const { id, client_id } = message;
    add({ ...message, key: client_id ?? id, chosen: chosen.get(id), at: new Date(message.created_at), state: 'done', reason: '' });
  }
  for (const own of conversation.pending) {
    add({ ...own, key: own.client_id, id: '', author: 'user', at: new Date(own.created_at) });
  }
  const { draft, typing } = conversation;
  if (draft || typing) {
    const text = draft?.text ?? '';
    const key = text ? draft!.id : 'typing';
    add({ key, id: '', author: typing ?? 'assistant', text, attachments: [], at: new Date(), state: 'streaming', reason: '' });
  }
  const own = rows.findLast((row) => row.author === 'user');
  if (own) own.isNewestOwn = true;
  return rows;
}
