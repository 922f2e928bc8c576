// POST /v1/messages: checks the API key and the body, adds the job, answers 202.
import http from 'node:http';
import { createHash, randomUUID } from 'node:crypto';
import { pool, queue } from './settings.mjs';

const incoming = queue('incoming-messages');
const keys = new Map();
const bots = new Map();

async function holder(key) {
  const hash = createHash('sha256').update(key).digest();
  const known = keys.get(hash.toString('hex'));
  if (known && known.until > Date.now()) return known;
  const { rows } = await pool.query(
    'SELECT k.customer_id, u.priority FROM api_keys k JOIN customers u ON u.id = k.customer_id WHERE k.key_hash = $1 AND k.revoked_at IS NULL',
    [hash],
  );
  if (!rows[0]) return null;
  const found = { ...rows[0], until: Date.now() + 5000 };
  keys.set(hash.toString('hex'), found);
  return found;
}

async function channelOf(chatbotId, kind, customerId) {
  const id = `${chatbotId}:${kind}`;
  const known = bots.get(id);
  if (known && known.until > Date.now()) return known.channel;
  const { rows } = await pool.query(
    'SELECT id FROM channels WHERE chatbot_id = $1 AND kind = $2 AND customer_id = $3 AND enabled',
    [chatbotId, kind, customerId],
  );
  const channel = rows[0]?.id;
  if (channel) bots.set(id, { channel, until: Date.now() + 5000 });
  return channel;
}

const server = http.createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  };
  try {
    if (request.url === '/health/ready') return answer(200, { status: 'ready' });
    if (request.method !== 'POST' || request.url !== '/v1/messages') return answer(404, { title: 'Not found' });
    const caller = await holder((request.headers.authorization ?? '').replace(/^Bearer /, ''));
    if (!caller) return answer(401, { title: 'Unknown key' });
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = JSON.parse(Buffer.concat(parts).toString());
    for (const name of ['chatbotId', 'externalUserId', 'content', 'channel']) {
      if (typeof body[name] !== 'string' || !body[name]) return answer(422, { title: `${name} is missing` });
    }
    const channelId = await channelOf(body.chatbotId, body.channel, caller.customer_id);
    if (!channelId) return answer(404, { title: 'No such channel' });
    const messageId = randomUUID();
    const job = { ...body, channelId, customerId: caller.customer_id, messageId, priority: caller.priority };
    await incoming.add('process-message', job, { priority: caller.priority });
    answer(202, { messageId });
  } catch (error) {
    answer(error instanceof SyntaxError ? 400 : 500, { title: String(error.message) });
  }
});
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
