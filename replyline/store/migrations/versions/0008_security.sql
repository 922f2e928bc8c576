-- What must still happen when the rows it is about are gone: files to be deleted, and sessions at gateways to be forgotten. Both
-- are noted by triggers, so in the transaction that deletes the rows, whichever statement or cascade does. Neither has a foreign
-- key: the customer may be gone too.
CREATE TABLE files_to_delete (
    path text PRIMARY KEY,
    tries integer NOT NULL DEFAULT 0,
    try_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX files_to_delete_due ON files_to_delete (try_at);
-- A file that is being fetched has no path yet, and gets this one.
CREATE FUNCTION note_files_to_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO files_to_delete (path) SELECT coalesce(path, concat(customer_id, '/', channel_id, '/', id)) FROM gone
    ON CONFLICT DO NOTHING; RETURN NULL; END $$;
CREATE TRIGGER media_note_files AFTER DELETE ON media REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_files_to_delete();

CREATE TABLE sessions_to_delete (
    id uuid PRIMARY KEY,
    session text NOT NULL,
    gateway_url text NOT NULL,
    secrets_sealed text,
    tries integer NOT NULL DEFAULT 0,
    last_error text,
    try_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sessions_to_delete_due ON sessions_to_delete (try_at);
CREATE INDEX sessions_to_delete_session ON sessions_to_delete (session);
CREATE FUNCTION note_session_to_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO sessions_to_delete (id, session, gateway_url, secrets_sealed)
    VALUES (OLD.id, OLD.external_id, OLD.config ->> 'gateway_url', OLD.secrets_sealed); RETURN NULL; END $$;
CREATE TRIGGER channels_note_session AFTER DELETE ON channels
    FOR EACH ROW WHEN (OLD.kind = 'WHATSAPP_QR' AND OLD.config ? 'gateway_url') EXECUTE FUNCTION note_session_to_delete();

-- Events of a session that were taken: a signed one may not be said again.
CREATE TABLE session_events (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    event_id text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, event_id)
);
CREATE INDEX session_events_age ON session_events (taken_at);

ALTER TABLE api_keys ADD COLUMN last_used_at timestamptz;

-- Who did what to whom: kept when the customer is gone, so without a foreign key.
CREATE TABLE audit_events (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject_id uuid NOT NULL,
    subject_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_events_customer ON audit_events (customer_id, id);
CREATE INDEX audit_events_age ON audit_events (created_at);
