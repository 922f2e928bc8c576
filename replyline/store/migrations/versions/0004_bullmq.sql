-- References of others: what a producer of its own calls a chatbot or a conversation. A chatbot's is unique in the deployment, because a
-- producer names no customer. The checks do not read the rows that are there, which have none.
ALTER TABLE chatbots ADD COLUMN external_reference text;
ALTER TABLE chatbots ADD CONSTRAINT chatbots_external_reference_check
    CHECK (length(external_reference) BETWEEN 1 AND 255 AND external_reference !~ '[[:cntrl:]]') NOT VALID;
CREATE UNIQUE INDEX chatbots_external_reference ON chatbots (external_reference) WHERE external_reference IS NOT NULL;

-- A contact has one conversation without a reference, and one for each reference. The indexes take a second or two for each million
-- conversations.
ALTER TABLE conversations ADD COLUMN external_reference text;
ALTER TABLE conversations ADD CONSTRAINT conversations_external_reference_check
    CHECK (length(external_reference) BETWEEN 1 AND 255 AND external_reference !~ '[[:cntrl:]]') NOT VALID;
ALTER TABLE conversations DROP CONSTRAINT conversations_channel_id_contact_id_chatbot_id_key;
CREATE UNIQUE INDEX conversations_contact
    ON conversations (channel_id, contact_id, chatbot_id, (coalesce(external_reference, '')));
CREATE UNIQUE INDEX conversations_external_reference ON conversations (channel_id, chatbot_id, external_reference)
    WHERE external_reference IS NOT NULL;

-- When BullMQ acknowledged a job of an external queue: from then on somebody else may have done it, so it is not published again by itself.
ALTER TABLE jobs ADD COLUMN handed_over_at timestamptz;
