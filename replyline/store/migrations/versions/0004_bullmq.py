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


# A chatbot's reference is unique in the deployment, because a producer names no customer. A contact has one conversation without
# a reference, and one for each reference.
_INDEXES = {
    "chatbots_external_reference": "chatbots (external_reference) WHERE external_reference IS NOT NULL",
    "conversations_contact": "conversations (channel_id, contact_id, chatbot_id, (coalesce(external_reference, '')))",
    "conversations_external_reference": (
        "conversations (channel_id, chatbot_id, external_reference) WHERE external_reference IS NOT NULL"
    ),
}


def upgrade() -> None:
    """Add the columns, then make the indexes that keep references unique while writers go on.

    The constraint that they replace is stronger and stays until they are made. An interrupted run is begun again: an index that
    it left behind is not valid, and made anew.
    """
    for statement in (Path(__file__).parent / "0004_bullmq.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {definition}")
    op.execute("ALTER TABLE conversations DROP CONSTRAINT IF EXISTS conversations_channel_id_contact_id_chatbot_id_key")


def downgrade() -> None:
    """Refuse: going back would mix conversations that have a reference with those that have none."""
    raise NotImplementedError("0004 cannot be undone; restore a backup from before it")
