"""BullMQ of others: references that producers use, jobs that external workers do.

Revision ID: 0004
Revises: 0003
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and the indexes that keep references unique."""
    for statement in (Path(__file__).parent / "0004_bullmq.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: going back would mix conversations that have a reference with those that have none."""
    raise NotImplementedError("0004 cannot be undone; restore a backup from before it")
