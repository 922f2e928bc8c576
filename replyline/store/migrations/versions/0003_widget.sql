-- A message's place in the log that a visitor's page reads: given when it becomes visible there, under the conversation's lock, so
-- places become visible in their order.
ALTER TABLE conversations ADD COLUMN log_seq bigint NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN log_seq bigint;
UPDATE messages m SET log_seq = r.place
FROM (
    SELECT w.id, row_number() OVER (PARTITION BY w.conversation_id ORDER BY w.seq) AS place
    FROM messages w JOIN channels c ON c.id = w.channel_id
    WHERE c.kind = 'WIDGET' AND w.status IN ('RECEIVED', 'SENT', 'DELIVERED', 'READ')
) r
WHERE m.id = r.id;
UPDATE conversations v SET log_seq = r.last
FROM (SELECT conversation_id, max(log_seq) AS last FROM messages WHERE log_seq IS NOT NULL GROUP BY conversation_id) r
WHERE v.id = r.conversation_id;
CREATE UNIQUE INDEX messages_log ON messages (conversation_id, log_seq) WHERE log_seq IS NOT NULL;

-- A person at a site's widget: a browser (`visitor`), or somebody whom the site vouches for (`external`, by its own id of them).
-- `conversation_id` is known before the conversation exists, so that a page can listen before its first message.
CREATE TABLE visitors (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    identity_kind text NOT NULL CHECK (identity_kind IN ('visitor', 'external')),
    identity text NOT NULL,
    conversation_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (channel_id, identity_kind, identity)
);
CREATE INDEX visitors_customer ON visitors (customer_id);

-- A token is shown once and kept as its SHA-256: it has 256 random bits, so no slow hash is needed.
CREATE TABLE visitor_tokens (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    visitor_id uuid NOT NULL REFERENCES visitors ON DELETE CASCADE,
    token_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX visitor_tokens_visitor ON visitor_tokens (visitor_id, id);
CREATE INDEX visitor_tokens_age ON visitor_tokens (expires_at);

-- A visitor's file comes before the message that it belongs to.
ALTER TABLE media
    ALTER COLUMN message_id DROP NOT NULL,
    ADD COLUMN uploaded_by text;
CREATE INDEX media_unattached ON media (created_at) WHERE message_id IS NULL;

-- The files of a message as a page is told of them; null if there are none.
CREATE FUNCTION files_of(message uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('id', id, 'name', filename, 'mime_type', mime_type, 'size', size) ORDER BY id)
    FROM media WHERE message_id = message
$$;
