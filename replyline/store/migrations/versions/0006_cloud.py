"""WhatsApp Cloud in full: changes that come before their message, what Meta says of an account, marketing opt-outs.

Revision ID: 0006
Revises: 0005
"""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and columns; quick on tables of any size, because every new column has a constant default or none."""
    for statement in (Path(__file__).parent / "0006_cloud.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: who stopped marketing messages would be forgotten."""
    raise NotImplementedError("0006 cannot be undone; restore a backup from before it")
