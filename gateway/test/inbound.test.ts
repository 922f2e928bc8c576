import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { after, before, test } from 'node:test';
import { ANA, Data, Gateway, inbound, until, Webhook } from './harness.js';
import type { Body } from './harness.js';

/** A busy machine must not cost this gateway its lease: nobody else wants it. */
const PATIENT = { GATEWAY_LEASE_MS: '6000' };
let data: Data;
let webhook: Webhook;
let gateway: Gateway;

before(async () => {
  data = new Data();
  webhook = await Webhook.listen();
  gateway = await Gateway.start(data, PATIENT);
  await gateway.pair(webhook);
});
after(async () => {
  await gateway.kill();
  webhook.close();
  fs.rmSync(data.folder, { recursive: true });
});

function upsert(messages: object[], type = 'notify'): Promise<void> {
  return gateway.emit('messages.upsert', { messages, type });
}

/** The event of a message; and, as events keep their order, that of everything before it. */
async function heard(id: string): Promise<Body> {
  return until(`the event of ${id}`, () => webhook.of('message').find((event) => event.id === id));
}

const now = (): number => Math.floor(Date.now() / 1000);

test('a message is reported as the contract says', async () => {
  await upsert([inbound('M1', 'Hi', { messageTimestamp: 1764000000 })]);
  assert.deepEqual(await heard('M1'), {
    id: 'M1',
    from: ANA,
    alt: null,
    from_me: false,
    type: 'text',
    text: 'Hi',
    name: 'Ana',
    timestamp: 1764000000,
    backlog: false,
    reply_to: null,
    target: null,
    media: null,
    content: {},
  });
  const event = webhook.heard.find(({ data: body }) => body.id === 'M1');
  assert.match(event?.id ?? '', /^evt_/);
  assert.equal(event?.session, 'demo');
});

test('the same message again is reported once, over a restart too', async () => {
  await upsert([inbound('D1', 'once'), inbound('D1', 'once')]);
  await upsert([inbound('D1', 'once')]);
  await gateway.kill();
  gateway = await Gateway.start(data, PATIENT);
  await gateway.become('open');
  await upsert([inbound('D1', 'once')]);
  await upsert([inbound('D2', 'after it')]);
  await heard('D2');
  // The kill may have come between the webhook's answer and the removal of the event: then it is told again, as itself.
  const events = webhook.heard.filter(({ data: { id } }) => id === 'D1');
  assert.equal(new Set(events.map(({ id }) => id)).size, 1);
  assert.ok(events.length <= 2);
});

test('both addresses of a person are told, without their devices', async () => {
  const addresses = { remoteJid: '777777777:3@lid', remoteJidAlt: '4915112345678:2@s.whatsapp.net' };
  await upsert([inbound('L1', 'x', { key: addresses })]);
  const { from, alt } = await heard('L1');
  assert.deepEqual([from, alt], ['777777777@lid', ANA]);
});

test('what came while the session was offline is reported, if it is recent and after the pairing', async () => {
  await upsert([inbound('A-recent', 'x')], 'append');
  await upsert([inbound('A-old', 'x', { messageTimestamp: now() - 1000 })], 'append');
  await upsert([inbound('A-before', 'x', { messageTimestamp: now() - 300 })], 'append');
  await upsert([inbound('A-mine', 'x', { key: { fromMe: true } })], 'append');
  await upsert([inbound('A-end', 'x')]);
  await heard('A-end');
  const ids = webhook.of('message').map(({ id }) => String(id)).filter((id) => id.startsWith('A-'));
  assert.deepEqual(ids, ['A-recent', 'A-end']);
  assert.equal((await heard('A-recent')).backlog, true);
});

test('what a human writes on the telephone is told, what went through the gateway is not', async () => {
  const sent = await gateway.send('echo-1', { to: ANA, text: 'from the bot' });
  assert.equal(sent.status, 202);
  await upsert([inbound(String(sent.body.wa_id), 'from the bot', { key: { fromMe: true } })]);
  await upsert([inbound(String(sent.body.wa_id), 'from the bot', { key: { fromMe: true } })], 'append');
  await upsert([inbound('H1', 'from the human', { key: { fromMe: true } })]);
  const human = await heard('H1');
  assert.deepEqual([human.from_me, human.from, human.name, human.text], [true, ANA, null, 'from the human']);
  assert.ok(!webhook.of('message').some(({ id }) => id === sent.body.wa_id));
});

test('history, groups, broadcasts, newsletters, bots and silent messages are not told', async () => {
  await gateway.emit('messaging-history.set', { chats: [], contacts: [], messages: [inbound('S-history', 'old')] });
  for (const jid of ['0@s.whatsapp.net', '123-4@g.us', 'status@broadcast', '1@broadcast', '1@newsletter', '1@bot', '']) {
    await upsert([inbound(`S-${jid}`, 'x', { key: { remoteJid: jid } })]);
  }
  const silent: object[] = [
    { senderKeyDistributionMessage: { groupId: 'x' } },
    { protocolMessage: { type: 5 } },
    { protocolMessage: { type: 3, ephemeralExpiration: 60 } },
    { pollUpdateMessage: { senderTimestampMs: 1 } },
    { messageContextInfo: {} },
  ];
  for (const [i, message] of silent.entries()) await upsert([inbound(`S-${i}`, '', { message })]);
  await upsert([inbound('S-stub', '', { message: null, messageStubType: 2 })]);
  await upsert([inbound('end-of-silence', 'x')]);
  await heard('end-of-silence');
  assert.deepEqual(webhook.of('message').filter(({ id }) => String(id).startsWith('S-')), []);
});

test('a message that could not be decrypted at first is told when it can be', async () => {
  await upsert([inbound('C1', '', { message: null, messageStubType: 2 })]);
  await upsert([inbound('C1', 'readable now')]);
  assert.equal((await heard('C1')).text, 'readable now');
});

test('what the business does on its own telephone, other than write, is not told', async () => {
  const key = { remoteJid: ANA, fromMe: false, id: 'T0' };
  const own: object[] = [
    { reactionMessage: { key, text: '👍' } },
    { editedMessage: { message: { protocolMessage: { type: 14, key, editedMessage: { conversation: 'better' } } } } },
    { protocolMessage: { type: 0, key } },
    { requestPhoneNumberMessage: {} },
  ];
  for (const [i, message] of own.entries()) await upsert([inbound(`O-${i}`, '', { message, key: { fromMe: true } })]);
  await upsert([inbound('end-of-own', 'x')]);
  await heard('end-of-own');
  assert.deepEqual(webhook.of('message').filter(({ id }) => String(id).startsWith('O-')), []);
});

test('the events of a burst keep their order', async () => {
  const ids = Array.from({ length: 60 }, (_, i) => `B-${i}`);
  await Promise.all([upsert(ids.slice(0, 30).map((id) => inbound(id, id)))]);
  await upsert(ids.slice(30).map((id) => inbound(id, id)));
  await heard('B-59');
  assert.deepEqual(webhook.of('message').map(({ id }) => String(id)).filter((id) => id.startsWith('B-')), ids);
});
