"""The inbound lane: what waits of one sender, and what of it waits behind another, each by an index that only these rows are in.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# By finished_at, which is NULL exactly while a job waits: an index on `state = 'WAITING'` would compete with others that have it
# too, and the planner then takes any of them when its statistics say that little waits.
_INDEXES = {
    "jobs_in_lane": "(lane_key, id) WHERE lane_key IS NOT NULL AND finished_at IS NULL",
    "jobs_behind": "(lane_key, id) WHERE lane_key IS NOT NULL AND finished_at IS NULL AND run_at = 'infinity'",
}


def upgrade() -> None:
    """Make the indexes while the door and the workers go on; what an interrupted run left behind is made anew."""
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON jobs {definition}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_lane")


def downgrade() -> None:
    """Refuse: jobs that wait behind another one would wait for ever."""
    raise NotImplementedError("0010 cannot be undone; restore a backup from before it")
