-- Edits and deletions of messages that are not known yet: `kind` is the job's, `body` its content beside the words.
CREATE TABLE parked_amendments (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    external_id text NOT NULL,
    conversation_id uuid NOT NULL,
    customer_id uuid NOT NULL REFERENCES customers ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('edit', 'revoke', 'echo_edit', 'echo_revoke')),
    content text NOT NULL,
    body jsonb,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, external_id, conversation_id)
);
CREATE INDEX parked_amendments_age ON parked_amendments (parked_at);

-- What Meta said of a channel's account, so that a repeated callback is announced once; `digest` is a hash of what it said.
CREATE TABLE channel_notices (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    digest bytea NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, digest)
);
CREATE INDEX channel_notices_age ON channel_notices (noticed_at);

-- What Meta last said of the number's quality and limit.
ALTER TABLE channels ADD COLUMN quality jsonb;
CREATE INDEX channels_waba ON channels ((config ->> 'waba_id')) WHERE kind = 'WHATSAPP_CLOUD';

ALTER TABLE contacts
    ADD COLUMN marketing_opted_out boolean NOT NULL DEFAULT false,
    ADD COLUMN marketing_changed_at timestamptz;
