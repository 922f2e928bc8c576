-- What is finished, by the day (UTC) on which it was, so that it is dropped by the day. Columns that only say how a job waits are
-- left out. No foreign key: each finish would lock the customer's row; `customers_to_erase` has the customers that are gone.
CREATE TABLE finished_jobs (
    id uuid NOT NULL,
    queue text NOT NULL,
    name text NOT NULL,
    payload jsonb NOT NULL,
    customer_id uuid,
    conversation_id uuid,
    message_id uuid,
    trace_id uuid NOT NULL,
    parent_id uuid,
    dedupe_key text,
    priority smallint NOT NULL,
    run_at timestamptz NOT NULL,
    generation integer NOT NULL,
    attempts integer NOT NULL,
    created_at timestamptz NOT NULL,
    waits jsonb NOT NULL,
    errors jsonb NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    worker text
) PARTITION BY RANGE (finished_at);

-- Every finish writes into each of these. BRIN costs it nearly nothing: rows come in the order of finished_at.
CREATE INDEX finished_jobs_id ON finished_jobs (id);

CREATE INDEX finished_jobs_trace ON finished_jobs (trace_id);

CREATE INDEX finished_jobs_dedupe ON finished_jobs (dedupe_key) WHERE dedupe_key IS NOT NULL;

CREATE INDEX finished_jobs_time ON finished_jobs USING brin (finished_at) WITH (pages_per_range = 32, autosummarize = on);

-- So that no job fails to finish because nobody made the partition of the day.
CREATE TABLE finished_jobs_default PARTITION OF finished_jobs DEFAULT;

CREATE TABLE dead_jobs (
    id uuid PRIMARY KEY,
    queue text NOT NULL,
    name text NOT NULL,
    payload jsonb NOT NULL,
    customer_id uuid,
    conversation_id uuid,
    message_id uuid,
    trace_id uuid NOT NULL,
    parent_id uuid,
    dedupe_key text,
    priority smallint NOT NULL,
    run_at timestamptz NOT NULL,
    generation integer NOT NULL,
    attempts integer NOT NULL,
    created_at timestamptz NOT NULL,
    waits jsonb NOT NULL,
    errors jsonb NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    worker text,
    lane_key text,
    reason text
);

CREATE INDEX dead_jobs_customer ON dead_jobs (customer_id, id);

CREATE INDEX dead_jobs_trace ON dead_jobs (trace_id);

CREATE INDEX dead_jobs_message ON dead_jobs (message_id);

CREATE INDEX dead_jobs_conversation ON dead_jobs (conversation_id);

CREATE INDEX dead_jobs_dedupe ON dead_jobs (dedupe_key) WHERE dedupe_key IS NOT NULL;

CREATE UNIQUE INDEX dead_jobs_foreign ON dead_jobs (dedupe_key) WHERE customer_id IS NULL;

CREATE INDEX dead_jobs_time ON dead_jobs (finished_at);

-- The days of what is finished already, today, and three more; `store/partitions.py` makes those after them.
DO $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date := greatest(today - 400, least(today, (
        SELECT (finished_at AT TIME ZONE 'UTC')::date FROM jobs WHERE state = 'DONE' AND finished_at IS NOT NULL
        ORDER BY finished_at LIMIT 1)));
BEGIN
    WHILE day <= today + 3 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF finished_jobs FOR VALUES FROM (%L) TO (%L)',
            'finished_jobs_' || to_char(day, 'YYYYMMDD'), day || ' 00:00:00+00', day + 1 || ' 00:00:00+00');
        day := day + 1;
    END LOOP;
END $$;

-- Whatever became of a job. `jobs` has other states than WAITING only until what ended before this version was moved.
CREATE VIEW all_jobs AS
SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority, run_at,
       generation, attempts, created_at, waits, errors, started_at, finished_at, worker, lane_key, reason, state, supersedes,
       wait_reason, wait_since, postponed_since, held_by, held_at, send_run, handed_over_at
FROM jobs
UNION ALL
SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority, run_at,
       generation, attempts, created_at, waits, errors, started_at, finished_at, worker, NULL::text, NULL::text, 'DONE'::text,
       0, NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::uuid, NULL::timestamptz, NULL::uuid, NULL::timestamptz
FROM finished_jobs
UNION ALL
SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority, run_at,
       generation, attempts, created_at, waits, errors, started_at, finished_at, worker, lane_key, reason, 'DEAD'::text,
       0, NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::uuid, NULL::timestamptz, NULL::uuid, NULL::timestamptz
FROM dead_jobs;

-- Moves what ended in `jobs` itself: what ended before this version, or is ended by a process of the version before.
CREATE FUNCTION move_ended_jobs(most integer) RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state <> 'WAITING' LIMIT most FOR UPDATE SKIP LOCKED) RETURNING *
    ), finished AS (
        INSERT INTO finished_jobs
        SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority,
               run_at, generation, attempts, created_at, waits, errors, started_at, coalesce(finished_at, now()), worker
        FROM gone WHERE state = 'DONE'
    ), dead AS (
        INSERT INTO dead_jobs
        SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority,
               run_at, generation, attempts, created_at, waits, errors, started_at, coalesce(finished_at, now()), worker,
               lane_key, reason
        FROM gone WHERE state = 'DEAD'
    )
    SELECT count(*) FROM gone
$$;

-- Processes of the version before end a job by its state. Nothing of this version sets the column, so the trigger costs it nothing.
CREATE FUNCTION move_ended_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM jobs WHERE id = NEW.id;
    IF NEW.state = 'DONE' THEN
        INSERT INTO finished_jobs
        VALUES (NEW.id, NEW.queue, NEW.name, NEW.payload, NEW.customer_id, NEW.conversation_id, NEW.message_id, NEW.trace_id,
                NEW.parent_id, NEW.dedupe_key, NEW.priority, NEW.run_at, NEW.generation, NEW.attempts, NEW.created_at, NEW.waits,
                NEW.errors, NEW.started_at, coalesce(NEW.finished_at, now()), NEW.worker);
    ELSE
        INSERT INTO dead_jobs
        VALUES (NEW.id, NEW.queue, NEW.name, NEW.payload, NEW.customer_id, NEW.conversation_id, NEW.message_id, NEW.trace_id,
                NEW.parent_id, NEW.dedupe_key, NEW.priority, NEW.run_at, NEW.generation, NEW.attempts, NEW.created_at, NEW.waits,
                NEW.errors, NEW.started_at, coalesce(NEW.finished_at, now()), NEW.worker, NEW.lane_key, NEW.reason);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON jobs FOR EACH ROW
WHEN (OLD.state = 'WAITING' AND NEW.state <> 'WAITING') EXECUTE FUNCTION move_ended_job();

-- Customers that are gone and may have rows in the partitions, which have no index for that: the sweeper looks through them.
CREATE TABLE customers_to_erase (
    customer_id uuid PRIMARY KEY,
    gone_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION erase_ended_jobs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM dead_jobs WHERE customer_id = OLD.id;
    INSERT INTO customers_to_erase (customer_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

-- Named so that it runs after the rows in `jobs` were deleted, for whose end the deletion waits.
CREATE TRIGGER z_erase_ended_jobs AFTER DELETE ON customers FOR EACH ROW EXECUTE FUNCTION erase_ended_jobs();

-- Rows come and go all the time: dead ones are cleared away after some hundred, not after a fifth of a table that was large once.
ALTER TABLE jobs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
                      autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 5000,
                      autovacuum_vacuum_cost_delay = 0);

ALTER TABLE conversations SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
                               autovacuum_vacuum_cost_delay = 1);

ALTER TABLE messages SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)
