"""The deployment that this database is the record of.

Revision ID: 0005
Revises: 0004
"""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table with its one row."""
    for statement in (Path(__file__).parent / "0005_deployment.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: going back would take the fence down."""
    raise NotImplementedError("0005 cannot be undone; restore a backup from before it")
