-- What a job waited for, beside its turn in the queue: [{"reason": …, "since": …, "seconds": …, "times": …}], oldest first. What
-- it waits for now is in wait_reason, and since when in wait_since.
ALTER TABLE jobs ADD COLUMN waits jsonb NOT NULL DEFAULT '[]', ADD COLUMN wait_since timestamptz;

-- The list with the wait that ends now: every statement that changes wait_reason or run_at of a waiting job sets waits to this. A
-- wait ends when the job is due; what comes after that is its turn in the queue. The same reason again adds to its entry, and the
-- newest ten stay.
CREATE FUNCTION waits_of(waits jsonb, reason text, since timestamptz, due timestamptz) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN reason IS NULL OR since IS NULL THEN waits
        WHEN waits -> -1 ->> 'reason' = reason THEN jsonb_set(jsonb_set(waits,
            '{-1,seconds}', to_jsonb((waits -> -1 ->> 'seconds')::float8
                                     + round(greatest(0, extract(epoch FROM least(now(), due) - since)), 3)::float8)),
            '{-1,times}', to_jsonb((waits -> -1 ->> 'times')::int + 1))
        ELSE keep_last(waits || jsonb_build_object(
            'reason', reason, 'since', since, 'times', 1,
            'seconds', round(greatest(0, extract(epoch FROM least(now(), due) - since)), 3)::float8), 10)
    END
$$;
