/**
 * A WhatsApp that does what it is told, in place of Baileys (GATEWAY_SOCKET=scripted), driven by the routes under
 * `/_script/` of the same server. README.md, "Scripted mode", describes them; nothing in here is ever used otherwise.
 */
import { createHash, randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import * as fs from 'node:fs';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { proto, WAMessageStatus } from 'baileys';
import type { AnyMessageContent, AuthenticationCreds, AuthenticationState, BaileysEventMap, WAMessage } from 'baileys';
import type { FastifyInstance } from 'fastify';
import { phoneOf } from './jid.js';
import { Refusal } from './refusal.js';
import type { OpenSocket, WhatsAppSocket } from './socket.js';

type Sends = 'ok' | 'sent' | 'no_ack' | 'throw' | 'error';
type Send = WhatsAppSocket['sendMessage'];
type Lock = { isActive?: boolean; timeEnforcementEnds?: Date };

/** How the next sends behave. */
interface SendRule {
  mode: Sends;
  /** Of the error; a Baileys status code for `throw`, WhatsApp's for `error`. */
  code: number;
  message: string;
  /** Before the call returns, in ms; the message is in the log already. */
  slow_ms: number;
  /** For how many sends; null: until told otherwise. */
  times: number | null;
}

interface ConnectRule {
  mode: 'auto' | 'hold' | 'refuse';
  code: number;
}

const SEND_OK: SendRule = { mode: 'ok', code: 463, message: 'told to fail', slow_ms: 0, times: null };

/** What one session's WhatsApp is told, and the connection it has. */
class Script {
  socket: ScriptedSocket | null = null;
  connects: ConnectRule = { mode: 'auto', code: 503 };
  sends: SendRule = SEND_OK;
  lock: Lock = { isActive: false };
  readonly absent = new Set<string>();
  /** The bytes of files by the id of their message. */
  readonly files = new Map<string, { bytes: Buffer; cut: boolean }>();

  constructor(
    readonly session: string,
    private readonly file: string | null,
  ) {}

  /** One line of JSON; a line is appended at once, so that it is whole even when two gateways share the file. */
  note(event: string, details: object = {}): void {
    const line = { event, session: this.session, pid: process.pid, time: Date.now() / 1000, ...details };
    if (this.file !== null) fs.appendFileSync(this.file, `${JSON.stringify(line)}\n`);
  }

  /** The rule of one send, counted. */
  takeSend(): SendRule {
    const rule = this.sends;
    if (rule.times !== null) this.sends = rule.times > 1 ? { ...rule, times: rule.times - 1 } : SEND_OK;
    return rule;
  }
}

class ScriptedSocket implements WhatsAppSocket {
  readonly #emitter = new EventEmitter();
  readonly ev = { on: this.#emitter.on.bind(this.#emitter) as WhatsAppSocket['ev']['on'] };
  state: 'connecting' | 'qr' | 'open' | 'closed' = 'connecting';

  constructor(
    private readonly script: Script,
    private readonly auth: AuthenticationState,
  ) {
    script.note('connect', { paired: this.#isPaired });
    setImmediate(() => this.#begin());
  }

  get user(): AuthenticationCreds['me'] {
    return this.auth.creds.me;
  }

  get #isPaired(): boolean {
    return this.auth.creds.account !== undefined;
  }

  emit<E extends keyof BaileysEventMap>(event: E, data: BaileysEventMap[E]): void {
    if (this.state !== 'closed') this.#emitter.emit(event, data);
  }

  open(): void {
    this.state = 'open';
    this.script.note('open');
    this.emit('connection.update', { connection: 'open' });
  }

  showQr(): void {
    this.state = 'qr';
    this.emit('connection.update', { qr: `2@scripted,${randomBytes(12).toString('base64')}` });
  }

  /** What happens when a telephone scans the code, or its owner types the other: the login, and a 515. */
  scan(phone: string): void {
    const me = { id: `${phone}:1@s.whatsapp.net`, lid: `9${phone}:1@lid`, name: 'Scripted' };
    this.script.note('scan', { phone });
    this.emit('creds.update', { me, account: proto.ADVSignedDeviceIdentity.create({ details: randomBytes(16) }) });
    this.emit('connection.update', { isNewLogin: true, qr: undefined });
    this.close(515, 'Stream Errored (restart required)');
  }

  close(code: number, message: string): void {
    this.end(boom(code, message));
  }

  end(error: Error | undefined): void {
    if (this.state === 'closed') return;
    const wasOpen = this.state === 'open';
    this.script.note('close', { code: (error as Boomed | undefined)?.output.statusCode ?? null, was_open: wasOpen });
    this.#emitter.emit('connection.update', { connection: 'close', lastDisconnect: { error, date: new Date() } });
    this.state = 'closed';
  }

  async logout(): Promise<void> {
    this.#mustBeOpen();
    this.script.note('logout');
    this.close(401, 'Intentional Logout');
  }

  async requestPairingCode(phone: string): Promise<string> {
    if (this.state !== 'qr') throw boom(428, 'Connection Closed');
    this.script.note('pair', { phone });
    this.emit('creds.update', { me: { id: `${phone}@s.whatsapp.net`, name: '~' }, pairingCode: 'SCRIPTED' });
    return `SCR${phone.slice(-5).padStart(5, '0')}`;
  }

  /** Like Baileys, a key is changed and kept before anything is written. */
  async sendMessage(...[jid, content, options]: Parameters<Send>): ReturnType<Send> {
    this.#mustBeOpen();
    const rule = this.script.takeSend();
    const id = options?.messageId ?? '';
    await this.auth.keys.set({ session: { [`${phoneOf(jid)}.0`]: randomBytes(32) } });
    if (rule.mode === 'throw') throw boom(rule.code, rule.message);
    this.#mustBeOpen();
    const quoted = options?.quoted?.key.id ?? null;
    this.script.note('send', { jid, id, ...shownOf(content), reply_to: quoted, mode: rule.mode });
    setTimeout(() => this.#acknowledge(jid, id, rule), 1);
    if (rule.slow_ms > 0) await delay(rule.slow_ms);
    return { key: { remoteJid: jid, fromMe: true, id } };
  }

  async download({ key }: WAMessage): Promise<Readable> {
    this.#mustBeOpen();
    const file = this.script.files.get(key.id ?? '');
    this.script.note('download', { id: key.id });
    if (file === undefined) throw boom(404, 'Failed to fetch stream');
    return Readable.from(file.cut ? cutOff(file.bytes) : [file.bytes]);
  }

  async sendPresenceUpdate(type: string, jid?: string): Promise<void> {
    this.#mustBeOpen();
    this.script.note('presence', { jid: jid ?? null, type });
  }

  async readMessages(keys: { remoteJid?: string | null; id?: string | null }[]): Promise<void> {
    this.#mustBeOpen();
    for (const { remoteJid, id } of keys) this.script.note('read', { jid: remoteJid, id });
  }

  async onWhatsApp(...jids: string[]): Promise<{ jid: string; exists: boolean }[]> {
    this.#mustBeOpen();
    for (const jid of jids) this.script.note('lookup', { jid });
    return jids.filter((jid) => !this.script.absent.has(phoneOf(jid))).map((jid) => ({ jid, exists: true }));
  }

  async fetchAccountReachoutTimelock(): Promise<Lock> {
    this.#mustBeOpen();
    this.emit('connection.update', { reachoutTimeLock: this.script.lock });
    return this.script.lock;
  }

  #begin(): void {
    const { mode, code } = this.script.connects;
    if (this.state !== 'connecting') return;
    this.emit('connection.update', { connection: 'connecting' });
    if (mode === 'refuse') this.close(code, 'Connection Failure');
    else if (mode === 'auto' && this.#isPaired) this.open();
    else if (mode === 'auto') this.showQr();
  }

  #acknowledge(remoteJid: string, id: string, { mode, code }: SendRule): void {
    const update = (status: number, more: object = {}): void =>
      this.emit('messages.update', [{ key: { remoteJid, fromMe: true, id }, update: { status, ...more } }]);
    if (mode === 'error') update(WAMessageStatus.ERROR, { messageStubParameters: [String(code)] });
    if (mode === 'ok' || mode === 'sent') update(WAMessageStatus.SERVER_ACK);
    if (mode === 'ok') update(WAMessageStatus.DELIVERY_ACK);
  }

  #mustBeOpen(): void {
    if (this.state !== 'open') throw boom(428, 'Connection Closed');
  }
}

/** The first half of a file, and then an error. */
async function* cutOff(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes.subarray(0, bytes.length / 2);
  await delay(50);
  throw boom(500, 'the connection was cut');
}

/** What is sent, as the log shows it: a text, or a file by its kind, hash and words. */
function shownOf(content: AnyMessageContent): object {
  if ('text' in content) return { text: content.text };
  for (const kind of ['image', 'video', 'audio', 'document', 'sticker']) {
    const { [kind]: data, caption, mimetype, fileName, ptt } = content as Record<string, unknown>;
    if (!Buffer.isBuffer(data)) continue;
    const sha256 = createHash('sha256').update(data).digest('hex');
    const facts = { mime: mimetype ?? null, filename: fileName ?? null, voice: ptt === true };
    return { kind, sha256, text: caption ?? null, ...facts };
  }
  return {};
}

type Boomed = Error & { output: { statusCode: number } };

/** An error as Baileys makes them (@hapi/boom). */
function boom(statusCode: number, message: string): Boomed {
  return Object.assign(new Error(message), { output: { statusCode } });
}

export class ScriptedWhatsApp {
  readonly #scripts = new Map<string, Script>();

  /** @param file where every connect, open, close, send, read… is appended as a line of JSON; null: nowhere. */
  constructor(private readonly file: string | null) {}

  readonly open: OpenSocket = ({ session, auth }) => {
    const script = this.#script(session);
    script.socket = new ScriptedSocket(script, auth);
    return script.socket;
  };

  /** The routes by which it is told what to do; for tests, so that they ask for no token. */
  addRoutes(app: FastifyInstance): void {
    interface Told {
      Params: { session: string; what: string };
      Body: Record<string, unknown> | undefined;
    }
    const open = { config: { isOpen: true } };
    app.get<Told>('/_script/:session', open, async ({ params }) => this.#show(this.#script(params.session)));
    app.post<Told>('/_script/:session/:what', open, async ({ params, body }) => {
      const script = this.#script(params.session);
      this.#tell(script, params.what, body ?? {});
      return this.#show(script);
    });
  }

  #script(session: string): Script {
    const script = this.#scripts.get(session) ?? new Script(session, this.file);
    this.#scripts.set(session, script);
    return script;
  }

  #show({ socket, sends, connects, absent }: Script): object {
    return { state: socket?.state ?? 'closed', pid: process.pid, sends, connects, absent: [...absent] };
  }

  #tell(script: Script, what: string, body: Record<string, unknown>): void {
    switch (what) {
      case 'scan':
        return connected(script, 'qr').scan(String(body.phone ?? '4915100000001'));
      case 'qr':
        return connected(script, 'connecting', 'qr').showQr();
      case 'open':
        return connected(script, 'connecting', 'qr').open();
      case 'close':
        return connected(script, 'connecting', 'qr', 'open').close(Number(body.code ?? 428), 'told to close');
      case 'emit':
        return emit(connected(script, 'connecting', 'qr', 'open'), String(body.event), body.data);
      case 'connects':
        script.connects = { mode: 'auto', code: 503, ...body };
        return;
      case 'sends':
        script.sends = { ...SEND_OK, ...body };
        return;
      case 'absent':
        for (const phone of body.phones as string[]) script.absent.add(phone);
        return;
      case 'file': {
        const bytes = Buffer.from(String(body.base64), 'base64');
        script.files.set(String(body.id), { bytes, cut: body.cut === true });
        return;
      }
      case 'lock':
        script.lock = lockOf(body);
        return;
      default:
        throw new Refusal('not_found', `nothing can be told of ${what}`);
    }
  }
}

function connected({ socket }: Script, ...states: ScriptedSocket['state'][]): ScriptedSocket {
  if (socket === null || !states.includes(socket.state)) {
    throw new Refusal('not_connected', `the scripted connection is ${socket?.state ?? 'closed'}`);
  }
  return socket;
}

/** JSON has neither dates nor WhatsApp's message objects: both are made of it, as Baileys would hand them over. */
function emit(socket: ScriptedSocket, event: string, data: unknown): void {
  if (event === 'messages.upsert') {
    const { messages, type } = data as BaileysEventMap['messages.upsert'];
    const made = messages.map((message: WAMessage) => ({
      ...message,
      message: message.message ? proto.Message.fromObject(message.message) : message.message,
    }));
    socket.emit('messages.upsert', { messages: made, type });
  } else if (event === 'connection.update') {
    const { reachoutTimeLock: lock, ...rest } = data as { reachoutTimeLock?: Record<string, unknown> };
    socket.emit('connection.update', lock ? { ...rest, reachoutTimeLock: lockOf(lock) } : rest);
  } else {
    socket.emit(event as keyof BaileysEventMap, data as never);
  }
}

/** @param lock with `until` or `timeEnforcementEnds` in Unix seconds. */
function lockOf(lock: Record<string, unknown>): Lock {
  const ends = Number(lock.until ?? lock.timeEnforcementEnds ?? NaN);
  const isActive = lock.isActive !== false;
  return Number.isFinite(ends) ? { isActive, timeEnforcementEnds: new Date(ends * 1000) } : { isActive };
}
