-- What waits, n from :FIRST to :LAST: contacts of one channel who have all written, been answered, and written again; each has a
-- turn and a send that wait.
INSERT INTO contacts (id, customer_id, channel_id)
SELECT md5('contact' || n)::uuid, :CUSTOMER, :CHANNEL
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO contact_identities (channel_id, kind, value, customer_id, contact_id)
SELECT :CHANNEL, 'wa_id', 'person-' || n, :CUSTOMER, md5('contact' || n)::uuid
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO conversations (id, customer_id, chatbot_id, channel_id, contact_id, reply_to, lane_length)
SELECT md5('conversation' || n)::uuid, :CUSTOMER, :CHATBOT, :CHANNEL, md5('contact' || n)::uuid, 'person-' || n, 1
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, external_id,
       trace_id)
SELECT md5('in' || n)::uuid, :CUSTOMER, md5('conversation' || n)::uuid, :CHANNEL, 1, 'INBOUND', 'user', 'RECEIVED', 'hello',
       'in-' || n, md5('trace' || n)::uuid
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, trace_id, log_seq)
SELECT md5('out' || n)::uuid, :CUSTOMER, md5('conversation' || n)::uuid, :CHANNEL, 2, 'OUTBOUND', 'assistant', 'QUEUED',
       'hello', md5('trace' || n)::uuid, 1
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO jobs (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, dedupe_key, lane_key,
       priority)
SELECT md5('incoming' || n)::uuid, 'incoming-messages', 'process-message', '{}', :CUSTOMER, NULL, md5('next' || n)::uuid,
       md5('next' || n)::uuid, 'key-' || n, 'lane-' || n, 5
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO jobs (id, queue, name, payload, customer_id, trace_id, lane_key, priority, run_at, wait_reason)
SELECT md5('behind' || n)::uuid, 'incoming-messages', 'process-message', '{}', :CUSTOMER, md5('behind' || n)::uuid,
       'lane-' || n, 5, 'infinity', 'behind_earlier'
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO jobs (id, queue, name, payload, customer_id, conversation_id, trace_id, priority)
SELECT md5('turn' || n)::uuid, 'ai-processing', 'generate-response', '{}', :CUSTOMER, md5('conversation' || n)::uuid,
       md5('trace' || n)::uuid, 5
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO jobs (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, priority, held_by, run_at)
SELECT md5('send' || n)::uuid, 'whatsapp-cloud-send', 'send-message', '{}', :CUSTOMER, md5('conversation' || n)::uuid,
       md5('out' || n)::uuid, md5('trace' || n)::uuid, 5, CASE WHEN n % 2 = 0 THEN :CHANNEL END,
       CASE WHEN n % 2 = 0 THEN 'infinity' ELSE now() END
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO usage_logs (id, fact_key, customer_id, kind)
SELECT md5('use' || n)::uuid, 'fact-' || n, :CUSTOMER, 'message_sent'
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO visitors (id, customer_id, channel_id, identity_kind, identity, conversation_id)
SELECT md5('visitor' || n)::uuid, :CUSTOMER, :CHANNEL, 'visitor', 'visitor-' || n, md5('conversation' || n)::uuid
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO media (id, customer_id, channel_id, message_id, kind, provider_id)
SELECT md5('media' || n)::uuid, :CUSTOMER, :CHANNEL, md5('in' || n)::uuid, 'image', 'media-' || n
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO parked_statuses (channel_id, external_id, status, customer_id, report)
SELECT :CHANNEL, 'parked-' || n, 'READ', :CUSTOMER, '{}'
FROM generate_series(:FIRST, :LAST) AS n;
INSERT INTO parked_amendments (channel_id, external_id, conversation_id, customer_id, kind, content)
SELECT :CHANNEL, 'parked-' || n, md5('conversation' || n)::uuid, :CUSTOMER, 'edit', 'hello'
FROM generate_series(:FIRST, :LAST) AS n;
