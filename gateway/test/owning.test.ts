import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { after, test } from 'node:test';
import { ANA, config, Data, Gateway, inbound, until, Webhook } from './harness.js';

const running = new Set<Gateway>();
const places: Data[] = [];
const webhooks: Webhook[] = [];

after(async () => {
  for (const gateway of running) await gateway.kill();
  for (const webhook of webhooks) webhook.close();
  for (const place of places) fs.rmSync(place.folder, { recursive: true });
});

async function start(data: Data, env: Record<string, string> = {}): Promise<Gateway> {
  const gateway = await Gateway.start(data, env);
  running.add(gateway);
  return gateway;
}

async function setting(): Promise<{ data: Data; webhook: Webhook }> {
  const data = new Data();
  const webhook = await Webhook.listen();
  places.push(data);
  webhooks.push(webhook);
  return { data, webhook };
}

test('of two gateways on one folder one connects; the other takes over when it is killed', async () => {
  const { data, webhook } = await setting();
  const first = await start(data);
  await first.pair(webhook);
  const second = await start(data);
  for (const [method, what, body] of [
    ['GET', '', undefined],
    ['PUT', '', config(webhook)],
    ['POST', '/restart', undefined],
    ['DELETE', '', undefined],
    ['POST', '/typing', { to: ANA, on: true }],
  ] as const) {
    const answer = await second.session(method, what, body);
    assert.deepEqual([what, answer.status, answer.body.error.code], [what, 421, 'not_owner']);
  }
  assert.equal((await second.send('k', { to: ANA, text: 'x' })).status, 421);
  assert.ok(data.lines('connect').every(({ pid }) => pid === first.pid));
  await first.kill();
  const killedAt = Date.now() / 1000;
  await until('the other has it', async () => (await second.session('GET')).body.state === 'open');
  const taken = data.lines('open').at(-1);
  assert.equal(taken?.pid, second.pid);
  assert.ok(taken.time > killedAt && taken.time < killedAt + 6, `after ${taken.time - killedAt} s`);
  assert.equal((await second.send('k', { to: ANA, text: 'x' })).status, 202);
});

test('many gateways that find a lease stale at once: one connects', async () => {
  const { data, webhook } = await setting();
  const first = await start(data);
  await first.pair(webhook);
  const slow = { GATEWAY_LEASE_MS: '4000' }; // who stalls for the settling time, a quarter of it, may come too late
  const others = await Promise.all([start(data, slow), start(data, slow), start(data, slow)]);
  await first.kill();
  await until('one has it', async () => {
    const states = await Promise.all(others.map(async (other) => (await other.session('GET')).status));
    return states.includes(200);
  });
  await until('leases were renewed since', () => {
    const opened = data.lines('open').find(({ pid }) => pid !== first.pid);
    return opened !== undefined && Date.now() / 1000 > opened.time + 4;
  });
  const pids = new Set(data.lines('open').map(({ pid }) => pid).filter((pid) => pid !== first.pid));
  assert.equal(pids.size, 1);
});

test('a gateway that slept through its lease closes its connection and writes no keys', async () => {
  const { data, webhook } = await setting();
  const first = await start(data);
  await first.pair(webhook);
  const second = await start(data);
  first.signal('SIGSTOP');
  await until('the other has it', async () => (await second.session('GET')).body.state === 'open');
  const answer = first.send('k', { to: ANA, text: 'too late' });
  first.signal('SIGCONT');
  assert.equal((await answer).status, 421);
  await until('the sleeper closed', () => data.lines('close').some(({ pid }) => pid === first.pid && pid !== 0));
  const closed = data.lines('close').filter(({ pid }) => pid === first.pid).at(-1);
  assert.equal(closed?.was_open, true);
  assert.equal(data.lines('send').length, 0);
  assert.equal((await second.send('k', { to: ANA, text: 'in time' })).status, 202);
  assert.equal((await first.session('GET')).status, 421);
});

test('SIGTERM gives the leases back at once, and ends within five seconds with a send under way', async () => {
  const { data, webhook } = await setting();
  const first = await start(data);
  await first.pair(webhook);
  const second = await start(data);
  const typing = first.send('k', { to: ANA, text: 'x', typing_ms: 20_000 });
  await until('it types', () => data.lines('presence').length > 0);
  const started = Date.now();
  const ended = first.kill('SIGTERM');
  const cut = await typing;
  assert.deepEqual([cut.status, cut.body.error.code], [503, 'unavailable']);
  assert.equal(await ended, 0);
  assert.ok(Date.now() - started < 5000);
  await until('the other has it', async () => (await second.session('GET')).body.state === 'open');
  assert.ok(Date.now() - started < 4000, 'no lease had to go stale');
  assert.equal((await second.send('k', { to: ANA, text: 'x', typing_ms: 0 })).status, 202);
});

test('a gateway killed in the middle of its sends repeats them under their ids', async () => {
  const { data, webhook } = await setting();
  let gateway = await start(data);
  await gateway.pair(webhook);
  const keys = Array.from({ length: 40 }, (_, i) => `m-${i}`);
  const messageOf = (key: string) => ({ to: `${777_000_000 + keys.indexOf(key)}@lid`, text: `text of ${key}` });
  const answered = new Map<string, unknown>();
  const sendAll = async (): Promise<void> => {
    const open = keys.filter((key) => !answered.has(key));
    await Promise.all(
      open.map(async (key) => {
        const answer = await gateway.send(key, messageOf(key)).catch(() => null);
        if (answer !== null && answer.status < 300) answered.set(key, answer.body.wa_id);
      }),
    );
  };
  for (const killAfter of [3, 9, 17]) {
    await gateway.script('sends', { mode: 'ok', slow_ms: 30 });
    const sending = sendAll();
    await until('some are written', () => data.lines('send').length >= killAfter);
    await gateway.kill();
    await sending;
    gateway = await start(data);
    await gateway.become('open');
  }
  await sendAll();
  assert.equal(answered.size, keys.length);
  const sends = data.lines('send');
  const idsOf = (key: string): Set<unknown> =>
    new Set(sends.filter(({ text }) => text === `text of ${key}`).map(({ id }) => id));
  for (const key of keys) assert.deepEqual([...idsOf(key)], [answered.get(key)], key);
  const repeats = await Promise.all(keys.map((key) => gateway.send(key, messageOf(key))));
  assert.ok(repeats.every(({ status }) => status === 200));
  assert.equal(data.lines('send').length, sends.length);
});

test('events outlive a kill, and are told in order and at least once', async () => {
  const { data, webhook } = await setting();
  let gateway = await start(data);
  await gateway.pair(webhook);
  webhook.answer = () => 503;
  const ids = Array.from({ length: 20 }, (_, i) => `E-${i}`);
  await gateway.emit('messages.upsert', { type: 'notify', messages: ids.map((id) => inbound(id, id)) });
  await gateway.kill();
  assert.equal(webhook.of('message').length, 0);
  webhook.answer = () => 200;
  gateway = await start(data);
  await until('all are told', () => webhook.of('message').length >= ids.length, 20_000);
  assert.deepEqual(webhook.of('message').map(({ id }) => id), ids);
});

test('a webhook that fails is tried again; an event that is refused five times does not hold up the rest', async () => {
  const { data, webhook } = await setting();
  const gateway = await start(data);
  await gateway.pair(webhook);
  const tries: string[] = [];
  webhook.answer = ({ id, data: { id: message } }) => {
    if (message === 'bad') return [400, 413, 422, 503, 400, 422, 200][tries.push(id) - 1] ?? 200;
    return message === 'late' && tries.push(id) < 9 ? 302 : 200;
  };
  const messages = ['bad', 'late', 'good'].map((id) => inbound(id, id));
  await gateway.emit('messages.upsert', { type: 'notify', messages });
  await until('the good one', () => webhook.of('message').some(({ id }) => id === 'good'));
  assert.deepEqual(webhook.of('message').map(({ id }) => id), ['late', 'good']);
  assert.equal(new Set(tries.slice(0, 6)).size, 1);
  assert.equal(data.files().filter((file) => file.includes('/rejected/')).length, 1);
  assert.equal((await gateway.session('GET')).body.waiting_events, 0);
});

test('a changed webhook is used for what waits', async () => {
  const { data, webhook } = await setting();
  const gateway = await start(data, { GATEWAY_RETRY_FIRST_MS: '60000' });
  await gateway.pair(webhook);
  webhook.close();
  await gateway.emit('messages.upsert', { type: 'notify', messages: [inbound('W1', 'x')] });
  await until('it waits', async () => Number((await gateway.session('GET')).body.waiting_events) > 0);
  const other = (await setting()).webhook;
  await gateway.session('PUT', '', config(other));
  await until('the other hears of it', () => other.of('message').some(({ id }) => id === 'W1'));
});
