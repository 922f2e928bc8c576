import { expect, test } from 'vitest';
import { EMPTY, countUnread, lastAnswer, withDelta, withFailed, withMessage, withOutbox, withOwner, withPage, withRead } from '../src/conversation';
import type { Conversation, Pending } from '../src/conversation';
import { rowsOf } from '../src/rows';
import type { Message } from '../src/wire';

function message(seq: number, more: Partial<Message> = {}): Message {
  const created_at = `2026-11-24T12:${String(seq).padStart(2, '0')}:00`;
  return { id: `m${seq}`, seq, author: 'assistant', text: `text ${seq}`, client_id: null, status: 'sent', attachments: [], created_at, ...more };
}

function pending(client_id: string, more: Partial<Pending> = {}): Pending {
  return { client_id, text: client_id, attachments: [], created_at: '2026-11-24T12:30:00', state: 'sending', reason: '', ...more };
}

const ids = (state: Conversation): string => state.messages.map((one) => one.seq).join();
const delta = (id: string, i: number, text: string, replace = false): Parameters<typeof withDelta>[1] => ({ id, i, text, replace });

test('messages are in the order of the log and each once, however they come', () => {
  let state = EMPTY;
  for (const seq of [3, 1, 3, 2, 5, 2]) state = withMessage(state, message(seq));
  expect(ids(state)).toBe('1,2,3,5');
  expect(state.lastSeq).toBe(5);
  state = withMessage(state, message(2, { text: 'new' }));
  expect(state.messages[1]!.text).toBe('new');
});

test('what was chosen is marked at the message that offers it, unless the server refused it', () => {
  const chosen = (state: Conversation): (string | undefined)[] => rowsOf(state, null).map((row) => row.chosen);
  const choice = { message_id: 'm1', option_id: 'y' };
  const asked = withMessage(EMPTY, message(1));
  expect(chosen(asked)).toEqual([undefined]);
  expect(chosen(withOutbox(asked, [pending('c', { choice })]))).toEqual(['y', undefined]);
  expect(chosen(withOutbox(asked, [pending('c', { choice, state: 'refused' })]))).toEqual([undefined, undefined]);
  expect(chosen(withMessage(asked, message(2, { author: 'user', choice })))).toEqual(['y', undefined]);
});

test('pages: the newest sets the place, older ones do not move it, newer ones not past what they hold', () => {
  let state = withPage(EMPTY, { data: [message(8), message(9)], more: true, last_event_id: '12' }, 'newest');
  expect([state.lastSeq, state.hasOlder]).toEqual([12, true]);
  state = withPage(state, { data: [message(6), message(7)], more: false, last_event_id: '12' }, 'older');
  expect([ids(state), state.lastSeq, state.hasOlder]).toEqual(['6,7,8,9', 12, false]);
  state = withPage(state, { data: [message(13)], more: true, last_event_id: '20' }, 'newer');
  expect(state.lastSeq).toBe(13);
  state = withPage(state, { data: [message(20)], more: false, last_event_id: '21' }, 'newer');
  expect(state.lastSeq).toBe(21);
});

test('an older page leaves what happens at the other end alone', () => {
  const busy = { ...withDelta(EMPTY, delta('d', 0, 'a')), typing: 'agent' as const, owner: 'NONE' as const, isOwnerNew: true };
  const state = withPage(busy, { data: [message(1)], more: false, last_event_id: '1' }, 'older');
  expect([state.draft?.text, state.typing, state.owner, state.isOwnerNew, state.lastSeq]).toEqual(['a', 'agent', 'NONE', true, 0]);
});

test('who answers is told when it changes: a human once, the bot not at all', () => {
  const told = ({ owner, isOwnerNew }: Conversation): string => (isOwnerNew ? owner : '');
  let state = withOwner(EMPTY, 'NONE');
  expect(told(state)).toBe('NONE');
  state = withOwner(state, 'BOT');
  expect(told(state)).toBe('BOT');
  state = withOwner(state, 'HUMAN');
  expect(told(state)).toBe('HUMAN');
  state = withMessage(state, message(1, { author: 'agent' }));
  expect(told(withOwner(state, 'HUMAN'))).toBe('');
  expect(told(withOwner(state, 'NONE'))).toBe('NONE');
});

test('the newest own message is known as such, whatever row follows it', () => {
  const own = (state: Conversation): string => rowsOf(state, 'Hello').filter((row) => row.isNewestOwn).map((row) => row.key).join();
  let state = withMessage(withMessage(EMPTY, message(1, { author: 'user' })), message(2, { author: 'user' }));
  expect(own(state)).toBe('m2');
  expect(own({ ...state, typing: 'assistant' })).toBe('m2');
  expect(own(withDelta(state, delta('a', 0, 'Hel')))).toBe('m2');
  state = withMessage(state, message(3));
  expect(own(state)).toBe('m2');
  expect(own(withOutbox(state, [pending('x')]))).toBe('x');
});

test('pieces grow one answer, and its message takes its place', () => {
  let state = withDelta({ ...EMPTY, typing: 'assistant' }, delta('a', 0, 'Hel'));
  state = withDelta(state, delta('a', 1, 'lo'));
  expect([state.draft?.text, state.typing]).toEqual(['Hello', null]);
  state = withDelta(state, delta('a', 1, 'lo'));
  expect(state.draft?.text).toBe('Hello');
  state = withMessage(state, message(4, { id: 'a', text: 'Hello!' }));
  expect([state.draft, state.messages[0]!.text]).toEqual([null, 'Hello!']);
  expect(withDelta(state, delta('a', 2, '?'))).toBe(state);
});

test('after a gap the text stays until all of it comes', () => {
  let state = withDelta(EMPTY, delta('a', 0, 'one '));
  state = withDelta(state, delta('a', 2, 'three '));
  state = withDelta(state, delta('a', 3, 'four '));
  expect(state.draft?.text).toBe('one ');
  state = withDelta(state, delta('a', 4, 'one two three four five ', true));
  state = withDelta(state, delta('a', 5, 'six'));
  expect(state.draft?.text).toBe('one two three four five six');
});

test('who comes in the middle of an answer sees dots until all of it comes', () => {
  let state = withDelta(EMPTY, delta('a', 7, 'middle'));
  expect(state.draft?.text).toBe('');
  expect(rowsOf(state, null).map((row) => [row.key, row.text])).toEqual([['typing', '']]);
  state = withDelta(state, delta('a', 8, 'all', true));
  expect(state.draft?.text).toBe('all');
});

test('another answer takes over, the same one may begin anew, and a failed one goes', () => {
  let state = withDelta(EMPTY, delta('a', 0, 'a'));
  state = withDelta(state, delta('b', 0, 'b'));
  expect(state.draft).toMatchObject({ id: 'b', text: 'b' });
  state = withDelta(state, delta('b', 1, 'b'));
  state = withDelta(state, delta('b', 0, 'B'));
  expect(state.draft?.text).toBe('B');
  expect(withFailed(state, 'a').draft).not.toBeNull();
  expect(withFailed(state, 'b').draft).toBeNull();
});

test('unread is what others wrote after what was seen', () => {
  let state = withPage(EMPTY, { data: [message(1, { status: 'read' }), message(2), message(3, { author: 'user' }), message(4)], more: false, last_event_id: '4' }, 'newest');
  expect(countUnread(state)).toBe(2);
  expect(lastAnswer(state)?.seq).toBe(4);
  state = withRead(state, 2);
  expect(countUnread(state)).toBe(1);
  expect(withRead(state, 1)).toBe(state);
});

test('an own message is shown once on its way from the outbox into the log', () => {
  let state = withOutbox(EMPTY, [pending('x'), pending('y')]);
  state = withOutbox(state, [pending('y')]);
  expect(state.pending.map((own) => [own.client_id, own.state])).toEqual([['x', 'accepted'], ['y', 'sending']]);
  state = withMessage(state, message(7, { author: 'user', client_id: 'x' }));
  expect(state.pending.map((own) => own.client_id)).toEqual(['y']);
  expect(rowsOf(state, null).map((row) => row.key)).toEqual(['x', 'y']);
  // The outbox of another tab may still hold what the log has.
  expect(withOutbox(state, [pending('x'), pending('y')]).pending.map((own) => own.client_id)).toEqual(['y']);
});

test('what another tab does with the outbox is seen', () => {
  const state = withOutbox(EMPTY, [pending('a'), pending('b', { state: 'refused' }), pending('c')]);
  const next = withOutbox(state, [pending('c', { state: 'waiting' }), pending('d', { state: 'refused', reason: 'no' })]);
  // a was sent, b discarded, c tried in vain, d written and refused.
  expect(next.pending.map((own) => [own.client_id, own.state])).toEqual([['a', 'accepted'], ['c', 'waiting'], ['d', 'refused']]);
});

test('rows stand in groups of author, time and day', () => {
  const log = [
    message(1, { created_at: '2026-11-23T23:58:00' }),
    message(2, { created_at: '2026-11-24T00:01:00' }),
    message(3, { created_at: '2026-11-24T00:02:00' }),
    message(4, { created_at: '2026-11-24T00:02:10', author: 'agent' }),
    message(5, { created_at: '2026-11-24T00:20:00', author: 'agent' }),
  ];
  const state = withPage(EMPTY, { data: log, more: false, last_event_id: '5' }, 'newest');
  const shape = rowsOf(state, 'Hello').map((row) => `${row.key} ${row.isNewDay ? 'day ' : ''}${row.isFirst ? '(' : ''}${row.isLast ? ')' : ''}`);
  expect(shape).toEqual(['greeting day (', 'm1 )', 'm2 day (', 'm3 )', 'm4 ()', 'm5 ()']);
});

test('the greeting stands where the beginning is', () => {
  const page = { data: [message(5)], last_event_id: '5' };
  expect(rowsOf(withPage(EMPTY, { ...page, more: true }, 'newest'), 'Hello').map((row) => row.key)).toEqual(['m5']);
  expect(rowsOf(withPage(EMPTY, { ...page, more: false }, 'newest'), 'Hello').map((row) => row.key)).toEqual(['greeting', 'm5']);
});
