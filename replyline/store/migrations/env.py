"""Alembic's entry: run the migrations over the connection that `replyline.store.migrate` hands in."""

from alembic import context

connection = context.config.attributes["connection"]
# One transaction a migration, so that one which makes an index CONCURRENTLY can leave its own.
context.configure(connection=connection, transactional_ddl=True, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
