"""The life of a run: a send is claimed before its call.

Revision ID: 0007
Revises: 0006
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; nothing is rewritten, so it is quick on any table."""
    for statement in (Path(__file__).parent / "0007_claims.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: a version that knows no claims could repeat a send whose outcome is not known."""
    raise NotImplementedError("0007 cannot be undone; restore a backup from before it")
