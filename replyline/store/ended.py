"""How a job leaves `jobs`, which holds only what waits: the statement that ends it moves it to `finished_jobs` or `dead_jobs`.

Such a statement deletes the row (`WITH gone AS (DELETE FROM jobs … RETURNING …)`) and inserts it where it is kept, so that of two
runs one ends the job: the other finds no row. Readers across all three tables use the view `all_jobs`, which has a `state`.
"""

KEPT = """id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority, run_at,
       generation, attempts, created_at"""
"""The columns that all three tables have, and that stay as they are."""
ENDED = "waits, errors, started_at, finished_at, worker"
"""The columns that say how a job ended; they follow `KEPT` in `finished_jobs` and `dead_jobs`."""
