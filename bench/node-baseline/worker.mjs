// The six processors of the brief, each a BullMQ worker. Written as a careful Node team would: a transaction a job, prepared
// statements, keep-alive HTTP, unique provider ids; without Replyline's guarantees (jobs are added after the commit, no lanes,
// no turns, no sweep).
import { createHmac, randomUUID } from 'node:crypto';
import http from 'node:http';
import { Worker, UnrecoverableError } from 'bullmq';
import { AI_CONCURRENCY, CONCURRENCY, connection, pool, queue, transaction } from './settings.mjs';

const ai = queue('ai-processing');
const outgoing = queue('outgoing-messages');
const cloud = queue('whatsapp-cloud-send');
const qr = queue('whatsapp-qr-send');
const webhooks = queue('webhook-delivery');
const deadLetters = queue('dead-letter');
// The model has as many calls open as there are jobs of its queue; the agent's pools are of one host and port each.
const agent = new http.Agent({ keepAlive: true, maxSockets: AI_CONCURRENCY });
const CLOUD_TOKEN = process.env.CLOUD_TOKEN;

function post(url, headers, text) {
  return new Promise((resolve, reject) => {
    const request = http.request(
      url,
      { method: 'POST', agent, timeout: 20000, headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), ...headers } },
      (response) => {
        const parts = [];
        response.on('data', (part) => parts.push(part));
        response.on('end', () => resolve({ status: response.statusCode, text: Buffer.concat(parts).toString() }));
      },
    );
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', reject);
    request.end(text);
  });
}

async function announce(client, type, customerId, messageId, data, priority) {
  const { rows } = await client.query({
    name: 'endpoints',
    text: 'SELECT id FROM webhook_endpoints WHERE customer_id = $1 AND enabled AND $2 = ANY(events)',
    values: [customerId, type],
  });
  const jobs = [];
  for (const endpoint of rows) {
    const eventId = randomUUID();
    await client.query({
      name: 'event',
      text: 'INSERT INTO webhook_events (id, customer_id, endpoint_id, type, payload, message_id) VALUES ($1, $2, $3, $4, $5, $6)',
      values: [eventId, customerId, endpoint.id, type, JSON.stringify({ type, timestamp: new Date().toISOString(), data }), messageId],
    });
    jobs.push({ name: 'deliver-event', data: { eventId, customerId }, opts: { priority } });
  }
  return jobs;
}

async function usage(client, kind, job, more = {}) {
  await client.query({
    name: 'usage',
    text: `INSERT INTO usage_logs (id, fact_key, kind, customer_id, channel_kind, chatbot_id, conversation_id, message_id, provider, model,
                                   input_tokens, output_tokens, latency_ms)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
    values: [randomUUID(), `${kind}:${more.messageId ?? job.messageId}`, kind, job.customerId, job.channel, job.chatbotId, job.conversationId,
             more.messageId ?? job.messageId, more.provider ?? null, more.model ?? null, more.input ?? null, more.output ?? null, more.latency ?? null],
  });
}

async function placeOf(client, job) {
  const found = await client.query({
    name: 'place',
    text: `SELECT v.id FROM contact_identities i JOIN conversations v ON v.contact_id = i.contact_id AND v.channel_id = i.channel_id
           WHERE i.channel_id = $1 AND i.kind = 'external' AND i.value = $2 AND v.chatbot_id = $3`,
    values: [job.channelId, job.externalUserId, job.chatbotId],
  });
  if (found.rows[0]) return found.rows[0].id;
  const contactId = randomUUID();
  await client.query('INSERT INTO contacts (id, customer_id, channel_id) VALUES ($1, $2, $3)', [contactId, job.customerId, job.channelId]);
  const identity = await client.query(
    `INSERT INTO contact_identities (channel_id, kind, value, customer_id, contact_id) VALUES ($1, 'external', $2, $3, $4)
     ON CONFLICT (channel_id, kind, value) DO UPDATE SET value = excluded.value RETURNING contact_id`,
    [job.channelId, job.externalUserId, job.customerId, contactId],
  );
  const conversation = await client.query(
    `INSERT INTO conversations (id, customer_id, chatbot_id, channel_id, contact_id, reply_to) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (channel_id, contact_id, chatbot_id) DO UPDATE SET updated_at = now() RETURNING id`,
    [randomUUID(), job.customerId, job.chatbotId, job.channelId, identity.rows[0].contact_id, job.externalUserId],
  );
  return conversation.rows[0].id;
}

async function nextSeq(client, conversationId, inbound) {
  const { rows } = await client.query({
    name: inbound ? 'seq-in' : 'seq-out',
    text: `UPDATE conversations SET last_seq = last_seq + 1, updated_at = now()${inbound ? ', last_inbound_seq = last_seq + 1, last_inbound_at = now()' : ''}
           WHERE id = $1 RETURNING last_seq`,
    values: [conversationId],
  });
  return rows[0].last_seq;
}

async function insertMessage(client, message) {
  await client.query({
    name: 'message',
    text: `INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, external_id, trace_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    values: message,
  });
}

const processors = {
  async 'incoming-messages'(job) {
    const hooks = await transaction(async (client) => {
      job.conversationId = await placeOf(client, job);
      const seq = await nextSeq(client, job.conversationId, true);
      await insertMessage(client, [job.messageId, job.customerId, job.conversationId, job.channelId, seq, 'INBOUND', 'user', 'RECEIVED',
                                   job.content, job.externalMessageId ?? null, job.messageId]);
      await usage(client, 'message_received', job);
      return announce(client, 'message.received', job.customerId, job.messageId, { message_id: job.messageId, content: job.content }, job.priority);
    });
    const context = await pool.query({
      name: 'context',
      text: 'SELECT direction, content FROM messages WHERE conversation_id = $1 ORDER BY seq DESC LIMIT 20',
      values: [job.conversationId],
    });
    await ai.add('answer-turn', { ...job, context: context.rows.reverse() }, { priority: job.priority });
    if (hooks.length) await webhooks.addBulk(hooks);
  },

  async 'ai-processing'(job) {
    const { rows } = await pool.query({ name: 'bot', text: 'SELECT * FROM chatbots WHERE id = $1', values: [job.chatbotId] });
    const bot = rows[0];
    const messages = [{ role: 'system', content: bot.instructions },
                      ...job.context.map((line) => ({ role: line.direction === 'INBOUND' ? 'user' : 'assistant', content: line.content }))];
    const started = Date.now();
    const answer = await post(`${bot.provider_base_url}/chat/completions`, { authorization: 'Bearer bench-key' },
                              JSON.stringify({ model: bot.model, messages, max_tokens: bot.max_output_tokens }));
    if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) throw new UnrecoverableError(answer.text);
    if (answer.status !== 200) throw new Error(`the model answered ${answer.status}`);
    const reply = JSON.parse(answer.text);
    const replyId = randomUUID();
    await transaction(async (client) => {
      const seq = await nextSeq(client, job.conversationId, false);
      await insertMessage(client, [replyId, job.customerId, job.conversationId, job.channelId, seq, 'OUTBOUND', 'assistant', 'QUEUED',
                                   reply.choices[0].message.content, null, job.messageId]);
      await usage(client, 'ai_answer', job, { messageId: replyId, provider: 'openai', model: reply.model, input: reply.usage?.prompt_tokens,
                                              output: reply.usage?.completion_tokens, latency: Date.now() - started });
    });
    const { context, content, ...rest } = job;
    await outgoing.add('route-message', { ...rest, messageId: replyId }, { priority: job.priority });
  },

  async 'outgoing-messages'(job) {
    await pool.query({ name: 'sending', text: "UPDATE messages SET status = 'SENDING' WHERE id = $1", values: [job.messageId] });
    const target = { WHATSAPP_CLOUD: cloud, WHATSAPP_QR: qr }[job.channel];
    if (target) await target.add('send-message', job, { priority: job.priority });
    else await pool.query("UPDATE messages SET status = 'SENT', sent_at = now() WHERE id = $1", [job.messageId]);
  },

  async 'whatsapp-cloud-send'(job) {
    const { rows } = await pool.query({
      name: 'outbound',
      text: `SELECT m.content, v.reply_to, c.external_id, c.config FROM messages m JOIN conversations v ON v.id = m.conversation_id
             JOIN channels c ON c.id = m.channel_id WHERE m.id = $1`,
      values: [job.messageId],
    });
    const message = rows[0];
    const answer = await post(`${message.config.graph_base}/${message.config.graph_version ?? 'v25.0'}/${message.external_id}/messages`,
      { authorization: `Bearer ${CLOUD_TOKEN}` },
      JSON.stringify({ messaging_product: 'whatsapp', recipient_type: 'individual', to: message.reply_to, type: 'text',
                       text: { body: message.content }, biz_opaque_callback_data: job.messageId }));
    if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) throw new UnrecoverableError(answer.text);
    if (answer.status !== 200) throw new Error(`Meta answered ${answer.status}`);
    const wamid = JSON.parse(answer.text).messages[0].id;
    const hooks = await transaction(async (client) => {
      await client.query({ name: 'sent', text: "UPDATE messages SET status = 'SENT', external_id = $2, sent_at = now() WHERE id = $1",
                           values: [job.messageId, wamid] });
      await usage(client, 'message_sent', job);
      return announce(client, 'message.sent', job.customerId, job.messageId,
                      { message_id: job.messageId, external_id: wamid, content: message.content }, job.priority);
    });
    if (hooks.length) await webhooks.addBulk(hooks);
  },

  async 'whatsapp-qr-send'() {
    throw new UnrecoverableError('not part of the comparison');
  },

  async 'webhook-delivery'(job) {
    const { rows } = await pool.query({
      name: 'delivery',
      text: 'SELECT e.id, e.payload, p.url FROM webhook_events e JOIN webhook_endpoints p ON p.id = e.endpoint_id WHERE e.id = $1',
      values: [job.eventId],
    });
    const event = rows[0];
    const body = JSON.stringify(event.payload);
    const at = Math.floor(Date.now() / 1000);
    const signature = createHmac('sha256', Buffer.from(process.env.WEBHOOK_SECRET.replace('whsec_', ''), 'base64'))
      .update(`${event.id}.${at}.${body}`).digest('base64');
    const started = Date.now();
    const answer = await post(event.url, { 'webhook-id': event.id, 'webhook-timestamp': String(at), 'webhook-signature': `v1,${signature}` }, body);
    if (answer.status < 200 || answer.status >= 300) throw new Error(`the endpoint answered ${answer.status}`);
    await transaction(async (client) => {
      await client.query({
        name: 'attempt',
        text: `INSERT INTO webhook_attempts (id, customer_id, event_id, started_at, duration_ms, status_code)
               VALUES ($1, $2, $3, to_timestamp($4), $5, $6)`,
        values: [randomUUID(), job.customerId, event.id, at, Date.now() - started, answer.status],
      });
      await client.query({ name: 'delivered', text: "UPDATE webhook_events SET status = 'DELIVERED', finished_at = now() WHERE id = $1",
                           values: [event.id] });
    });
  },
};

const workers = Object.entries(processors).map(([name, process]) => {
  const worker = new Worker(name, (job) => process({ ...job.data }), {
    connection: connection(),
    concurrency: name === 'ai-processing' ? AI_CONCURRENCY : CONCURRENCY, // answers are waited for, not worked for
  });
  worker.on('failed', (job, error) => {
    console.error(`${name} ${job?.id}: ${error.message}`);
    if (job && job.attemptsMade >= (job.opts.attempts ?? 1)) deadLetters.add('dead-letter', { queue: name, data: job.data, error: error.message });
  });
  return worker;
});
await Promise.all(workers.map((worker) => worker.waitUntilReady()));
console.log('ready');
process.on('SIGTERM', async () => {
  await Promise.all(workers.map((worker) => worker.close()));
  process.exit(0);
});
