"""Customers are deleted in batches: what is being deleted, and the indexes that find what is a customer's.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Without foreign keys: it is kept when the customer is gone, to say that and when.
_KEPT = """
CREATE TABLE IF NOT EXISTS customer_deletions (
    customer_id uuid PRIMARY KEY,
    name text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    deleted_rows bigint NOT NULL DEFAULT 0,
    finished_at timestamptz
)
"""

# Each foreign key to a row that goes is looked up for that row: without an index, the whole table is read for each of them.
_INDEXES = {
    "jobs_customer": "jobs (customer_id)",
    "media_customer": "media (customer_id)",
    "media_channel": "media (channel_id)",
    "conversations_of_contact": "conversations (contact_id)",
    "conversations_chatbot": "conversations (chatbot_id, contact_id)",
    "contact_identities_customer": "contact_identities (customer_id)",
    "knowledge_chunks_customer": "knowledge_chunks (customer_id)",
    "webhook_attempts_customer": "webhook_attempts (customer_id)",
    "parked_statuses_customer": "parked_statuses (customer_id)",
    "parked_amendments_customer": "parked_amendments (customer_id)",
    "unread_callbacks_customer": "unread_callbacks (customer_id)",
    "visitor_tokens_customer": "visitor_tokens (customer_id)",
    "customer_deletions_open": "customer_deletions (requested_at) WHERE finished_at IS NULL",
}


def upgrade() -> None:
    """Make the table, and the indexes while everything goes on; an interrupted run is continued.

    A message's channel is its conversation's, which has a foreign key: one of its own would need an index on every message.
    """
    op.execute(_KEPT)
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
    op.execute("ALTER TABLE messages DROP CONSTRAINT IF EXISTS messages_channel_id_fkey")


def downgrade() -> None:
    """Refuse: customers that are half deleted would be back."""
    raise NotImplementedError("0012 cannot be undone; restore a backup from before it")
