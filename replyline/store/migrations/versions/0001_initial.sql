-- Plans and priorities are derived from the price here and nowhere else.
CREATE TABLE customers (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    monthly_price numeric(12, 2) NOT NULL DEFAULT 0 CHECK (monthly_price >= 0),
    plan text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN monthly_price >= 100 THEN 'PREMIUM' WHEN monthly_price >= 50 THEN 'PRO' ELSE 'BASIC' END
    ) STORED,
    priority smallint NOT NULL GENERATED ALWAYS AS (
        CASE WHEN monthly_price >= 100 THEN 1 WHEN monthly_price >= 50 THEN 3 ELSE 5 END
    ) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- A key is shown once and kept as its SHA-256: it has 256 random bits, so no slow hash is needed.
CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    name text NOT NULL,
    key_prefix text NOT NULL,
    key_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX api_keys_customer ON api_keys (customer_id);

CREATE TABLE chatbots (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    instructions text NOT NULL DEFAULT '',
    provider text NOT NULL DEFAULT 'knowledge_only',
    model text,
    provider_base_url text,
    provider_key_sealed text,
    max_output_tokens integer NOT NULL DEFAULT 800 CHECK (max_output_tokens BETWEEN 1 AND 100000),
    fallback_text text NOT NULL DEFAULT 'Sorry, I cannot answer right now. We have been told and will get back to you.'
        CHECK (length(fallback_text) BETWEEN 1 AND 4000),
    context_messages integer NOT NULL DEFAULT 20 CHECK (context_messages BETWEEN 0 AND 200),
    context_chars integer NOT NULL DEFAULT 16000 CHECK (context_chars BETWEEN 0 AND 1000000),
    knowledge_passages integer NOT NULL DEFAULT 4 CHECK (knowledge_passages BETWEEN 0 AND 20),
    quiet_window_widget_s double precision NOT NULL DEFAULT 1.5 CHECK (quiet_window_widget_s BETWEEN 0 AND 60),
    quiet_window_whatsapp_s double precision NOT NULL DEFAULT 3 CHECK (quiet_window_whatsapp_s BETWEEN 0 AND 60),
    quiet_window_max_s double precision NOT NULL DEFAULT 10 CHECK (quiet_window_max_s BETWEEN 0 AND 300),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, customer_id)
);
CREATE INDEX chatbots_customer ON chatbots (customer_id);

CREATE TABLE channels (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    chatbot_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('WIDGET', 'WHATSAPP_CLOUD', 'WHATSAPP_QR')),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    channel_key text NOT NULL UNIQUE,
    external_id text NOT NULL,
    config jsonb NOT NULL DEFAULT '{}',
    secrets_sealed text,
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, external_id),
    FOREIGN KEY (chatbot_id, customer_id) REFERENCES chatbots (id, customer_id) ON DELETE CASCADE
);
CREATE INDEX channels_customer ON channels (customer_id);
CREATE INDEX channels_chatbot ON channels (chatbot_id, kind);

CREATE TABLE contacts (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    name text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contacts_customer ON contacts (customer_id);
CREATE INDEX contacts_channel ON contacts (channel_id);

CREATE TABLE contact_identities (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('phone', 'wa_id', 'bsuid', 'lid', 'visitor', 'external')),
    value text NOT NULL,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    contact_id uuid NOT NULL REFERENCES contacts ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, kind, value)
);
CREATE INDEX contact_identities_contact ON contact_identities (contact_id);

-- What decides a move stands on this row, because the row is what a move locks.
CREATE TABLE conversations (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    chatbot_id uuid NOT NULL REFERENCES chatbots ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    contact_id uuid NOT NULL REFERENCES contacts ON DELETE CASCADE,
    owner text NOT NULL DEFAULT 'BOT' CHECK (owner IN ('BOT', 'HUMAN', 'NONE')),
    owner_epoch integer NOT NULL DEFAULT 0,
    reply_to text NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0,
    last_inbound_seq bigint NOT NULL DEFAULT 0,
    answered_seq bigint NOT NULL DEFAULT 0,
    lane_length integer NOT NULL DEFAULT 0 CHECK (lane_length >= 0),
    last_inbound_at timestamptz,
    fallback_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (channel_id, contact_id, chatbot_id)
) WITH (fillfactor = 70);
CREATE INDEX conversations_customer ON conversations (customer_id, id);

CREATE TABLE messages (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    conversation_id uuid NOT NULL REFERENCES conversations ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    seq bigint NOT NULL,
    direction text NOT NULL CHECK (direction IN ('INBOUND', 'OUTBOUND')),
    role text NOT NULL CHECK (role IN ('user', 'assistant', 'agent', 'system')),
    status text NOT NULL CHECK (status IN (
        'RECEIVED', 'QUEUED', 'SENDING', 'SENT', 'DELIVERED', 'READ', 'FAILED', 'UNKNOWN', 'BLOCKED_WINDOW', 'SUPERSEDED', 'CANCELLED'
    )),
    content text NOT NULL,
    content_type text NOT NULL DEFAULT 'text',
    synthetic boolean NOT NULL DEFAULT false,
    external_id text,
    trace_id uuid NOT NULL,
    turn_after_seq bigint,
    turn_through_seq bigint,
    error_reason text,
    error_detail text,
    provider_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    unknown_since timestamptz,
    UNIQUE (conversation_id, seq),
    CHECK ((direction = 'INBOUND') = (status = 'RECEIVED'))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX messages_external ON messages (channel_id, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX messages_customer ON messages (customer_id, id);
CREATE INDEX messages_lane ON messages (conversation_id, seq) WHERE direction = 'OUTBOUND' AND status = 'QUEUED';

-- One row a billable fact, named by its key: writing it twice is impossible, so billing twice is.
CREATE TABLE usage_logs (
    id uuid PRIMARY KEY,
    fact_key text NOT NULL UNIQUE,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('message_received', 'ai_answer', 'message_sent')),
    channel_kind text,
    chatbot_id uuid,
    conversation_id uuid,
    message_id uuid,
    provider text,
    model text,
    input_tokens integer CHECK (input_tokens >= 0),
    output_tokens integer CHECK (output_tokens >= 0),
    cached_tokens integer CHECK (cached_tokens >= 0),
    cost numeric(18, 8),
    latency_ms integer,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_logs_customer ON usage_logs (customer_id, created_at);

CREATE TABLE knowledge_documents (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    chatbot_id uuid NOT NULL,
    title text NOT NULL CHECK (length(title) BETWEEN 1 AND 300),
    content text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (chatbot_id, title),
    FOREIGN KEY (chatbot_id, customer_id) REFERENCES chatbots (id, customer_id) ON DELETE CASCADE
);
CREATE INDEX knowledge_documents_customer ON knowledge_documents (customer_id);

-- English stems for recall, unstemmed words for every other language: both in one vector.
CREATE TABLE knowledge_chunks (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    chatbot_id uuid NOT NULL REFERENCES chatbots ON DELETE CASCADE,
    document_id uuid NOT NULL REFERENCES knowledge_documents ON DELETE CASCADE,
    position integer NOT NULL,
    content text NOT NULL,
    words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('english', content) || to_tsvector('simple', content)) STORED,
    UNIQUE (document_id, position)
);
CREATE INDEX knowledge_chunks_words ON knowledge_chunks USING gin (words);
CREATE INDEX knowledge_chunks_chatbot ON knowledge_chunks (chatbot_id);

CREATE TABLE webhook_endpoints (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    url text NOT NULL CHECK (length(url) BETWEEN 1 AND 2000),
    events text[] NOT NULL CHECK (cardinality(events) > 0),
    secret_sealed text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_endpoints_customer ON webhook_endpoints (customer_id);

CREATE TABLE webhook_events (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    endpoint_id uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    type text NOT NULL,
    payload jsonb NOT NULL,
    status text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'DELIVERED', 'FAILED')),
    message_id uuid,
    trace_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX webhook_events_customer ON webhook_events (customer_id, id);
CREATE INDEX webhook_events_endpoint ON webhook_events (endpoint_id);

CREATE TABLE webhook_attempts (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    event_id uuid NOT NULL REFERENCES webhook_events ON DELETE CASCADE,
    started_at timestamptz NOT NULL,
    duration_ms integer NOT NULL CHECK (duration_ms >= 0),
    status_code integer,
    error text,
    response_head text
);
CREATE INDEX webhook_attempts_event ON webhook_attempts (event_id);

-- The truth about work. message_id and conversation_id carry no foreign key: a job may exist before its message does.
CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    queue text NOT NULL,
    name text NOT NULL,
    payload jsonb NOT NULL,
    state text NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'DONE', 'DEAD')),
    customer_id uuid REFERENCES customers ON DELETE CASCADE,
    conversation_id uuid,
    message_id uuid,
    trace_id uuid NOT NULL,
    parent_id uuid,
    dedupe_key text,
    lane_key text,
    priority smallint NOT NULL,
    run_at timestamptz NOT NULL DEFAULT now(),
    generation integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    setbacks integer NOT NULL DEFAULT 0,
    supersedes integer NOT NULL DEFAULT 0,
    postponed_since timestamptz,
    wait_reason text,
    reason text,
    errors jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    worker text
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX jobs_dedupe ON jobs (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_one_turn ON jobs (conversation_id) WHERE queue = 'ai-processing' AND state = 'WAITING';
CREATE INDEX jobs_waiting ON jobs (run_at, id) WHERE state = 'WAITING';
CREATE INDEX jobs_lane ON jobs (lane_key, id) WHERE state = 'WAITING' AND lane_key IS NOT NULL;
CREATE INDEX jobs_trace ON jobs (trace_id);
CREATE INDEX jobs_message ON jobs (message_id) WHERE state = 'WAITING';
CREATE INDEX jobs_dead ON jobs (customer_id, id) WHERE state = 'DEAD';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'DONE';

-- The newest entries of a list that must not grow for ever.
CREATE FUNCTION keep_last(list jsonb, entries integer) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_array_length(list) <= entries THEN list
           ELSE (SELECT jsonb_agg(entry ORDER BY position) FROM jsonb_array_elements(list) WITH ORDINALITY AS kept (entry, position)
                 WHERE position > jsonb_array_length(list) - entries) END
$$;
