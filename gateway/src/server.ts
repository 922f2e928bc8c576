/** The calls of docs/qr-gateway.md over HTTP. */
import { createHash, timingSafeEqual } from 'node:crypto';
import Fastify from 'fastify';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { FILE_KINDS } from './files.js';
import type { OrderedFile } from './files.js';
import type { Gateway } from './gateway.js';
import { readJid } from './jid.js';
import { Refusal } from './refusal.js';
import type { Order } from './sends.js';
import type { SessionConfig } from './session.js';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the call needs no token. */
    isOpen?: boolean;
  }
}

/** 65,536 characters, each of them escaped, and what is around them. */
const MAX_BODY_BYTES = 512 * 1024;

const ID = { type: 'object', properties: { id: { type: 'string', pattern: '^[A-Za-z0-9._-]{1,100}$' } } };
const CONFIG = {
  type: 'object',
  required: ['webhook_url', 'webhook_secret'],
  properties: {
    webhook_url: { type: 'string', maxLength: 2000, pattern: '^https?://[^/\\s]+' },
    webhook_secret: { type: 'string', minLength: 1, maxLength: 1000 },
    label: { type: ['string', 'null'], maxLength: 200 },
  },
};
const PHONE = {
  type: 'object',
  required: ['phone'],
  properties: { phone: { type: 'string', pattern: '^\\+?[0-9]{5,20}$' } },
};
const KEY = {
  type: 'object',
  required: ['idempotency-key'],
  properties: { 'idempotency-key': { type: 'string', minLength: 1, maxLength: 128 } },
};
const TO = { type: 'string', minLength: 1, maxLength: 100 };
const WA_ID = { type: 'string', minLength: 1, maxLength: 128 };
const TEXT = {
  required: ['text'],
  properties: { text: { type: 'string', minLength: 1, maxLength: 65_536 } },
};
const MEDIA = {
  required: ['kind', 'link'],
  properties: {
    kind: { enum: [...FILE_KINDS] },
    link: { type: 'string', maxLength: 2000, pattern: '^https?://[^\\s/?#]+' },
    caption: { type: ['string', 'null'], maxLength: 1024 },
    filename: { type: ['string', 'null'], maxLength: 240 },
  },
};
const MESSAGE = {
  type: 'object',
  required: ['to', 'type'],
  properties: {
    to: TO,
    type: { enum: ['text', 'media'] },
    reply_to: { anyOf: [WA_ID, { type: 'null' }] },
    typing_ms: { type: 'integer', minimum: 0, maximum: 20_000 },
  },
  if: { properties: { type: { const: 'media' } } },
  then: MEDIA,
  else: TEXT,
};
const FILE = { type: 'object', properties: { ...ID.properties, waId: WA_ID } };
const READ = {
  type: 'object',
  required: ['to', 'message_ids'],
  properties: { to: TO, message_ids: { type: 'array', minItems: 1, maxItems: 100, items: WA_ID } },
};
const TYPING = { type: 'object', required: ['to', 'on'], properties: { to: TO, on: { type: 'boolean' } } };

interface Id {
  Params: { id: string };
}
interface Put extends Id {
  Body: Omit<SessionConfig, 'label'> & { label?: string | null };
}
interface Pair extends Id {
  Body: { phone: string };
}
interface Send extends Id {
  Headers: { 'idempotency-key': string };
  Body: { to: string; reply_to?: string | null; typing_ms?: number } & (TextBody | MediaBody);
}
interface TextBody {
  type: 'text';
  text: string;
}
interface MediaBody extends Pick<OrderedFile, 'kind' | 'link'> {
  type: 'media';
  caption?: string | null;
  filename?: string | null;
}
interface File {
  Params: { id: string; waId: string };
}
interface Read extends Id {
  Body: { to: string; message_ids: string[] };
}
interface Typing extends Id {
  Body: { to: string; on: boolean };
}

/** The server, not yet listening. Every answer that is no success is a Refusal. */
export function makeServer(gateway: Gateway, token: string, log: Logger): FastifyInstance {
  const app = Fastify({
    bodyLimit: MAX_BODY_BYTES,
    routerOptions: { maxParamLength: 300 },
    // What was sent is what is meant: "1" is no number, and nothing is cut away.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allowUnionTypes: true } },
  });
  takeEmptyBodies(app);
  app.setErrorHandler((error: FastifyError, request, reply) => refuse(refusalOf(error, request, log), reply));
  app.setNotFoundHandler((_request, reply) => refuse(new Refusal('not_found', 'there is no such call'), reply));
  app.addHook('onRequest', async (request) => {
    const isOpen = request.routeOptions.config.isOpen === true;
    if (!isOpen && !isToken(request.headers.authorization, token)) {
      throw new Refusal('unauthorized', 'the token is wrong');
    }
  });
  app.get('/health', { config: { isOpen: true } }, async () => ({ status: 'ok' }));
  addSessionCalls(app, gateway);
  addMessageCalls(app, gateway);
  return app;
}

function addSessionCalls(app: FastifyInstance, gateway: Gateway): void {
  const at = '/v1/sessions/:id';
  app.put<Put>(at, { schema: { params: ID, body: CONFIG } }, async ({ params, body }) => {
    const { webhook_url, webhook_secret, label = null } = body;
    return (await gateway.put(params.id, { webhook_url, webhook_secret, label })).view;
  });
  app.get<Id>(at, { schema: { params: ID } }, async ({ params }) => (await gateway.find(params.id)).view);
  app.post<Pair>(`${at}/pair`, { schema: { params: ID, body: PHONE } }, ({ params, body }) =>
    gateway.change(params.id, (session) => session.pair(body.phone.replace('+', ''))),
  );
  app.post<Id>(`${at}/restart`, { schema: { params: ID } }, ({ params }) =>
    gateway.change(params.id, (session) => session.restart()),
  );
  app.post<Id>(`${at}/logout`, { schema: { params: ID } }, ({ params }) =>
    gateway.change(params.id, (session) => session.logout()),
  );
  app.delete<Id>(at, { schema: { params: ID } }, async ({ params }, reply) => {
    await gateway.remove(params.id);
    return reply.code(204).send();
  });
}

function addMessageCalls(app: FastifyInstance, gateway: Gateway): void {
  const at = '/v1/sessions/:id';
  const message = { params: ID, headers: KEY, body: MESSAGE };
  app.post<Send>(`${at}/messages`, { schema: message }, async ({ params, headers, body }, reply) => {
    const session = await gateway.find(params.id);
    const order = { to: person(body.to), reply_to: body.reply_to ?? null, ...said(body) };
    const answer = await session.send(headers['idempotency-key'], order, body.typing_ms ?? 0);
    return reply.code(answer.repeated ? 200 : 202).send(answer.body);
  });
  app.get<File>(`${at}/media/:waId`, { schema: { params: FILE } }, async ({ params }, reply) => {
    const session = await gateway.find(params.id);
    return reply.type('application/octet-stream').send(await session.file(params.waId));
  });
  app.post<Read>(`${at}/read`, { schema: { params: ID, body: READ } }, async ({ params, body }, reply) => {
    const session = await gateway.find(params.id);
    await session.read(person(body.to), body.message_ids);
    return reply.code(202).send({});
  });
  app.post<Typing>(`${at}/typing`, { schema: { params: ID, body: TYPING } }, async ({ params, body }, reply) => {
    const session = await gateway.find(params.id);
    await session.typing(person(body.to), body.on);
    return reply.code(202).send({});
  });
}

function said(body: TextBody | MediaBody): Pick<Order, 'text' | 'file'> {
  if (body.type === 'text') return { text: body.text };
  const { kind, link, caption, filename = null } = body;
  return { text: caption ?? '', file: { kind, link, filename } };
}

function person(to: string): string {
  const jid = readJid(to);
  if (jid === null) throw new Refusal('invalid', '`to` is neither a phone number nor the address of one person');
  return jid;
}

/** Fastify refuses an empty body that is said to be JSON; here a caller may set the header on every call. */
function takeEmptyBodies(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else void parse(request, body, done);
  });
}

/** Both sides are hashed, so that neither the time taken nor the length tells anything of the token. */
function isToken(header: string | undefined, token: string): boolean {
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(header ?? ''), hash(`Bearer ${token}`));
}

function refusalOf(error: FastifyError | Refusal, request: FastifyRequest, log: Logger): Refusal {
  if (error instanceof Refusal) return error;
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new Refusal('too_large', 'the body is too large');
  if ('validation' in error && error.validation) return new Refusal('invalid', error.message);
  if (error.statusCode !== undefined && error.statusCode < 500) return new Refusal('invalid', 'the body is not JSON');
  log.error({ call: `${request.method} ${request.routeOptions.url}`, reason: error.message }, 'a call failed');
  return new Refusal('internal', 'the gateway failed', 5000);
}

function refuse(refusal: Refusal, reply: FastifyReply): FastifyReply {
  return reply.code(refusal.status).send(refusal.body);
}
