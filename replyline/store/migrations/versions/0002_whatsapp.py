"""WhatsApp to contract: health of channels, media, parked statuses, edits and takeovers.

Revision ID: 0002
Revises: 0001
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables; nothing is rewritten, so a large table is locked for a moment only."""
    for statement in (Path(__file__).parent / "0002_whatsapp.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: going back would drop media and identities."""
    raise NotImplementedError("0002 cannot be undone; restore a backup from before it")
