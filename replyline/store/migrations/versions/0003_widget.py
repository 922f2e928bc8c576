"""The widget: the log that open pages read, visitors and their tokens, files that come before their message.

Revision ID: 0003
Revises: 0002
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables; the widgets' messages get their places, which takes a while where there are millions."""
    for statement in (Path(__file__).parent / "0003_widget.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: going back would lock every visitor out of their conversation."""
    raise NotImplementedError("0003 cannot be undone; restore a backup from before it")
