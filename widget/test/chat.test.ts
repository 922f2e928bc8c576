/** The chat against the stand-in over real HTTP: what is shown, what the server got, and what was lost or doubled (nothing). */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createChat } from '../src/chat';
import type { Chat } from '../src/chat';
import { countUnread } from '../src/conversation';
import { createStorage } from '../src/storage';
import type { Message } from '../src/wire';
import { Standin } from './standin';

class Browser {
  readonly kept = new Map<string, string>();
  readonly pages: Chat[] = [];
  readonly told: { event: string; detail: unknown }[] = [];

  getItem = (key: string): string | null => this.kept.get(key) ?? null;
  setItem = (key: string, value: string): void => void this.kept.set(key, value);
  removeItem = (key: string): void => void this.kept.delete(key);

  /** A page with the widget on it, as it is after loading. */
  page(): Chat {
    const chat = createChat({
      base: `${standin.url}/widget/v1`,
      siteKey: 'site_1',
      storage: createStorage('site_1', () => this),
      pageUrl: () => 'https://shop.example/bread',
      changed: () => {},
      tell: (event, detail) => this.told.push({ event, detail }),
    });
    this.pages.push(chat);
    return chat;
  }
}

let standin: Standin;
let browser: Browser;

beforeEach(async () => {
  standin = await new Standin().start();
  browser = new Browser();
});

afterEach(async () => {
  for (const page of browser.pages) page.stop();
  await standin.stop();
});

const until = <T>(check: () => T, timeout = 5_000): Promise<T> => vi.waitFor(check, { timeout, interval: 10 });
const texts = (chat: Chat): string[] => chat.conversation.messages.map((message) => message.text);
const states = (chat: Chat): string[] => chat.conversation.pending.map((own) => `${own.text}: ${own.state}`);
const connected = (): Promise<void> => until(() => expect(standin.talk.streams.size).toBe(1));

async function open(): Promise<Chat> {
  const chat = browser.page();
  chat.start();
  await connected();
  return chat;
}

test('a stranger costs nothing until the chat is opened, and is known afterwards', async () => {
  expect(browser.page().isKnown).toBe(false);
  const chat = await open();
  expect(standin.sessions).toEqual([{ site_key: 'site_1', visitor_token: null, user: null, user_token: null, page_url: 'https://shop.example/bread' }]);
  expect([chat.isLoaded, chat.config?.title]).toEqual([true, "Blum's Bakery"]);
  const again = browser.page();
  expect([again.isKnown, again.config?.title]).toEqual([true, "Blum's Bakery"]);
});

test('a message is shown at once, accepted, and stands in the log once', async () => {
  const chat = await open();
  chat.send('Hello', []);
  expect(states(chat)).toEqual(['Hello: sending']);
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  await until(() => expect(browser.told).toHaveLength(1));
  const { client_id } = standin.posts[0]!;
  expect(browser.told[0]).toEqual({ event: 'sent', detail: { id: standin.talk.log[0]!.id, client_id } });
  expect([states(chat), browser.kept.has('replyline:site_1:outbox')]).toEqual([[], false]);
});

test('an answer grows piece by piece and is then the message', async () => {
  const chat = await open();
  const seen = new Set<string>();
  standin.answer = () => 'An answer of some length.';
  chat.send('Hello', []);
  await until(() => {
    seen.add(chat.conversation.draft?.text ?? '');
    expect(texts(chat)).toEqual(['Hello', 'An answer of some length.']);
  });
  expect(seen).toContain('An ans');
  expect(chat.conversation).toMatchObject({ draft: null, typing: null });
  expect(browser.told.find(({ event }) => event === 'message')?.detail).toMatchObject({ author: 'assistant', text: 'An answer of some length.' });
});

test('what is written while the server is away is sent when it is back, in order, also by another page', async () => {
  const chat = await open();
  const port = Number(new URL(standin.url).port);
  await standin.stop();
  for (const text of ['one', 'two', 'three']) chat.send(text, []);
  await until(() => expect(states(chat)).toEqual(['one: waiting', 'two: sending', 'three: sending']));
  chat.stop();

  const reloaded = browser.page();
  expect([reloaded.isKnown, states(reloaded)]).toEqual([true, ['one: waiting', 'two: sending', 'three: sending']]);
  await standin.start(port);
  reloaded.start();
  await until(() => expect(texts(reloaded)).toEqual(['one', 'two', 'three']));
  expect(standin.posts.map((post) => post.text)).toEqual(['one', 'two', 'three']);
});

test('an answer that is lost on its way makes no second message', async () => {
  const chat = await open();
  standin.fail('POST /messages', { status: 503, isLate: true }, 2);
  chat.send('Hello', []);
  await until(() => expect(browser.kept.has('replyline:site_1:outbox')).toBe(false));
  await until(() => expect(states(chat)).toEqual([]));
  expect(texts(chat)).toEqual(['Hello']);
  expect(new Set(standin.posts.map((post) => post.client_id)).size).toBe(1);
});

test('two pages of one visitor send nothing twice and both show all of it', async () => {
  const one = await open();
  const other = browser.page();
  other.start();
  await until(() => expect(standin.talk.streams.size).toBe(2));
  one.send('from one', []);
  other.send('from the other', []);
  await until(() => expect(texts(one)).toHaveLength(2));
  await until(() => expect(texts(other)).toEqual(texts(one)));
  expect(standin.talk.log).toHaveLength(2);
});

test('a refused message says why, does not hold up the next, and can be tried again or discarded', async () => {
  const chat = await open();
  standin.fail('POST /messages', { status: 422, body: { detail: 'Too rude.' } });
  chat.send('rude', []);
  chat.send('polite', []);
  await until(() => expect(texts(chat)).toEqual(['polite']));
  expect(chat.conversation.pending).toMatchObject([{ text: 'rude', state: 'refused', reason: 'Too rude.' }]);
  const { client_id } = chat.conversation.pending[0]!;
  // It is still there after a reload, and not sent by itself.
  expect(browser.page().conversation.pending).toMatchObject([{ state: 'refused', reason: 'Too rude.' }]);

  standin.fail('POST /messages', { status: 413, body: { detail: 'Too long.' } });
  chat.retry(client_id);
  await until(() => expect(chat.conversation.pending[0]?.reason).toBe('Too long.'));
  chat.retry(client_id);
  await until(() => expect(texts(chat)).toEqual(['polite', 'rude']));
  expect(standin.talk.log.at(-1)?.client_id).toBe(client_id);

  standin.fail('POST /messages', { status: 415 });
  chat.send('odd', []);
  await until(() => expect(states(chat)).toEqual(['odd: refused']));
  chat.discard(chat.conversation.pending[0]!.client_id);
  expect([states(chat), browser.page().conversation.pending]).toEqual([[], []]);
});

test('a rate limit is waited out', async () => {
  const chat = await open();
  standin.fail('POST /messages', { status: 429, body: { code: 'rate_limited', retry_after_ms: 400 } });
  const began = Date.now();
  chat.send('Hello', []);
  chat.wake();
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  expect(Date.now() - began).toBeGreaterThanOrEqual(390);
});

test('a session that is not known any more is made anew, and the call repeated', async () => {
  const chat = await open();
  standin.forgetTokens();
  chat.send('Hello', []);
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  expect(standin.sessions).toHaveLength(2);
  expect(standin.sessions[1]!.visitor_token).not.toBeNull();
  expect(standin.talks.size).toBe(1);
});

test('a session near its end is not used any more', async () => {
  standin.expiresIn = 30;
  const chat = await open();
  const before = standin.sessions.length;
  chat.send('Hello', []);
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  expect(standin.sessions.length).toBeGreaterThan(before);
});

test('where the visitor is forgotten another conversation begins, and the old one is not shown', async () => {
  const chat = await open();
  chat.send('old', []);
  await until(() => expect(texts(chat)).toEqual(['old']));
  standin.forgetVisitors();
  standin.cutStreams();
  await until(() => expect(standin.talks.size).toBe(2));
  await connected();
  await until(() => expect(texts(chat)).toEqual([]));
  standin.say('assistant', 'new');
  await until(() => expect(texts(chat)).toEqual(['new']));
});

test('a site that is refused is not asked again', async () => {
  standin.fail('POST /sessions', { status: 403, body: { code: 'origin_not_allowed' } }, 10);
  const chat = browser.page();
  chat.start();
  await until(() => expect(chat.isRefused).toBe(true));
  chat.wake();
  chat.start();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(standin.sessions).toHaveLength(0);
});

test('nothing is lost or doubled while streams break', async () => {
  const chat = await open();
  for (let i = 0; i < 120; i++) {
    standin.say(i % 3 ? 'assistant' : 'agent', `text ${i}`);
    if (i % 20 === 7) {
      standin.cutStreams();
      chat.wake();
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  }
  await until(() => expect(texts(chat)).toHaveLength(120), 8_000);
  expect(texts(chat)).toEqual(standin.talk.log.map((message) => message.text));
  const told = browser.told.map(({ detail }) => (detail as Message).text);
  expect(told).toEqual(texts(chat));
}, 15_000);

test('a lost connection is told after a while, and its return at once', async () => {
  const chat = await open();
  const port = Number(new URL(standin.url).port);
  await standin.stop();
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(chat.isLost).toBe(false);
  await until(() => expect(chat.isLost).toBe(true));
  await standin.start(port);
  chat.wake();
  await until(() => expect(chat.isLost).toBe(false));
}, 10_000);

test('with too many streams it polls, and misses nothing', async () => {
  standin.maxStreams = 0;
  const chat = browser.page();
  chat.start();
  await until(() => expect(chat.isLoaded).toBe(true));
  chat.send('Hello', []);
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  standin.say('assistant', 'answer');
  await until(() => expect(texts(chat)).toEqual(['Hello', 'answer']));
  expect([chat.isLost, browser.told.map(({ event }) => event).sort()]).toEqual([false, ['message', 'sent']]);
});

test('after a reset the history is there anew', async () => {
  const chat = await open();
  standin.say('assistant', 'one');
  await until(() => expect(texts(chat)).toEqual(['one']));
  const talk = standin.talk;
  talk.log.splice(0);
  standin.say('assistant', 'changed', { seq: 1 });
  standin.emit('reset', { reason: 'gone' });
  await until(() => expect(texts(chat)).toEqual(['changed']));
  await connected();
  standin.say('assistant', 'next');
  await until(() => expect(texts(chat)).toEqual(['changed', 'next']));
});

test('the history comes page by page', async () => {
  const talk = standin.newTalk();
  for (let i = 1; i <= 70; i++) standin.say(i % 2 ? 'user' : 'assistant', `text ${i}`, {}, talk);
  browser.kept.set('replyline:site_1:visitor', standin.knownVisitor(talk));
  const chat = await open();
  expect([texts(chat).length, texts(chat)[0], chat.conversation.hasOlder]).toEqual([30, 'text 41', true]);
  await Promise.all([chat.loadOlder(), chat.loadOlder()]);
  expect([texts(chat).length, chat.conversation.hasOlder]).toEqual([60, true]);
  await chat.loadOlder();
  await chat.loadOlder();
  expect([texts(chat).length, texts(chat)[0], chat.conversation.hasOlder]).toEqual([70, 'text 1', false]);
  expect(browser.told).toEqual([]);
});

test('what came is told: delivered while closed, read when it is looked at', async () => {
  const chat = await open();
  standin.say('assistant', 'one');
  await until(() => expect(standin.talk.reads).toEqual([{ up_to: 1, state: 'delivered' }]));
  expect(countUnread(chat.conversation)).toBe(1);
  chat.watched(true);
  expect(countUnread(chat.conversation)).toBe(0);
  await until(() => expect(standin.talk.reads.at(-1)).toEqual({ up_to: 1, state: 'read' }));
  standin.say('agent', 'two');
  await until(() => expect(standin.talk.reads.at(-1)).toEqual({ up_to: 2, state: 'read' }));
  chat.watched(false);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(standin.talk.reads).toHaveLength(3);
});

test('what another tab has read is not unread here', async () => {
  const chat = await open();
  standin.say('assistant', 'one');
  await until(() => expect(countUnread(chat.conversation)).toBe(1));
  standin.emit('message.status', { up_to: 1, status: 'read' });
  await until(() => expect(countUnread(chat.conversation)).toBe(0));
});

test('typing is shown both ways, and closing', async () => {
  const chat = await open();
  standin.emit('typing', { on: true, author: 'user' });
  standin.emit('typing', { on: true, author: 'agent' });
  await until(() => expect(chat.conversation.typing).toBe('agent'));
  standin.emit('typing', { on: false, author: 'agent' });
  await until(() => expect(chat.conversation.typing).toBeNull());
  standin.emit('message.status', { id: 'x', status: 'processing' });
  await until(() => expect(chat.conversation.typing).toBe('assistant'));
  standin.emit('conversation.owner', { owner: 'NONE' });
  await until(() => expect(chat.conversation).toMatchObject({ typing: null, owner: 'NONE', isOwnerNew: true }));
  standin.emit('conversation.owner', { owner: 'BOT' });
  await until(() => expect(chat.conversation).toMatchObject({ owner: 'BOT' }));
  standin.emit('conversation.owner', { owner: 'NONE' });
  await until(() => expect(chat.conversation).toMatchObject({ owner: 'NONE' }));
  standin.emit('something.new', { a: 1 });
  standin.say('agent', 'back');
  await until(() => expect(chat.conversation).toMatchObject({ owner: 'HUMAN', isOwnerNew: false }));

  chat.typing(false);
  chat.typing(true);
  chat.typing(true);
  chat.typing(false);
  await until(() => expect(standin.talk.typing).toHaveLength(2));
  expect(standin.talk.typing.sort()).toEqual([false, true]);
});

test('a choice is sent also after a reload, and one that is none is not sent at all', async () => {
  const chat = await open();
  const choice = { message_id: standin.say('assistant', 'Deliver?').id, option_id: 'y' };
  standin.fail('POST /messages', { status: 503 }, 100);
  chat.send('Yes', [], choice);
  await until(() => expect(states(chat)).toEqual(['Yes: waiting']));
  chat.stop();
  standin.mend();
  const again = await open();
  await until(() => expect(again.conversation.messages.at(-1)).toMatchObject({ text: 'Yes', choice }));
  again.send('Hello', []);
  await until(() => expect(standin.bodies.at(-1)).toEqual({ client_id: expect.any(String) as string, text: 'Hello', attachments: [] }));
});

test('files go up and come down', async () => {
  const chat = await open();
  const file = await chat.upload(new File(['bread'], 'ä & b.txt', { type: 'text/plain' }));
  expect(file).toMatchObject({ name: 'ä & b.txt', mime_type: 'text/plain', size: 5 });
  chat.send('', [file]);
  await until(() => expect(chat.conversation.messages[0]?.attachments).toEqual([file]));
  expect(await (await chat.download(file)).text()).toBe('bread');
});

test('another user sees nothing of the one before, and sends nothing in their name', async () => {
  const chat = browser.page();
  chat.identify({ id: 'u1', hash: 'h1' });
  chat.start();
  await until(() => expect(chat.isLoaded).toBe(true));
  await connected();
  expect(standin.sessions).toMatchObject([{ user: { id: 'u1', hash: 'h1' }, user_token: null }]);
  standin.say('assistant', 'for u1');
  await until(() => expect(texts(chat)).toEqual(['for u1']));
  standin.fail('POST /messages', { status: 503 });
  chat.send('from u1', []);
  await until(() => expect(states(chat)).toEqual(['from u1: waiting']));

  chat.identify({ id: 'u1', hash: 'h1' });
  expect(texts(chat)).toEqual(['for u1']);
  chat.identify({ id: 'u2', hash: 'h2' });
  expect(texts(chat)).toEqual([]);
  await until(() => expect(standin.sessions.at(-1)).toMatchObject({ user: { id: 'u2' }, visitor_token: null }));
  await connected();
  expect([states(chat), standin.posts]).toEqual([[], []]);

  chat.identify({ token: 'jwt-of-u1' });
  await until(() => expect(standin.sessions.at(-1)).toMatchObject({ user: null, user_token: 'jwt-of-u1' }));
});

test('a stranger who is then known takes along what was not sent yet', async () => {
  const chat = await open();
  standin.fail('POST /messages', { status: 503 });
  chat.send('Hello', []);
  await until(() => expect(states(chat)).toEqual(['Hello: waiting']));
  chat.identify({ id: 'u1', hash: 'h1' });
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  expect(standin.talks.size).toBe(2);
});

test('logging out leaves nothing behind, here and on the server', async () => {
  const chat = await open();
  chat.send('Hello', []);
  await until(() => expect(texts(chat)).toEqual(['Hello']));
  const visitor = browser.kept.get('replyline:site_1:visitor');
  await chat.logout();
  expect([texts(chat), states(chat), chat.isKnown]).toEqual([[], [], false]);
  chat.start();
  await until(() => expect(standin.talks.size).toBe(2));
  await connected();
  expect(standin.sessions.at(-1)?.visitor_token).toBeNull();
  browser.kept.set('replyline:site_1:visitor', visitor!);
  const old = browser.page();
  old.start();
  await until(() => expect(old.isLoaded).toBe(true));
  expect(texts(old)).toEqual([]);
});
