-- References of others: what a producer of its own calls a chatbot or a conversation. The checks do not read the rows that are there,
-- which have none. An interrupted migration begins here again, so each statement may have been executed before.
ALTER TABLE chatbots ADD COLUMN IF NOT EXISTS external_reference text;
ALTER TABLE chatbots DROP CONSTRAINT IF EXISTS chatbots_external_reference_check;
ALTER TABLE chatbots ADD CONSTRAINT chatbots_external_reference_check
    CHECK (length(external_reference) BETWEEN 1 AND 255 AND external_reference !~ '[[:cntrl:]]') NOT VALID;

ALTER TABLE conversations ADD COLUMN IF NOT EXISTS external_reference text;
ALTER TABLE conversations DROP CONSTRAINT IF EXISTS conversations_external_reference_check;
ALTER TABLE conversations ADD CONSTRAINT conversations_external_reference_check
    CHECK (length(external_reference) BETWEEN 1 AND 255 AND external_reference !~ '[[:cntrl:]]') NOT VALID;

-- When BullMQ acknowledged a job of an external queue: from then on somebody else may have done it, so it is not published again by itself.
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS handed_over_at timestamptz;
