"""What a job waited for is kept when it ends.

Revision ID: 0009
Revises: 0008
"""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns with constant defaults, which takes no rewrite of the table, and a function."""
    for statement in (Path(__file__).parent / "0009_waits.sql").read_text(encoding="utf-8").split(";\n\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Forget what jobs waited for."""
    op.execute("DROP FUNCTION waits_of(jsonb, text, timestamptz, timestamptz)")
    op.execute("ALTER TABLE jobs DROP COLUMN waits, DROP COLUMN wait_since")
