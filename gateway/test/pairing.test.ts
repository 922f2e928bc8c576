import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { after, before, test } from 'node:test';
import { config, Data, Gateway, until, Webhook } from './harness.js';

let data: Data;
let webhook: Webhook;
let gateway: Gateway;

before(async () => {
  data = new Data();
  webhook = await Webhook.listen();
  gateway = await Gateway.start(data);
});
after(async () => {
  await gateway.kill();
  webhook.close();
  fs.rmSync(data.folder, { recursive: true });
});

test('a session is paired by QR, and every change is told', async () => {
  const put = await gateway.session('PUT', '', config(webhook));
  assert.equal(put.status, 200);
  assert.equal(put.body.id, 'demo');
  assert.equal(put.body.label, 'Front desk');
  await gateway.become('qr');
  const { body } = await gateway.session('GET');
  assert.match(body.qr.code, /^2@/);
  assert.ok(body.qr.expires_at > Date.now() / 1000 + 50);
  assert.equal(body.phone, null);
  await gateway.script('scan', { phone: '4915199999999' });
  await gateway.become('open');
  const open = (await gateway.session('GET')).body;
  assert.equal(open.phone, '4915199999999');
  assert.equal(open.qr, null);
  await until('the states', () => webhook.of('session').some(({ state }) => state === 'open'));
  const states = webhook.of('session').map(({ state }) => state);
  assert.deepEqual(states, ['connecting', 'qr', 'connecting', 'open']);
  assert.deepEqual(Object.keys(webhook.of('session').at(-1) ?? {}), Object.keys(open));
});

test('a second code takes the place of the first, and lives shorter', async () => {
  await gateway.session('PUT', '', config(webhook), 'codes');
  await gateway.become('qr', 'codes');
  const first = (await gateway.session('GET', '', undefined, 'codes')).body.qr;
  await gateway.script('qr', {}, 'codes');
  const second = (await gateway.session('GET', '', undefined, 'codes')).body.qr;
  assert.notEqual(second.code, first.code);
  assert.ok(second.expires_at < first.expires_at);
});

test('a session is paired by a code typed on the telephone', async () => {
  await gateway.session('PUT', '', config(webhook), 'typed');
  await gateway.become('qr', 'typed');
  const pair = await gateway.session('POST', '/pair', { phone: '+4915112345' }, 'typed');
  assert.equal(pair.status, 200, JSON.stringify(pair.body));
  assert.match(pair.body.pairing_code.code, /^[A-Z0-9]{8}$/);
  assert.ok(pair.body.pairing_code.expires_at > Date.now() / 1000 + 100);
  assert.deepEqual(data.lines('pair', 'typed').map(({ phone }) => phone), ['4915112345']);
  await gateway.script('scan', { phone: '4915112345' }, 'typed');
  await gateway.become('open', 'typed');
  assert.equal((await gateway.session('GET', '', undefined, 'typed')).body.pairing_code, null);
  const again = await gateway.session('POST', '/pair', { phone: '4915112345' }, 'typed');
  assert.deepEqual([again.status, again.body.error.code], [409, 'already_open']);
});

test('a pairing code that nobody typed leaves no half login behind', async () => {
  await gateway.session('PUT', '', config(webhook), 'half');
  await gateway.become('qr', 'half');
  await gateway.session('POST', '/pair', { phone: '4915112345' }, 'half');
  await gateway.script('close', { code: 408 }, 'half');
  await gateway.become('qr', 'half');
  assert.ok(data.lines('connect', 'half').every(({ paired }) => paired === false));
});

test('calls are refused as the contract says', async () => {
  const { url } = gateway;
  assert.deepEqual(await (await fetch(`${url}/health`)).json(), { status: 'ok' });
  const stranger = await fetch(`${url}/v1/sessions/demo`, { headers: { authorization: 'Bearer wrong' } });
  assert.equal(stranger.status, 401);
  const told = (await stranger.json()) as { error: object };
  assert.deepEqual(Object.keys(told.error), ['code', 'message', 'retryable', 'retry_after_ms']);
  const refusals: [string, string, unknown, number, string][] = [
    ['GET', '/v1/sessions/nobody', undefined, 404, 'unknown_session'],
    ['POST', '/v1/sessions/nobody/restart', undefined, 404, 'unknown_session'],
    ['DELETE', '/v1/sessions/nobody', undefined, 404, 'unknown_session'],
    ['GET', '/v1/elsewhere', undefined, 404, 'not_found'],
    ['PUT', '/v1/sessions/a%20b', { webhook_url: 'http://x/', webhook_secret: 's' }, 422, 'invalid'],
    ['PUT', '/v1/sessions/new', { webhook_url: 'ftp://x/', webhook_secret: 's' }, 422, 'invalid'],
    ['PUT', '/v1/sessions/new', { webhook_url: 'http://x/' }, 422, 'invalid'],
    ['PUT', '/v1/sessions/new', '{"webhook_url', 422, 'invalid'],
    ['PUT', '/v1/sessions/new', `"${'x'.repeat(600_000)}"`, 413, 'too_large'],
    ['POST', '/v1/sessions/demo/pair', { phone: 'abc' }, 422, 'invalid'],
    ['POST', '/v1/sessions/demo/read', { to: '4915112345678', message_ids: [] }, 422, 'invalid'],
    ['POST', '/v1/sessions/demo/typing', { to: '4915112345678', on: 'yes' }, 422, 'invalid'],
    ['POST', '/v1/sessions/demo/typing', { to: '123-456@g.us', on: true }, 422, 'invalid'],
    ['POST', '/v1/sessions/codes/typing', { to: '4915112345678', on: true }, 409, 'not_connected'],
  ];
  for (const [method, at, body, status, code] of refusals) {
    const answer = await gateway.call(method, at, body);
    assert.deepEqual([at, answer.status, answer.body.error?.code], [at, status, code]);
  }
});

test('read and typing reach WhatsApp', async () => {
  const read = await gateway.session('POST', '/read', { to: '4915112345678', message_ids: ['A1', 'A2'] });
  assert.deepEqual([read.status, read.body], [202, {}]);
  await gateway.session('POST', '/typing', { to: '77777777@lid', on: true });
  await gateway.session('POST', '/typing', { to: '77777777@lid', on: false });
  assert.deepEqual(data.lines('read').map(({ id }) => id), ['A1', 'A2']);
  assert.deepEqual(
    data.lines('presence').map(({ jid, type }) => [jid, type]),
    [['77777777@lid', 'composing'], ['77777777@lid', 'paused']],
  );
});

test('a restarted gateway connects its sessions by itself', async () => {
  assert.equal(await gateway.kill('SIGTERM'), 0);
  gateway = await Gateway.start(data);
  await gateway.become('open');
  assert.equal((await gateway.session('GET')).body.phone, '4915199999999');
  assert.equal(data.lines('connect').at(-1)?.paired, true);
});

test('a session that is restarted connects anew', async () => {
  const before = data.lines('open').length;
  const restart = await gateway.session('POST', '/restart');
  assert.equal(restart.status, 200);
  assert.equal(restart.body.state, 'connecting');
  await until('it opens again', () => data.lines('open').length > before);
});

test('logout unlinks the device and deletes the login; restart gives a new code', async () => {
  const logout = await gateway.session('POST', '/logout');
  assert.deepEqual([logout.status, logout.body.state, logout.body.phone], [200, 'logged_out', null]);
  assert.equal(data.lines('logout').length, 1);
  const send = await gateway.send('k', { to: '4915112345678', text: 'x' });
  assert.deepEqual([send.status, send.body.error.code], [410, 'logged_out']);
  await gateway.session('POST', '/restart');
  await gateway.become('qr');
});

test('a session that is deleted leaves nothing', async () => {
  const gone = await gateway.session('DELETE', '', undefined, 'typed');
  assert.equal(gone.status, 204);
  assert.equal((await gateway.session('GET', '', undefined, 'typed')).status, 404);
  assert.ok(!data.files().some((file) => file.includes('typed')));
});

const ENDINGS: [code: number, state: string, error: string | null][] = [
  [515, 'open', null],
  [428, 'open', 'connection_closed'],
  [503, 'open', 'service_unavailable'],
  [440, 'closed', 'connection_replaced'],
  [401, 'logged_out', 'logged_out'],
  [403, 'banned', 'banned'],
  [402, 'banned', 'temporarily_banned'],
  [406, 'logged_out', 'login_refused'],
  [411, 'logged_out', 'multidevice_mismatch'],
];

for (const [code, state, error] of ENDINGS) {
  test(`a connection that ends with ${code} leaves the session ${state}`, async () => {
    const id = `ends-${code}`;
    await gateway.pair(webhook, id);
    const opened = data.lines('open', id).length;
    const started = Date.now();
    await gateway.script('close', { code }, id);
    await gateway.become(state, id);
    const { body } = await gateway.session('GET', '', undefined, id);
    assert.equal(body.last_error?.code ?? null, error);
    if (state === 'open') {
      await until('it opens again', () => data.lines('open', id).length === opened + 1);
      const waited = Date.now() - started;
      assert.ok(code === 515 ? waited < 900 : waited >= 900, `after ${waited} ms`);
      return;
    }
    const send = await gateway.send('k', { to: '4915112345678', text: 'x' }, id);
    if (state === 'closed') {
      assert.equal(send.body.error.code, 'not_connected');
      assert.ok(send.body.error.retry_after_ms > 100_000, 'somebody else has the session: minutes are waited');
    } else {
      assert.deepEqual([send.status, send.body.error.code], [410, state]);
      const login = data.files().filter((file) => file.includes(`${id}.session/auth/`));
      assert.equal(login.length > 0, state === 'banned');
    }
    assert.equal(data.lines('open', id).length, opened);
  });
}

test('a damaged login is tried once more, then given up', async () => {
  await gateway.pair(webhook, 'damaged');
  await gateway.script('close', { code: 500 }, 'damaged');
  await gateway.become('open', 'damaged');
  await gateway.script('close', { code: 500 }, 'damaged');
  await gateway.become('logged_out', 'damaged');
  assert.equal((await gateway.session('GET', '', undefined, 'damaged')).body.last_error.code, 'bad_session');
});

test('reconnecting slows down while WhatsApp is away', async () => {
  await gateway.pair(webhook, 'away');
  await gateway.script('connects', { mode: 'refuse', code: 503 }, 'away');
  await gateway.script('close', { code: 428 }, 'away');
  const connects = await until('three more tries', () => {
    const lines = data.lines('connect', 'away').slice(2);
    return lines.length >= 3 ? lines : null;
  });
  const [first, second, third] = connects.map(({ time }) => time) as [number, number, number];
  assert.ok(second - first >= 1.9 && third - second >= 3.9, `${second - first} s, ${third - second} s`);
});

test('a banned session stays so over a restart of the gateway, until somebody restarts it', async () => {
  await gateway.kill();
  gateway = await Gateway.start(data);
  await gateway.become('banned', 'ends-403');
  await gateway.session('POST', '/restart', undefined, 'ends-403');
  await gateway.become('open', 'ends-403');
});

test('nothing in the logs gives a person or a secret away, and the start is one line', () => {
  assert.equal(gateway.stdout.split('\n').length, 2);
  for (const secret of ['4915', 'a-token', 'a-webhook', 'noiseKey', '@s.whatsapp']) {
    assert.ok(!gateway.stderr.includes(secret), secret);
  }
  for (const line of gateway.stderr.trim().split('\n')) JSON.parse(line);
});

test('what is on disk cannot be read without the key', async () => {
  await gateway.kill('SIGTERM');
  for (const file of data.files()) {
    const bytes = fs.readFileSync(file).toString('latin1');
    for (const secret of ['4915', 'noiseKey', 'private', 'a-webhook', 'Front desk', '127.0.0.1']) {
      assert.ok(!bytes.includes(secret) && !file.includes('4915'), `${file} has ${secret}`);
    }
    assert.equal(fs.statSync(file).mode & 0o077, 0, file);
  }
  const other = Gateway.launch(data, { GATEWAY_KEY: Buffer.alloc(32, 7).toString('base64') });
  assert.equal(await other.exited, 1);
  assert.match(other.stderr, /another GATEWAY_KEY/);
  gateway = await Gateway.start(data);
});

test('wrong settings are named, all at once', async () => {
  const wrong = Gateway.launch(data, { GATEWAY_KEY: 'short', GATEWAY_TOKEN: 'short', GATEWAY_PORT: '8o90' });
  assert.equal(await wrong.exited, 2);
  for (const name of ['GATEWAY_KEY', 'GATEWAY_TOKEN', 'GATEWAY_PORT']) assert.ok(wrong.stderr.includes(name));
  assert.ok(!wrong.stderr.includes('"short"'));
});
