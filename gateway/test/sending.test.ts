import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { after, before, test } from 'node:test';
import { ANA, Data, Gateway, inbound, until, Webhook } from './harness.js';
import type { Body } from './harness.js';

let data: Data;
let webhook: Webhook;
let gateway: Gateway;

before(async () => {
  data = new Data();
  webhook = await Webhook.listen();
  gateway = await Gateway.start(data);
  await gateway.pair(webhook);
});
after(async () => {
  await gateway.kill();
  webhook.close();
  fs.rmSync(data.folder, { recursive: true });
});

function statuses(waId: unknown, session = 'demo'): Body[] {
  return webhook.of('status', session).filter(({ wa_id }) => wa_id === waId);
}

test('a message is written, acknowledged, and its repeat sends nothing', async () => {
  const first = await gateway.send('k-1', { to: '4915112345678', text: 'Hello' });
  assert.equal(first.status, 202);
  assert.match(String(first.body.wa_id), /^3EB0[0-9A-F]{18}$/);
  assert.equal(first.body.message_id, 'k-1');
  const repeat = await gateway.send('k-1', { to: ANA, text: 'Hello', reply_to: null, typing_ms: 5 });
  assert.deepEqual([repeat.status, repeat.body], [200, first.body]);
  const sends = data.lines('send');
  assert.deepEqual(sends.map(({ jid, id, text }) => [jid, id, text]), [[ANA, first.body.wa_id, 'Hello']]);
  await until('delivered', () => statuses(first.body.wa_id).length === 2);
  const [sent, delivered] = statuses(first.body.wa_id) as [Body, Body];
  assert.deepEqual([sent.status, delivered.status], ['sent', 'delivered']);
  assert.deepEqual([sent.message_id, sent.error, typeof sent.timestamp], ['k-1', null, 'number']);
});

test('read and played are both read; a receipt that says nothing new is not told', async () => {
  const { body } = await gateway.send('k-read', { to: ANA, text: 'read me' });
  await until('delivered', () => statuses(body.wa_id).length === 2);
  const keyOf = { remoteJid: ANA, fromMe: true, id: body.wa_id };
  for (const status of [3, 4, 5, 3]) {
    await gateway.emit('messages.update', [{ key: keyOf, update: { status, messageTimestamp: 1764000001 } }]);
  }
  await gateway.emit('messages.update', [{ key: { ...keyOf, fromMe: false }, update: { status: 4 } }]);
  await gateway.emit('messages.upsert', { type: 'notify', messages: [inbound('after-read', 'x')] });
  await until('the end', () => webhook.of('message').some(({ id }) => id === 'after-read'));
  assert.deepEqual(statuses(body.wa_id).map(({ status }) => status), ['sent', 'delivered', 'read']);
  assert.equal(statuses(body.wa_id).at(-1)?.timestamp, 1764000001);
});

test('a key that comes with another message is refused', async () => {
  const other = await gateway.send('k-1', { to: ANA, text: 'Something else' });
  assert.deepEqual([other.status, other.body.error.code], [422, 'key_reused']);
});

test('a key that is being sent is in flight', async () => {
  const first = gateway.send('k-slow', { to: ANA, text: 'slow', typing_ms: 400 });
  await until('it types', () => data.lines('presence').some(({ type }) => type === 'composing'));
  const second = await gateway.send('k-slow', { to: ANA, text: 'slow', typing_ms: 400 });
  assert.deepEqual([second.status, second.body.error.code, second.body.error.retryable], [409, 'in_flight', true]);
  assert.equal((await first).status, 202);
  assert.deepEqual(data.lines('presence').map(({ type }) => type), ['composing', 'paused']);
});

test('a message that answers another quotes it', async () => {
  await gateway.send('k-quote', { to: ANA, text: 'I mean this', reply_to: 'ABCDEF' });
  assert.equal(data.lines('send').at(-1)?.reply_to, 'ABCDEF');
});

test('what cannot be sent is refused before anything happens', async () => {
  const before = data.lines('send').length;
  const wrong: Record<string, unknown>[] = [
    { to: ANA, text: '' },
    { to: ANA, text: 'x'.repeat(65_537) },
    { to: ANA, text: 5 },
    { to: '123-456@g.us', text: 'x' },
    { to: 'Ana', text: 'x' },
    { to: ANA, text: 'x', type: 'image' },
    { to: ANA, text: 'x', typing_ms: 20_001 },
    { to: ANA, text: 'x', reply_to: '' },
    { text: 'x' },
  ];
  for (const message of wrong) {
    const answer = await gateway.send('k-wrong', message);
    assert.deepEqual([answer.status, answer.body.error.code, answer.body.error.retryable], [422, 'invalid', false]);
  }
  const keyless = await gateway.session('POST', '/messages', { to: ANA, type: 'text', text: 'x' });
  assert.deepEqual([keyless.status, keyless.body.error.code], [422, 'invalid']);
  const long = await gateway.send('k-long', { to: ANA, text: '😀'.repeat(65_536) });
  assert.equal(long.status, 202);
  assert.equal(data.lines('send').length, before + 1);
});

test('a number is looked up once, unless it wrote or was written to', async () => {
  await gateway.script('absent', { phones: ['4911111111'] });
  const stranger = await gateway.send('k-absent', { to: '4911111111', text: 'x' });
  assert.deepEqual([stranger.status, stranger.body.error.code], [422, 'not_on_whatsapp']);
  await gateway.send('k-absent', { to: '4911111111', text: 'x' });
  await gateway.send('k-found', { to: '4922222222', text: 'x' });
  await gateway.send('k-found-2', { to: '4922222222', text: 'y' });
  const bo = '4933333333@s.whatsapp.net';
  const fromBo = inbound('from-bo', 'x', { key: { remoteJid: bo } });
  await gateway.emit('messages.upsert', { type: 'notify', messages: [fromBo] });
  await gateway.send('k-bo', { to: bo, text: 'x' });
  await gateway.send('k-lid', { to: '88888888@lid', text: 'x' });
  const lookups = data.lines('lookup').map(({ jid }) => jid);
  const others = lookups.filter((jid) => jid !== ANA);
  assert.deepEqual(others, ['4911111111@s.whatsapp.net', '4922222222@s.whatsapp.net']);
});

test('an error that Baileys throws is told, and the repeat goes under the same id', async () => {
  const told: [rule: object, status: number, code: string][] = [
    [{ code: 428, message: 'Connection Closed' }, 409, 'not_connected'],
    [{ code: 408, message: 'Timed Out' }, 409, 'not_connected'],
    [{ code: 500, message: 'odd' }, 500, 'internal'],
  ];
  for (const [rule, status, code] of told) {
    await gateway.script('sends', { mode: 'throw', times: 1, ...rule });
    const failed = await gateway.send(`k-throw-${code}`, { to: ANA, text: 'try' });
    assert.deepEqual([failed.status, failed.body.error.code, failed.body.error.retryable], [status, code, true]);
  }
  const repeat = await gateway.send('k-throw-internal', { to: ANA, text: 'try' });
  assert.equal(repeat.status, 202);
});

test('error 463 is told as failed, and never tried again until the contact writes', async () => {
  const cy = '4944444444@s.whatsapp.net';
  const until463 = Math.floor(Date.now() / 1000) + 3600;
  await gateway.script('sends', { mode: 'error', code: 463, times: 1 });
  await gateway.script('lock', { isActive: true, until: until463 });
  const first = await gateway.send('k-463', { to: cy, text: 'cold' });
  assert.equal(first.status, 202);
  await until('failed', () => statuses(first.body.wa_id).length > 0);
  const [failed] = statuses(first.body.wa_id) as [Body];
  assert.deepEqual([failed.status, failed.error.code, failed.message_id], ['failed', '463', 'k-463']);
  await until('the restriction', () => webhook.of('session').at(-1)?.restricted_until === until463);
  const before = data.lines('send').length;
  const again = await gateway.send('k-463-b', { to: cy, text: 'cold again' });
  assert.deepEqual(
    [again.status, again.body.error.code, again.body.error.retryable, again.body.error.until],
    [423, 'restricted', false, until463],
  );
  const stranger = await gateway.send('k-463-c', { to: '4955555555', text: 'cold too' });
  assert.deepEqual([stranger.status, stranger.body.error.until], [423, until463]);
  assert.equal(data.lines('send').length, before);
  const fromCy = inbound('from-cy', 'x', { key: { remoteJid: cy } });
  await gateway.emit('messages.upsert', { type: 'notify', messages: [fromCy] });
  assert.equal((await gateway.send('k-463-b', { to: cy, text: 'cold again' })).status, 202);
  await gateway.emit('connection.update', { reachoutTimeLock: { isActive: false } });
  assert.equal((await gateway.session('GET')).body.restricted_until, null);
});

test('a rate limit of WhatsApp pauses the number for a minute', async () => {
  await gateway.pair(webhook, 'limited');
  await gateway.script('sends', { mode: 'throw', code: 500, message: 'rate-overlimit', times: 1 }, 'limited');
  const limited = await gateway.send('k-1', { to: ANA, text: 'x' }, 'limited');
  assert.deepEqual([limited.status, limited.body.error.code], [429, 'paced']);
  assert.equal(limited.body.error.retry_after_ms, 60_000);
  const next = await gateway.send('k-2', { to: ANA, text: 'y' }, 'limited');
  assert.equal(next.status, 429);
  assert.ok(next.body.error.retry_after_ms > 50_000);
});

test('a hundred callers at once are told a hundred times, and each gets in when it comes back', async () => {
  const place = new Data();
  const own = await Gateway.start(place, { GATEWAY_SEND_INTERVAL_MS: '50', GATEWAY_CHAT_INTERVAL_MS: '0' });
  await own.pair(webhook, 'paced');
  const callers = Array.from({ length: 100 }, (_, i) => ({ key: `p-${i}`, to: `${777_000_000 + i}@lid`, text: 'x' }));
  const firsts = await Promise.all(callers.map(({ key: k, ...message }) => own.send(k, message, 'paced')));
  const waits = firsts.filter(({ status }) => status === 429).map(({ body }) => body.error.retry_after_ms);
  // On a slow machine some arrive when the first slots are over.
  assert.ok(waits.length >= 50, `${waits.length} were told to wait`);
  const last = Math.max(...waits);
  assert.ok(last > waits.length * 40 && last < 99 * 65, `the last slot is in ${last} ms`);
  const answers = await Promise.all(
    callers.map(async ({ key: k, ...message }, i) => {
      const wait = firsts[i]?.body.error?.retry_after_ms ?? 0;
      await new Promise((resume) => setTimeout(resume, wait));
      return (await own.send(k, message, 'paced')).status;
    }),
  );
  assert.deepEqual(answers.filter((status) => status !== 202 && status !== 200), []);
  const times = place.lines('send', 'paced').map(({ time }) => time * 1000);
  assert.equal(times.length, 100);
  // The log is written only once a key is, which takes now longer and now shorter: single distances say little.
  assert.ok(Math.max(...times) - Math.min(...times) > 99 * 50 * 0.8 - 50);
  await own.kill();
});

test('messages to one person keep their distance, and the day its cap', async () => {
  const place = new Data();
  const env = { GATEWAY_SEND_INTERVAL_MS: '0', GATEWAY_CHAT_INTERVAL_MS: '300', GATEWAY_DAILY_CAP: '2' };
  let own = await Gateway.start(place, env);
  await own.pair(webhook, 'capped');
  assert.equal((await own.send('c-1', { to: ANA, text: '1' }, 'capped')).status, 202);
  const close = await own.send('c-2', { to: ANA, text: '2' }, 'capped');
  assert.deepEqual([close.status, close.body.error.code], [429, 'paced']);
  assert.ok(close.body.error.retry_after_ms <= 300);
  const other = await own.send('c-3', { to: '77777777@lid', text: '3' }, 'capped');
  assert.equal(other.status, 202, 'another person need not wait');
  const capped = await own.send('c-4', { to: '77777778@lid', text: '4' }, 'capped');
  assert.deepEqual([capped.status, capped.body.error.code], [429, 'capped']);
  assert.ok(capped.body.error.retry_after_ms <= 86_400_000);
  await own.kill();
  own = await Gateway.start(place, env);
  await own.become('open', 'capped');
  const after = await own.send('c-5', { to: ANA, text: '5' }, 'capped');
  assert.equal(after.body.error.code, 'capped', 'the day is counted over a restart');
  await own.kill();
});
