/** A gateway process on a scripted WhatsApp, and a webhook that hears it: what every test here is made of. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const TOKEN = 'a-token-of-the-tests';
export const SECRET = 'a-webhook-secret';
export const KEY = randomBytes(32).toString('base64');
const MAIN = fileURLToPath(new URL('../src/main.js', import.meta.url));

interface Told {
  code: string;
  message: string;
}

/** An answer, or what an event is about: the parts that tests look into, and whatever else there is. */
export interface Body {
  error: Told & { retryable: boolean; retry_after_ms: number; until?: number | null };
  last_error: Told;
  qr: { code: string; expires_at: number };
  pairing_code: { code: string; expires_at: number };
  text: string;
  [more: string]: unknown;
}

export interface Answer {
  status: number;
  body: Body;
}

export interface Heard {
  id: string;
  type: string;
  session: string;
  ts: number;
  data: Body;
}

export interface Line {
  event: string;
  session: string;
  pid: number;
  time: number;
  [more: string]: unknown;
}

/** Every gateway there was: one that a failed test left behind would keep the whole run from ending. */
const started = new Set<ChildProcess>();
after(() => {
  for (const child of started) child.kill('SIGKILL');
});

/** Wait until it gives something; throws after `ms`. */
export async function until<T>(what: string, ask: () => T | Promise<T>, ms = 15_000): Promise<NonNullable<T>> {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = await ask();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
    await delay(10);
  }
}

export class Data {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), 'gateway-'));
  readonly scriptLog = path.join(this.folder, 'script.log');

  lines(event: string, session = 'demo'): Line[] {
    if (!fs.existsSync(this.scriptLog)) return [];
    const lines = fs.readFileSync(this.scriptLog, 'utf8').split('\n').filter(Boolean);
    return lines.map((line) => JSON.parse(line) as Line).filter((l) => l.event === event && l.session === session);
  }

  /** Every file below the data folder, but the script's log. */
  files(): string[] {
    const all = fs.readdirSync(path.join(this.folder, 'data'), { recursive: true, withFileTypes: true });
    return all.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  }
}

/** A customer's endpoint: checks every signature and keeps what it was sent. */
export class Webhook {
  readonly heard: Heard[] = [];
  readonly bodies: string[] = [];
  /** What is answered to an event; 200 unless a test says otherwise. */
  answer: (event: Heard) => number = () => 200;
  url = '';
  readonly #server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      const stamp = String(request.headers['x-gateway-timestamp']);
      const signature = createHmac('sha256', SECRET).update(`${stamp}.${body}`).digest('hex');
      const isSigned = request.headers['x-gateway-signature'] === `v1=${signature}` && /^\d{10}$/.test(stamp);
      const event = JSON.parse(body) as Heard;
      const status = isSigned ? this.answer(event) : 403;
      if (status >= 200 && status < 300) {
        this.heard.push(event);
        this.bodies.push(body);
      }
      response.writeHead(status).end('{}');
    });
  });

  static async listen(): Promise<Webhook> {
    const webhook = new Webhook();
    webhook.#server.listen(0, '127.0.0.1');
    await once(webhook.#server, 'listening');
    webhook.url = `http://127.0.0.1:${(webhook.#server.address() as AddressInfo).port}/hook`;
    return webhook;
  }

  of(type: string, session = 'demo'): Heard['data'][] {
    return this.heard.filter((event) => event.type === type && event.session === session).map(({ data }) => data);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

export class Gateway {
  stderr = '';
  stdout = '';
  url = '';
  readonly #child: ChildProcess;
  readonly exited: Promise<number | null>;

  private constructor(data: Data, env: Record<string, string>) {
    const settings = {
      GATEWAY_PORT: '0',
      GATEWAY_DATA: path.join(data.folder, 'data'),
      GATEWAY_KEY: KEY,
      GATEWAY_TOKEN: TOKEN,
      GATEWAY_SOCKET: 'scripted',
      GATEWAY_SCRIPT_LOG: data.scriptLog,
      GATEWAY_SEND_INTERVAL_MS: '0',
      GATEWAY_CHAT_INTERVAL_MS: '0',
      GATEWAY_LEASE_MS: '2000',
      GATEWAY_RETRY_FIRST_MS: '20',
      ...env,
    };
    this.#child = spawn(process.execPath, [MAIN], { env: { PATH: process.env.PATH, ...settings } });
    started.add(this.#child);
    this.#child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.exited = once(this.#child, 'close').then(([code]) => code as number | null);
  }

  /** Not yet listening: for processes that are not to come up. */
  static launch(data: Data, env: Record<string, string> = {}): Gateway {
    return new Gateway(data, env);
  }

  static async start(data: Data, env: Record<string, string> = {}): Promise<Gateway> {
    const gateway = new Gateway(data, env);
    const line = await until('the gateway is up', () => {
      if (gateway.#child.exitCode !== null) throw new Error(`the gateway ended: ${gateway.stderr}`);
      return gateway.stdout.includes('\n') ? gateway.stdout : null;
    });
    gateway.url = (JSON.parse(line) as { url: string }).url;
    return gateway;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    this.signal(signal);
    return this.exited;
  }

  async call(method: string, at: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    const answer = await fetch(`${this.url}${at}`, {
      method,
      headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, body: JSON.parse(text || '{}') as Body };
  }

  session(method: string, what = '', body?: unknown, id = 'demo'): Promise<Answer> {
    return this.call(method, `/v1/sessions/${id}${what}`, body);
  }

  send(key: string, message: Record<string, unknown>, id = 'demo'): Promise<Answer> {
    const body = { type: 'text', ...message };
    return this.call('POST', `/v1/sessions/${id}/messages`, body, { 'idempotency-key': key });
  }

  async script(what: string, body: unknown = {}, id = 'demo'): Promise<void> {
    const answer = await this.call('POST', `/_script/${id}/${what}`, body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
  }

  emit(event: string, data: unknown, id = 'demo'): Promise<void> {
    return this.script('emit', { event, data }, id);
  }

  async state(id = 'demo'): Promise<string> {
    return String((await this.session('GET', '', undefined, id)).body.state);
  }

  async become(state: string, id = 'demo', ms?: number): Promise<void> {
    await until(`${id} is ${state}`, async () => (await this.state(id)) === state, ms);
  }

  /** A session, paired by scanning and open. */
  async pair(webhook: Webhook, id = 'demo'): Promise<void> {
    const put = await this.session('PUT', '', config(webhook), id);
    assert.equal(put.status, 200, JSON.stringify(put.body));
    await this.become('qr', id);
    await this.script('scan', {}, id);
    await this.become('open', id);
  }
}

export function config(webhook: Webhook): object {
  return { webhook_url: webhook.url, webhook_secret: SECRET, label: 'Front desk' };
}

export const ANA = '4915112345678@s.whatsapp.net';

/** A message of Ana's, as Baileys hands it over. */
export function inbound(id: string, text: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  const { key, ...rest } = more;
  return {
    key: { remoteJid: ANA, fromMe: false, id, ...(key as object | undefined) },
    message: { conversation: text },
    messageTimestamp: Math.floor(Date.now() / 1000),
    pushName: 'Ana',
    ...rest,
  };
}
