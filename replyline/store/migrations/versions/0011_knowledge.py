"""The knowledge search reads what fits the question, of the chatbot that is asked, and computes no vectors.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The vector of a title is kept by a trigger, not by a generated column, which would write every document anew under a lock.
_KEPT = (
    "ALTER TABLE knowledge_documents ADD COLUMN IF NOT EXISTS title_words tsvector",
    """
    CREATE OR REPLACE FUNCTION keep_title_words() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.title_words := to_tsvector('english', NEW.title) || to_tsvector('simple', NEW.title); RETURN NEW; END $$
    """,
    """
    CREATE OR REPLACE TRIGGER knowledge_documents_title_words BEFORE INSERT OR UPDATE OF title ON knowledge_documents
    FOR EACH ROW EXECUTE FUNCTION keep_title_words()
    """,
)
_FILLED = "UPDATE knowledge_documents SET title = title WHERE title_words IS NULL"

# Each indexed vector holds its chatbot's id as one more word, and each search asks for it: a word that is common in other
# customers' documents then costs nothing, because GIN skips to the entries that the rarest word has.
_INDEXES = {
    "knowledge_documents_search": "knowledge_documents USING gin ((title_words || array_to_tsvector(ARRAY[chatbot_id::text])))",
    "knowledge_chunks_search": "knowledge_chunks USING gin ((words || array_to_tsvector(ARRAY[chatbot_id::text])))",
}


def upgrade() -> None:
    """Add the column, then fill it and make the indexes while everything goes on; an interrupted run is continued."""
    for statement in _KEPT:
        op.execute(statement)
    with op.get_context().autocommit_block():
        op.execute(_FILLED)
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS knowledge_chunks_words")


def downgrade() -> None:
    """Refuse: the search before it took time with everything that was stored."""
    raise NotImplementedError("0011 cannot be undone; restore a backup from before it")
