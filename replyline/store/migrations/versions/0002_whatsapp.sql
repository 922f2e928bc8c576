-- What a person may be told or hold off, per chatbot.
ALTER TABLE chatbots
    ADD COLUMN vision boolean NOT NULL DEFAULT false,
    ADD COLUMN unsupported_text text NOT NULL DEFAULT 'Sorry, I cannot read this kind of message. Please write it as text.'
        CHECK (length(unsupported_text) BETWEEN 1 AND 1000),
    ADD COLUMN human_takeover boolean NOT NULL DEFAULT true,
    ADD COLUMN human_hold_s double precision NOT NULL DEFAULT 43200 CHECK (human_hold_s BETWEEN 0 AND 2592000);

-- A channel that fails as a whole holds its messages: `held_by` of their jobs. `session` is what the QR gateway last said of it,
-- `confirmed_at` when WhatsApp last confirmed a message of it.
ALTER TABLE channels
    ADD COLUMN health text NOT NULL DEFAULT 'HEALTHY' CHECK (health IN ('HEALTHY', 'UNHEALTHY')),
    ADD COLUMN health_reason text,
    ADD COLUMN health_detail text,
    ADD COLUMN unhealthy_since timestamptz,
    ADD COLUMN probes integer NOT NULL DEFAULT 0,
    ADD COLUMN probe_at timestamptz,
    ADD COLUMN trial_job_id uuid,
    ADD COLUMN healthy_since timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN confirmed_at timestamptz,
    ADD COLUMN session jsonb;
CREATE INDEX channels_unhealthy ON channels (probe_at) WHERE health = 'UNHEALTHY';

ALTER TABLE conversations
    ADD COLUMN amendments integer NOT NULL DEFAULT 0,
    ADD COLUMN window_from timestamptz,
    ADD COLUMN unsupported_at timestamptz,
    ADD COLUMN human_until timestamptz;
UPDATE conversations SET window_from = last_inbound_at;

ALTER TABLE messages
    ADD COLUMN body jsonb,
    ADD COLUMN quotes uuid,
    ADD COLUMN sent_as text,
    ADD COLUMN accepted_at timestamptz,
    ADD COLUMN edited_at timestamptz,
    ADD COLUMN deleted_at timestamptz,
    ADD COLUMN error_code integer,
    ADD COLUMN error_title text;
CREATE INDEX messages_unacknowledged ON messages (accepted_at) WHERE status = 'SENDING' AND accepted_at IS NOT NULL;

ALTER TABLE jobs
    ADD COLUMN held_by uuid,
    ADD COLUMN held_at timestamptz;
CREATE INDEX jobs_held ON jobs (held_by, id) WHERE state = 'WAITING' AND held_by IS NOT NULL;

-- Statuses of messages that are not known yet: of ours before their send was answered, or of another program on the number.
CREATE TABLE parked_statuses (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    external_id text NOT NULL,
    status text NOT NULL,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    report jsonb NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, external_id, status)
);
CREATE INDEX parked_statuses_age ON parked_statuses (parked_at);

-- What came in and was not understood; kept so that nothing is lost silently.
CREATE TABLE unread_callbacks (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    reason text NOT NULL,
    body text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX unread_callbacks_channel ON unread_callbacks (channel_id, id);
CREATE INDEX unread_callbacks_age ON unread_callbacks (received_at);

CREATE TABLE media (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    message_id uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
    kind text NOT NULL,
    provider_id text NOT NULL,
    mime_type text,
    sha256 text,
    filename text,
    size bigint,
    state text NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'STORED', 'FAILED')),
    path text,
    error_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    stored_at timestamptz
);
CREATE INDEX media_message ON media (message_id);
CREATE INDEX media_age ON media (created_at);

ALTER TABLE usage_logs
    DROP CONSTRAINT usage_logs_kind_check,
    ADD CONSTRAINT usage_logs_kind_check CHECK (kind IN ('message_received', 'ai_answer', 'message_sent', 'whatsapp_pricing')),
    ADD COLUMN category text,
    ADD COLUMN pricing_type text;
