"""What waits is alone in `jobs`: finished jobs are kept by the day, dead letters in a table of their own.

Revision ID: 0013
Revises: 0012
"""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Each index has its own key in its condition, so that no statement that looks for jobs by anything else can use it; and
# finished_at, which is NULL exactly while a job waits, because jobs that ended before this version stay for a while.
_INDEXES = {
    "jobs_due": "(run_at, id) WHERE run_at < 'infinity' AND finished_at IS NULL",
    "jobs_of_message": "(message_id) WHERE message_id IS NOT NULL AND finished_at IS NULL",
    "jobs_held_by": "(held_by, id) WHERE held_by IS NOT NULL AND finished_at IS NULL",
    "jobs_ended": "(id) WHERE state <> 'WAITING'",
}
_DEAD = """
WITH gone AS (
    DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'DEAD' LIMIT 5000 FOR UPDATE SKIP LOCKED) RETURNING *
)
INSERT INTO dead_jobs
SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, priority, run_at,
       generation, attempts, created_at, waits, errors, started_at, coalesce(finished_at, now()), worker, lane_key, reason
FROM gone RETURNING id
"""
# Conditions on the state fit every statement that names it, so the planner may read all waiting jobs by one of these.
_OLD_INDEXES = ("jobs_waiting", "jobs_message", "jobs_held", "jobs_dead", "jobs_finished")


def upgrade() -> None:
    """Make the tables and indexes and move the dead letters, while the door and the workers go on.

    Upkeep moves what is finished, batch by batch, and then drops the old indexes, which workers of the version before need for as
    long as the table is large.
    """
    context = op.get_context()
    if (
        not op.get_bind().exec_driver_sql("SELECT to_regclass('finished_jobs')").scalar()
    ):  # else an interrupted run did it
        for statement in (Path(__file__).parent / "0013_finished_jobs.sql").read_text(encoding="utf-8").split(";\n\n"):
            op.execute(statement)
    with context.autocommit_block():
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON jobs {definition}")
        connection = op.get_bind()
        while connection.exec_driver_sql(_DEAD).rowcount:
            pass
        if not connection.exec_driver_sql("SELECT 1 FROM jobs WHERE state <> 'WAITING' LIMIT 1").fetchall():
            for name in _OLD_INDEXES:
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def downgrade() -> None:
    """Refuse: the version before would not find what is finished, and would take repeated messages for new ones."""
    raise NotImplementedError("0013 cannot be undone; restore a backup from before it")
