"""Deletions that outlast their rows, session events that were taken, when an API key was used last, who did what.

Revision ID: 0008
Revises: 0007
"""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables, triggers and one column without a default: quick, whatever the tables hold."""
    for statement in (Path(__file__).parent / "0008_security.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: files and sessions whose deletion waits would stay for ever."""
    raise NotImplementedError("0008 cannot be undone; restore a backup from before it")
