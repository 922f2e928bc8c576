/** A server that speaks the widget's protocol on the loopback, and does what a test tells it: the tests' other side. */
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Attachment, Author, Config, Message } from '../src/wire';

const CONFIG: Config = {
  title: "Blum's Bakery",
  subtitle: 'We answer at once',
  greeting: 'Hello! 👋 What can we bake for you?',
  placeholder: null,
  color: '#0f766e',
  theme: 'auto',
  position: 'right',
  uploads: true,
  upload_max_bytes: 4_000_000,
  upload_types: ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'application/pdf', 'text/plain'],
  max_chars: 4000,
};

interface Talk {
  id: string;
  log: Message[];
  streams: Set<ServerResponse>;
  typing: boolean[];
  reads: { up_to: number; state: string }[];
}

/** An answer that takes the place of the next one to a route, such as `POST /messages`. */
interface Fault {
  status: number;
  body?: object;
  /** Does what was asked, and only then fails: the answer is lost on the way back. */
  isLate?: boolean;
}

export class Standin {
  config = { ...CONFIG };
  expiresIn = 3600;
  /** Whether an answer comes by itself. */
  answer: ((text: string) => string) | null = null;
  /** How many messages were taken, and repeats of them. */
  posts: { client_id: string; text: string; repeat: boolean }[] = [];
  /** The messages as they were sent. */
  readonly bodies: object[] = [];
  sessions: { visitor_token: string | null; user: { id: string } | null; user_token: string | null; page_url: string }[] = [];
  maxStreams = 3;
  readonly talks = new Map<string, Talk>();
  private readonly tokens = new Map<string, Talk>();
  private readonly visitors = new Map<string, Talk>();
  private readonly users = new Map<string, Talk>();
  private readonly files = new Map<string, { file: Attachment; bytes: Buffer }>();
  private readonly faults = new Map<string, Fault[]>();
  /** Pages and scripts to hand out, for looking at it in a browser. */
  readonly pages = new Map<string, { type: string; body: string | Buffer; headers?: Record<string, string> }>();
  private server: Server | null = null;
  url = '';

  async start(port = 0): Promise<this> {
    this.server = createServer((request, response) => void this.handle(request, response));
    await new Promise<void>((resolve) => this.server!.listen(port, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
    return this;
  }

  /** The server is gone, with all its connections; what it knew stays for the next start. */
  async stop(): Promise<void> {
    this.server?.closeAllConnections();
    await new Promise((resolve) => this.server?.close(resolve));
  }

  fail(route: string, fault: Fault, times = 1): void {
    this.faults.set(route, [...(this.faults.get(route) ?? []), ...Array<Fault>(times).fill(fault)]);
  }

  /** Nothing fails any more. */
  mend(): void {
    this.faults.clear();
  }

  /** Every session and visitor is unknown from now on. */
  forgetTokens(): void {
    this.tokens.clear();
  }

  forgetVisitors(): void {
    this.tokens.clear();
    this.visitors.clear();
  }

  get talk(): Talk {
    return [...this.talks.values()].at(-1)!;
  }

  newTalk(): Talk {
    const talk: Talk = { id: randomUUID(), log: [], streams: new Set(), typing: [], reads: [] };
    this.talks.set(talk.id, talk);
    return talk;
  }

  /** A visitor who has been here: the token to begin with. */
  knownVisitor(talk = this.newTalk()): string {
    const token = `visitor-${randomUUID()}`;
    this.visitors.set(token, talk);
    return token;
  }

  /** Puts a message into the log, and tells the streams. */
  say(author: Author, text: string, more: Partial<Message> = {}, talk = this.talk): Message {
    const message: Message = {
      id: randomUUID(),
      seq: (talk.log.at(-1)?.seq ?? 0) + 1,
      author,
      text,
      client_id: null,
      status: author === 'user' ? 'received' : 'sent',
      attachments: [],
      created_at: new Date().toISOString(),
      ...more,
    };
    talk.log.push(message);
    this.emit(author === 'assistant' ? 'message.completed' : 'message.created', message, message.seq, talk);
    return message;
  }

  emit(event: string, data: object, id?: number, talk = this.talk): void {
    const block = `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
    for (const stream of talk.streams) stream.write(block);
  }

  /** Ends the open streams, as a restart or an expired token does. */
  cutStreams(talk = this.talk): void {
    for (const stream of talk.streams) stream.destroy();
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const page = this.pages.get(url.pathname);
    if (page) {
      response.writeHead(200, { 'Content-Type': page.type, ...page.headers }).end(page.body);
      return;
    }
    response.setHeader('Access-Control-Allow-Origin', request.headers.origin ?? '*');
    response.setHeader('Access-Control-Allow-Headers', 'authorization, content-type, last-event-id');
    response.setHeader('Access-Control-Allow-Methods', 'GET, POST, DELETE');
    if (request.method === 'OPTIONS') {
      response.writeHead(204).end();
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const path = url.pathname.replace('/widget/v1', '').replace(/\/att_.*/, '/{id}');
    const fault = this.faults.get(`${request.method} ${path}`)?.shift();
    if (fault && !fault.isLate) return problem(response, fault);
    const reply = fault ? { writeHead: () => ({ end: () => problem(response, fault) }) } : response;
    this.route(`${request.method} ${path}`, url, request, body, reply as ServerResponse);
  }

  private route(route: string, url: URL, request: IncomingMessage, body: Buffer, response: ServerResponse): void {
    const json = (): Record<string, unknown> => JSON.parse(body.toString() || '{}') as Record<string, unknown>;
    if (route === 'POST /sessions') return this.session(json(), response);
    const talk = this.tokens.get((request.headers.authorization ?? '').replace('Bearer ', ''));
    if (!talk) return problem(response, { status: 401, body: { code: 'unauthorized' } });
    if (route === 'GET /events') return this.events(talk, url, response);
    if (route === 'GET /messages') return this.messages(talk, url.searchParams, response);
    if (route === 'POST /messages') return this.take(talk, json(), response);
    if (route === 'POST /read') talk.reads.push(json() as never);
    if (route === 'POST /typing') talk.typing.push(json()['on'] as never);
    if (route === 'DELETE /sessions') {
      for (const map of [this.tokens, this.visitors]) for (const [token, of] of map) if (of === talk) map.delete(token);
    }
    if (route === 'POST /uploads') {
      const file = {
        id: `att_${randomUUID()}`,
        name: url.searchParams.get('filename') ?? '',
        mime_type: request.headers['content-type'] ?? '',
        size: body.length,
      };
      this.files.set(file.id, { file, bytes: body });
      return send(response, 201, file);
    }
    if (route === 'GET /uploads/{id}') {
      const kept = this.files.get(url.pathname.split('/').at(-1)!);
      if (!kept) return problem(response, { status: 404 });
      response.writeHead(200, { 'Content-Type': 'application/octet-stream' }).end(kept.bytes);
      return;
    }
    response.writeHead(204).end();
  }

  private session(body: Record<string, unknown>, response: ServerResponse): void {
    this.sessions.push(body as never);
    const user = (body['user'] as { id: string } | null)?.id ?? (body['user_token'] as string | null);
    let visitor = body['visitor_token'] as string | null;
    let talk = visitor ? this.visitors.get(visitor) : undefined;
    if (user) {
      talk = this.users.get(user) ?? this.newTalk();
      this.users.set(user, talk);
      visitor = null;
    }
    talk ??= this.newTalk();
    if (!visitor || !this.visitors.has(visitor)) visitor = this.knownVisitor(talk);
    const token = `session-${randomUUID()}`;
    this.tokens.set(token, talk);
    send(response, 201, {
      session_token: token,
      expires_in: this.expiresIn,
      visitor_token: visitor,
      conversation_id: talk.id,
      verified: Boolean(user),
      last_event_id: String(talk.log.at(-1)?.seq ?? 0),
      config: this.config,
    });
  }

  private messages(talk: Talk, query: URLSearchParams, response: ServerResponse): void {
    const limit = Number(query.get('limit') ?? 50);
    const after = query.get('after');
    const before = Number(query.get('before') ?? Infinity);
    const found = talk.log.filter((message) => (after === null ? message.seq < before : message.seq > Number(after)));
    const data = after === null ? found.slice(-limit) : found.slice(0, limit);
    const answer = { data, more: found.length > data.length, last_event_id: String(talk.log.at(-1)?.seq ?? 0) };
    if (data.length || !Number(query.get('wait'))) return send(response, 200, answer);
    // The long poll: looks again now and then.
    const until = Date.now() + Number(query.get('wait')) * 1000;
    const timer = setInterval(() => {
      if (!talk.log.some((message) => message.seq > Number(after)) && Date.now() < until) return;
      clearInterval(timer);
      query.delete('wait');
      this.messages(talk, query, response);
    }, 20);
    response.on('close', () => clearInterval(timer));
  }

  private take(talk: Talk, body: Record<string, unknown>, response: ServerResponse): void {
    const { client_id, text, attachments, choice } = body as unknown as Pick<Message, 'text' | 'choice'> & { client_id: string; attachments: string[] };
    const known = talk.log.find((message) => message.client_id === client_id);
    this.bodies.push(body);
    this.posts.push({ client_id, text, repeat: Boolean(known) });
    const files = attachments.map((id) => this.files.get(id)!.file);
    const message = known ?? this.say('user', text, { client_id, attachments: files, choice: choice ?? null }, talk);
    send(response, known ? 200 : 202, { id: message.id, client_id, status: 'accepted' });
    if (this.answer && !known) void this.write(this.answer(text), talk);
  }

  /** Writes an answer piece by piece, as a model does. */
  async write(text: string, talk = this.talk, pause = 30): Promise<void> {
    const id = randomUUID();
    this.emit('typing', { on: true, author: 'assistant' }, undefined, talk);
    await new Promise((resolve) => setTimeout(resolve, pause * 20));
    for (const [i, piece] of (text.match(/[^]{1,6}/g) ?? []).entries()) {
      this.emit('message.delta', { id, i, text: piece }, undefined, talk);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    this.say('assistant', text, { id }, talk);
  }

  private events(talk: Talk, url: URL, response: ServerResponse): void {
    if (talk.streams.size >= this.maxStreams) return problem(response, { status: 429, body: { code: 'too_many_streams' } });
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('retry: 3000\n\n');
    talk.streams.add(response);
    response.on('close', () => talk.streams.delete(response));
    const ping = setInterval(() => response.write(': ping\n\n'), 15_000);
    response.on('close', () => clearInterval(ping));
    for (const message of talk.log.filter((one) => one.seq > Number(url.searchParams.get('after')))) {
      const event = message.author === 'assistant' ? 'message.completed' : 'message.created';
      response.write(`id: ${message.seq}\nevent: ${event}\ndata: ${JSON.stringify(message)}\n\n`);
    }
  }
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
}

function problem(response: ServerResponse, { status, body }: Fault): void {
  response
    .writeHead(status, { 'Content-Type': 'application/problem+json' })
    .end(JSON.stringify({ type: 'about:blank', title: 'Refused', status, ...body }));
}
