-- The tables of Replyline that the baseline writes, with their indexes, as they were when the baseline was written: what Replyline
-- does with its own schema since does not reach the baseline.
CREATE TABLE api_keys (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    name text NOT NULL,
    key_prefix text NOT NULL,
    key_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone
);
CREATE TABLE channels (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    chatbot_id uuid NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    channel_key text NOT NULL,
    external_id text NOT NULL,
    config jsonb DEFAULT '{}'::jsonb NOT NULL,
    secrets_sealed text,
    enabled boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    health text DEFAULT 'HEALTHY'::text NOT NULL,
    health_reason text,
    health_detail text,
    unhealthy_since timestamp with time zone,
    probes integer DEFAULT 0 NOT NULL,
    probe_at timestamp with time zone,
    trial_job_id uuid,
    healthy_since timestamp with time zone DEFAULT now() NOT NULL,
    confirmed_at timestamp with time zone,
    session jsonb,
    quality jsonb,
    CONSTRAINT channels_health_check CHECK ((health = ANY (ARRAY['HEALTHY'::text, 'UNHEALTHY'::text]))),
    CONSTRAINT channels_kind_check CHECK ((kind = ANY (ARRAY['WIDGET'::text, 'WHATSAPP_CLOUD'::text, 'WHATSAPP_QR'::text]))),
    CONSTRAINT channels_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200)))
);
CREATE TABLE chatbots (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    name text NOT NULL,
    instructions text DEFAULT ''::text NOT NULL,
    provider text DEFAULT 'knowledge_only'::text NOT NULL,
    model text,
    provider_base_url text,
    provider_key_sealed text,
    max_output_tokens integer DEFAULT 800 NOT NULL,
    fallback_text text DEFAULT 'Sorry, I cannot answer right now. We have been told and will get back to you.'::text NOT NULL,
    context_messages integer DEFAULT 20 NOT NULL,
    context_chars integer DEFAULT 16000 NOT NULL,
    knowledge_passages integer DEFAULT 4 NOT NULL,
    quiet_window_widget_s double precision DEFAULT 1.5 NOT NULL,
    quiet_window_whatsapp_s double precision DEFAULT 3 NOT NULL,
    quiet_window_max_s double precision DEFAULT 10 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    vision boolean DEFAULT false NOT NULL,
    unsupported_text text DEFAULT 'Sorry, I cannot read this kind of message. Please write it as text.'::text NOT NULL,
    human_takeover boolean DEFAULT true NOT NULL,
    human_hold_s double precision DEFAULT 43200 NOT NULL,
    CONSTRAINT chatbots_context_chars_check CHECK (((context_chars >= 0) AND (context_chars <= 1000000))),
    CONSTRAINT chatbots_context_messages_check CHECK (((context_messages >= 0) AND (context_messages <= 200))),
    CONSTRAINT chatbots_fallback_text_check CHECK (((length(fallback_text) >= 1) AND (length(fallback_text) <= 4000))),
    CONSTRAINT chatbots_human_hold_s_check CHECK (((human_hold_s >= (0)::double precision) AND (human_hold_s <= (2592000)::double precision))),
    CONSTRAINT chatbots_knowledge_passages_check CHECK (((knowledge_passages >= 0) AND (knowledge_passages <= 20))),
    CONSTRAINT chatbots_max_output_tokens_check CHECK (((max_output_tokens >= 1) AND (max_output_tokens <= 100000))),
    CONSTRAINT chatbots_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT chatbots_quiet_window_max_s_check CHECK (((quiet_window_max_s >= (0)::double precision) AND (quiet_window_max_s <= (300)::double precision))),
    CONSTRAINT chatbots_quiet_window_whatsapp_s_check CHECK (((quiet_window_whatsapp_s >= (0)::double precision) AND (quiet_window_whatsapp_s <= (60)::double precision))),
    CONSTRAINT chatbots_quiet_window_widget_s_check CHECK (((quiet_window_widget_s >= (0)::double precision) AND (quiet_window_widget_s <= (60)::double precision))),
    CONSTRAINT chatbots_unsupported_text_check CHECK (((length(unsupported_text) >= 1) AND (length(unsupported_text) <= 1000)))
);
CREATE TABLE contact_identities (
    channel_id uuid NOT NULL,
    kind text NOT NULL,
    value text NOT NULL,
    customer_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT contact_identities_kind_check CHECK ((kind = ANY (ARRAY['phone'::text, 'wa_id'::text, 'bsuid'::text, 'lid'::text, 'visitor'::text, 'external'::text])))
);
CREATE TABLE contacts (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    channel_id uuid NOT NULL,
    name text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    marketing_opted_out boolean DEFAULT false NOT NULL,
    marketing_changed_at timestamp with time zone
);
CREATE TABLE conversations (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    chatbot_id uuid NOT NULL,
    channel_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    owner text DEFAULT 'BOT'::text NOT NULL,
    owner_epoch integer DEFAULT 0 NOT NULL,
    reply_to text NOT NULL,
    last_seq bigint DEFAULT 0 NOT NULL,
    last_inbound_seq bigint DEFAULT 0 NOT NULL,
    answered_seq bigint DEFAULT 0 NOT NULL,
    lane_length integer DEFAULT 0 NOT NULL,
    last_inbound_at timestamp with time zone,
    fallback_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    amendments integer DEFAULT 0 NOT NULL,
    window_from timestamp with time zone,
    unsupported_at timestamp with time zone,
    human_until timestamp with time zone,
    log_seq bigint DEFAULT 0 NOT NULL,
    CONSTRAINT conversations_lane_length_check CHECK ((lane_length >= 0)),
    CONSTRAINT conversations_owner_check CHECK ((owner = ANY (ARRAY['BOT'::text, 'HUMAN'::text, 'NONE'::text])))
)
WITH (fillfactor='70');
CREATE TABLE customers (
    id uuid NOT NULL,
    name text NOT NULL,
    monthly_price numeric(12,2) DEFAULT 0 NOT NULL,
    plan text GENERATED ALWAYS AS (
CASE
    WHEN (monthly_price >= (100)::numeric) THEN 'PREMIUM'::text
    WHEN (monthly_price >= (50)::numeric) THEN 'PRO'::text
    ELSE 'BASIC'::text
END) STORED NOT NULL,
    priority smallint GENERATED ALWAYS AS (
CASE
    WHEN (monthly_price >= (100)::numeric) THEN 1
    WHEN (monthly_price >= (50)::numeric) THEN 3
    ELSE 5
END) STORED NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT customers_monthly_price_check CHECK ((monthly_price >= (0)::numeric)),
    CONSTRAINT customers_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200)))
);
CREATE TABLE messages (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    channel_id uuid NOT NULL,
    seq bigint NOT NULL,
    direction text NOT NULL,
    role text NOT NULL,
    status text NOT NULL,
    content text NOT NULL,
    content_type text DEFAULT 'text'::text NOT NULL,
    synthetic boolean DEFAULT false NOT NULL,
    external_id text,
    trace_id uuid NOT NULL,
    turn_after_seq bigint,
    turn_through_seq bigint,
    error_reason text,
    error_detail text,
    provider_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    sent_at timestamp with time zone,
    delivered_at timestamp with time zone,
    read_at timestamp with time zone,
    failed_at timestamp with time zone,
    unknown_since timestamp with time zone,
    body jsonb,
    quotes uuid,
    sent_as text,
    accepted_at timestamp with time zone,
    edited_at timestamp with time zone,
    deleted_at timestamp with time zone,
    error_code integer,
    error_title text,
    log_seq bigint,
    CONSTRAINT messages_check CHECK (((direction = 'INBOUND'::text) = (status = 'RECEIVED'::text))),
    CONSTRAINT messages_direction_check CHECK ((direction = ANY (ARRAY['INBOUND'::text, 'OUTBOUND'::text]))),
    CONSTRAINT messages_role_check CHECK ((role = ANY (ARRAY['user'::text, 'assistant'::text, 'agent'::text, 'system'::text]))),
    CONSTRAINT messages_status_check CHECK ((status = ANY (ARRAY['RECEIVED'::text, 'QUEUED'::text, 'SENDING'::text, 'SENT'::text, 'DELIVERED'::text, 'READ'::text, 'FAILED'::text, 'UNKNOWN'::text, 'BLOCKED_WINDOW'::text, 'SUPERSEDED'::text, 'CANCELLED'::text])))
)
WITH (fillfactor='80');
CREATE TABLE usage_logs (
    id uuid NOT NULL,
    fact_key text NOT NULL,
    customer_id uuid NOT NULL,
    kind text NOT NULL,
    channel_kind text,
    chatbot_id uuid,
    conversation_id uuid,
    message_id uuid,
    provider text,
    model text,
    input_tokens integer,
    output_tokens integer,
    cached_tokens integer,
    cost numeric(18,8),
    latency_ms integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    category text,
    pricing_type text,
    CONSTRAINT usage_logs_cached_tokens_check CHECK ((cached_tokens >= 0)),
    CONSTRAINT usage_logs_input_tokens_check CHECK ((input_tokens >= 0)),
    CONSTRAINT usage_logs_kind_check CHECK ((kind = ANY (ARRAY['message_received'::text, 'ai_answer'::text, 'message_sent'::text, 'whatsapp_pricing'::text]))),
    CONSTRAINT usage_logs_output_tokens_check CHECK ((output_tokens >= 0))
);
CREATE TABLE webhook_attempts (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    event_id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    status_code integer,
    error text,
    response_head text,
    CONSTRAINT webhook_attempts_duration_ms_check CHECK ((duration_ms >= 0))
);
CREATE TABLE webhook_endpoints (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    secret_sealed text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    disabled_reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT webhook_endpoints_events_check CHECK ((cardinality(events) > 0)),
    CONSTRAINT webhook_endpoints_url_check CHECK (((length(url) >= 1) AND (length(url) <= 2000)))
);
CREATE TABLE webhook_events (
    id uuid NOT NULL,
    customer_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    status text DEFAULT 'PENDING'::text NOT NULL,
    message_id uuid,
    trace_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT webhook_events_status_check CHECK ((status = ANY (ARRAY['PENDING'::text, 'DELIVERED'::text, 'FAILED'::text])))
);
ALTER TABLE api_keys
    ADD CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash);
ALTER TABLE api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);
ALTER TABLE channels
    ADD CONSTRAINT channels_channel_key_key UNIQUE (channel_key);
ALTER TABLE channels
    ADD CONSTRAINT channels_kind_external_id_key UNIQUE (kind, external_id);
ALTER TABLE channels
    ADD CONSTRAINT channels_pkey PRIMARY KEY (id);
ALTER TABLE chatbots
    ADD CONSTRAINT chatbots_id_customer_id_key UNIQUE (id, customer_id);
ALTER TABLE chatbots
    ADD CONSTRAINT chatbots_pkey PRIMARY KEY (id);
ALTER TABLE contact_identities
    ADD CONSTRAINT contact_identities_pkey PRIMARY KEY (channel_id, kind, value);
ALTER TABLE contacts
    ADD CONSTRAINT contacts_pkey PRIMARY KEY (id);
ALTER TABLE conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (id);
ALTER TABLE conversations
    ADD CONSTRAINT conversations_contact UNIQUE (channel_id, contact_id, chatbot_id);
ALTER TABLE customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id);
ALTER TABLE messages
    ADD CONSTRAINT messages_conversation_id_seq_key UNIQUE (conversation_id, seq);
ALTER TABLE messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);
ALTER TABLE usage_logs
    ADD CONSTRAINT usage_logs_fact_key_key UNIQUE (fact_key);
ALTER TABLE usage_logs
    ADD CONSTRAINT usage_logs_pkey PRIMARY KEY (id);
ALTER TABLE webhook_attempts
    ADD CONSTRAINT webhook_attempts_pkey PRIMARY KEY (id);
ALTER TABLE webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id);
ALTER TABLE webhook_events
    ADD CONSTRAINT webhook_events_pkey PRIMARY KEY (id);
CREATE INDEX api_keys_customer ON api_keys USING btree (customer_id);
CREATE INDEX channels_chatbot ON channels USING btree (chatbot_id, kind);
CREATE INDEX channels_customer ON channels USING btree (customer_id);
CREATE INDEX channels_unhealthy ON channels USING btree (probe_at) WHERE (health = 'UNHEALTHY'::text);
CREATE INDEX channels_waba ON channels USING btree (((config ->> 'waba_id'::text))) WHERE (kind = 'WHATSAPP_CLOUD'::text);
CREATE INDEX chatbots_customer ON chatbots USING btree (customer_id);
CREATE INDEX contact_identities_contact ON contact_identities USING btree (contact_id);
CREATE INDEX contacts_channel ON contacts USING btree (channel_id);
CREATE INDEX contacts_customer ON contacts USING btree (customer_id);
CREATE INDEX conversations_customer ON conversations USING btree (customer_id, id);
CREATE INDEX messages_customer ON messages USING btree (customer_id, id);
CREATE UNIQUE INDEX messages_external ON messages USING btree (channel_id, external_id) WHERE (external_id IS NOT NULL);
CREATE INDEX messages_lane ON messages USING btree (conversation_id, seq) WHERE ((direction = 'OUTBOUND'::text) AND (status = 'QUEUED'::text));
CREATE UNIQUE INDEX messages_log ON messages USING btree (conversation_id, log_seq) WHERE (log_seq IS NOT NULL);
CREATE INDEX messages_unacknowledged ON messages USING btree (accepted_at) WHERE ((status = 'SENDING'::text) AND (accepted_at IS NOT NULL));
CREATE INDEX usage_logs_customer ON usage_logs USING btree (customer_id, created_at);
CREATE INDEX webhook_attempts_event ON webhook_attempts USING btree (event_id);
CREATE INDEX webhook_endpoints_customer ON webhook_endpoints USING btree (customer_id);
CREATE INDEX webhook_events_customer ON webhook_events USING btree (customer_id, id);
CREATE INDEX webhook_events_endpoint ON webhook_events USING btree (endpoint_id);
ALTER TABLE api_keys
    ADD CONSTRAINT api_keys_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE channels
    ADD CONSTRAINT channels_chatbot_id_customer_id_fkey FOREIGN KEY (chatbot_id, customer_id) REFERENCES chatbots(id, customer_id) ON DELETE CASCADE;
ALTER TABLE channels
    ADD CONSTRAINT channels_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE chatbots
    ADD CONSTRAINT chatbots_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE contact_identities
    ADD CONSTRAINT contact_identities_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
ALTER TABLE contact_identities
    ADD CONSTRAINT contact_identities_contact_id_fkey FOREIGN KEY (contact_id) REFERENCES contacts(id) ON DELETE CASCADE;
ALTER TABLE contact_identities
    ADD CONSTRAINT contact_identities_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE contacts
    ADD CONSTRAINT contacts_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
ALTER TABLE contacts
    ADD CONSTRAINT contacts_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE conversations
    ADD CONSTRAINT conversations_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
ALTER TABLE conversations
    ADD CONSTRAINT conversations_chatbot_id_fkey FOREIGN KEY (chatbot_id) REFERENCES chatbots(id) ON DELETE CASCADE;
ALTER TABLE conversations
    ADD CONSTRAINT conversations_contact_id_fkey FOREIGN KEY (contact_id) REFERENCES contacts(id) ON DELETE CASCADE;
ALTER TABLE conversations
    ADD CONSTRAINT conversations_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE messages
    ADD CONSTRAINT messages_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
ALTER TABLE messages
    ADD CONSTRAINT messages_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES conversations(id) ON DELETE CASCADE;
ALTER TABLE messages
    ADD CONSTRAINT messages_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE usage_logs
    ADD CONSTRAINT usage_logs_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE webhook_attempts
    ADD CONSTRAINT webhook_attempts_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE webhook_attempts
    ADD CONSTRAINT webhook_attempts_event_id_fkey FOREIGN KEY (event_id) REFERENCES webhook_events(id) ON DELETE CASCADE;
ALTER TABLE webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE webhook_events
    ADD CONSTRAINT webhook_events_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE;
ALTER TABLE webhook_events
    ADD CONSTRAINT webhook_events_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints(id) ON DELETE CASCADE;
