"""The tables of the pipeline: tenants, conversations, messages, usage, knowledge, webhooks and the jobs that move them.

Revision ID: 0001
Revises: none
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table, key and index."""
    for statement in (Path(__file__).parent / "0001_initial.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: going back would drop every customer's messages."""
    raise NotImplementedError("0001 is the first schema; to start over, drop the database")
