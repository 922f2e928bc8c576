/** Files both ways: those that people send, and those that are sent to them by a link. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { isPublic } from '../src/links.js';
import { ANA, Data, Gateway, inbound, TOKEN, until, Webhook } from './harness.js';
import type { Body } from './harness.js';

const MAX_BYTES = 200_000;
const PICTURE = randomBytes(120_000);
const SETTINGS = {
  GATEWAY_ALLOW_PRIVATE_LINKS: 'yes',
  GATEWAY_MAX_MEDIA_BYTES: String(MAX_BYTES),
  // A busy machine must not cost this gateway its lease: nobody else wants it.
  GATEWAY_LEASE_MS: '6000',
};
let data: Data;
let webhook: Webhook;
let gateway: Gateway;
let shop: string;
/** What the customer's web server was asked for. */
const asked: string[] = [];

const server = createServer((request, response) => {
  const [, what = '', ...rest] = (request.url ?? '').split('/');
  asked.push(request.url ?? '');
  const status = Number(what);
  const type = decodeURIComponent(what);
  if (what === 'to') response.writeHead(302, { location: `/${rest.join('/')}` }).end();
  else if (status > 0) response.writeHead(status).end();
  else {
    response.writeHead(200, type === 'none' ? {} : { 'content-type': type });
    response.end(rest[0] === 'large' ? randomBytes(MAX_BYTES + 1) : PICTURE);
  }
});

before(async () => {
  data = new Data();
  webhook = await Webhook.listen();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  shop = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  gateway = await Gateway.start(data, SETTINGS);
  await gateway.pair(webhook);
});
after(async () => {
  await gateway.kill();
  webhook.close();
  server.close();
  server.closeAllConnections();
  fs.rmSync(data.folder, { recursive: true });
});

const MEDIA_KEY = randomBytes(32).toString('base64');
const FILE = { url: 'https://mmg.whatsapp.net/v/a.enc', directPath: '/v/a.enc', mediaKey: MEDIA_KEY, mimetype: 'image/jpeg' };

async function hear(id: string, file: object): Promise<Body> {
  const message = { ephemeralMessage: { message: { imageMessage: { ...FILE, ...file } } } };
  await gateway.emit('messages.upsert', { messages: [inbound(id, '', { message })], type: 'notify' });
  return until(`the event of ${id}`, () => webhook.of('message').find((event) => event.id === id));
}

async function fetchFile(id: string, token = TOKEN): Promise<Response> {
  return fetch(`${gateway.url}/v1/sessions/demo/media/${id}`, { headers: { authorization: `Bearer ${token}` } });
}

test('the file of a message is told, and handed over to whoever asks for it by its id', async () => {
  const sha256 = createHash('sha256').update(PICTURE).digest('base64');
  const told = await hear('F1', { caption: 'a cat', fileLength: PICTURE.length, fileSha256: sha256 });
  assert.deepEqual(told.media, {
    id: 'F1',
    mime: 'image/jpeg',
    size: PICTURE.length,
    sha256,
    filename: null,
    seconds: null,
    voice: false,
  });
  await gateway.script('file', { id: 'F1', base64: PICTURE.toString('base64') });
  const answer = await fetchFile('F1');
  assert.equal(answer.status, 200);
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), PICTURE);
});

test('nothing on the disk shows a file, its key or where it is', async () => {
  await hear('F2', {});
  const kept = data.files().filter((name) => name.includes('/media/'));
  assert.ok(kept.length > 0);
  for (const name of kept) {
    assert.equal(fs.statSync(name).mode & 0o777, 0o600);
    assert.ok(!/F2|a\.enc/.test(name + fs.readFileSync(name, 'latin1')));
  }
});

test('a file can be had after the gateway was killed', async () => {
  await hear('F3', {});
  await gateway.kill();
  gateway = await Gateway.start(data, SETTINGS);
  await gateway.become('open');
  await gateway.script('file', { id: 'F3', base64: PICTURE.toString('base64') });
  assert.equal((await (await fetchFile('F3')).arrayBuffer()).byteLength, PICTURE.length);
});

test('who has no token gets no file', async () => {
  assert.equal((await fetchFile('F1', 'a-wrong-token-of-nobody')).status, 401);
});

test('a file that nobody sent, or that WhatsApp no longer has, is unknown', async () => {
  await hear('F4', {});
  for (const id of ['never-sent', 'F4']) {
    const answer = await fetchFile(id);
    assert.equal(answer.status, 404);
    assert.equal(((await answer.json()) as Body).error.code, 'unknown_media');
  }
});

test('a file that says it is too large is not fetched', async () => {
  await hear('F5', { fileLength: MAX_BYTES + 1 });
  assert.equal((await fetchFile('F5')).status, 413);
  assert.ok(!data.lines('download').some(({ id }) => id === 'F5'));
});

test('a file that is longer than it says, or that is cut off, does not pass for whole', async () => {
  await hear('F6', { fileLength: 10 });
  await hear('F7', {});
  await gateway.script('file', { id: 'F6', base64: randomBytes(MAX_BYTES + 1).toString('base64') });
  await gateway.script('file', { id: 'F7', base64: PICTURE.toString('base64'), cut: true });
  for (const id of ['F6', 'F7']) {
    await assert.rejects(async () => {
      const answer = await fetchFile(id);
      assert.equal(answer.status, 200);
      await answer.arrayBuffer();
    });
  }
});

test('a file that is said to be anywhere but at WhatsApp is never fetched', async () => {
  const elsewhere: object[] = [
    { url: 'https://169.254.169.254/latest', directPath: '' },
    { url: 'https://mmg.whatsapp.net.example.org/a' },
    { url: 'http://mmg.whatsapp.net/a' },
    { url: '', directPath: '@169.254.169.254/latest' },
    { url: '', directPath: '//169.254.169.254/latest' },
  ];
  for (const [i, file] of elsewhere.entries()) {
    await hear(`E${i}`, file);
    assert.equal((await fetchFile(`E${i}`)).status, 404);
  }
});

function sendFile(key: string, kind: string, at: string, more: object = {}): ReturnType<Gateway['send']> {
  return gateway.send(key, { to: ANA, type: 'media', kind, link: `${shop}/${at}`, ...more });
}

test('a file is fetched from its link and sent with its caption, once for each key', async () => {
  const before = asked.length;
  const picture = { caption: 'Our menu', reply_to: 'Q1' };
  const first = await sendFile('P1', 'image', 'image%2Fpng/menu.png', picture);
  assert.equal(first.status, 202, JSON.stringify(first.body));
  assert.deepEqual(await sendFile('P1', 'image', 'image%2Fpng/menu.png', picture), { ...first, status: 200 });
  assert.equal(asked.length, before + 1);
  const sent = data.lines('send').filter(({ id }) => id === first.body.wa_id);
  const sha256 = createHash('sha256').update(PICTURE).digest('hex');
  assert.deepEqual(
    sent.map(({ jid, kind, text, mime, reply_to, sha256: hash }) => [jid, kind, text, mime, reply_to, hash]),
    [[ANA, 'image', 'Our menu', 'image/png', 'Q1', sha256]],
  );
  assert.equal((await sendFile('P1', 'image', 'image%2Fpng/other.png', picture)).body.error.code, 'key_reused');
});

test('every kind of file goes out as itself', async () => {
  const kinds: [kind: string, at: string, expected: object][] = [
    ['audio', 'audio%2Fogg/note', { kind: 'audio', voice: true, mime: 'audio/ogg; codecs=opus' }],
    ['audio', 'audio%2Fmpeg/song', { kind: 'audio', voice: false, mime: 'audio/mpeg' }],
    ['video', 'video%2Fmp4/film', { kind: 'video', mime: 'video/mp4' }],
    ['sticker', 'image%2Fwebp/hat', { kind: 'sticker' }],
    ['document', 'application%2Fpdf/offer%2012.pdf', { kind: 'document', filename: 'offer 12.pdf' }],
    ['document', 'none/x', { kind: 'document', filename: 'x', mime: 'application/octet-stream' }],
    ['image', 'to/image%2Fjpeg/moved', { kind: 'image', mime: 'image/jpeg' }],
  ];
  for (const [i, [kind, at, expected]] of kinds.entries()) {
    const answer = await sendFile(`K${i}`, kind, at);
    assert.equal(answer.status, 202, JSON.stringify(answer.body));
    const line = data.lines('send').find(({ id }) => id === answer.body.wa_id) ?? {};
    const found = Object.fromEntries(Object.keys(expected).map((name) => [name, (line as Body)[name]]));
    assert.deepEqual(found, expected, at);
  }
});

test('a link that is no such file is refused, and nothing is sent', async () => {
  const refused: [kind: string, at: string, code: string, status: number][] = [
    ['image', '404/x', 'bad_link', 422],
    ['image', 'text%2Fhtml/login', 'bad_link', 422],
    ['image', 'image%2Fpng/large', 'too_large', 413],
    ['image', 'to/to/to/to/to/image%2Fpng/x', 'bad_link', 422],
    ['image', '503/x', 'unavailable', 503],
  ];
  const before = data.lines('send').length;
  for (const [i, [kind, at, code, status]] of refused.entries()) {
    const answer = await sendFile(`R${i}`, kind, at);
    assert.deepEqual([answer.status, answer.body.error.code], [status, code], at);
  }
  for (const body of [{ kind: 'image', link: 'file:///etc/passwd' }, { kind: 'poem', link: `${shop}/x` }, { kind: 'image' }]) {
    assert.equal((await gateway.send('R9', { to: ANA, type: 'media', ...body })).status, 422);
  }
  assert.equal(data.lines('send').length, before);
});

test('a link inside the network is not followed, however it is written', async () => {
  const careful = await Gateway.start(data, { GATEWAY_DATA: `${data.folder}/careful` });
  try {
    await careful.pair(webhook, 'careful');
    const port = shop.split(':').at(-1) ?? '';
    const inside = ['127.0.0.1', 'localhost', '[::1]', '0x7f.1', '2130706433', '[::ffff:127.0.0.1]', '10.0.0.1'];
    const before = asked.length;
    for (const [i, host] of inside.entries()) {
      const link = `http://${host}:${port}/image%2Fpng/x`;
      const answer = await careful.send(`I${i}`, { to: ANA, type: 'media', kind: 'image', link }, 'careful');
      assert.deepEqual([answer.status, answer.body.error.code], [422, 'bad_link'], host);
    }
    assert.equal(asked.length, before);
  } finally {
    await careful.kill();
  }
});

test('what is public', () => {
  const inside = ['10.1.2.3', '100.64.0.1', '169.254.169.254', '172.31.0.1', '192.168.1.1', '0.0.0.0', '224.0.0.1'];
  inside.push('::', '::1', 'fe80::1', 'fc00::1', '2002:7f00:1::', '64:ff9b::7f00:1', '::ffff:10.0.0.1', 'x');
  for (const address of inside) assert.equal(isPublic(address), false, address);
  for (const address of ['1.1.1.1', '172.32.0.1', '2606:4700::1111']) assert.equal(isPublic(address), true, address);
});
