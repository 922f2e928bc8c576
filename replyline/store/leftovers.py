"""What an upgrade leaves to be done while everything goes on: jobs that ended in `jobs`, where the version before leaves them."""

from replyline.store.database import Connection, Database

_MOVE = "SELECT move_ended_jobs($1)"
# Processes of the version before look for jobs by these; without them they would read the whole table, which is small only when
# what ended has left it.
_OLD_INDEXES = ("jobs_waiting", "jobs_message", "jobs_held", "jobs_dead", "jobs_finished")
_THERE = "SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE i.indrelid = 'jobs'::regclass"
_SHORTLY = "SET LOCAL lock_timeout = '100ms'"


async def move_ended(connection: Connection, *, limit: int = 2000) -> int:
    """Move at most so many ended jobs to where they belong; returns how many."""
    moved: int = await connection.fetchval(_MOVE, limit)
    return moved


async def drop_old_indexes(database: Database) -> list[str]:
    """Drop the indexes of the version before, once nothing that ended is left in `jobs`; returns which.

    Raises:
        StoreBusy: a lock was not to be had; try again later.
    """
    async with database.connection() as connection:
        there = {record["relname"] for record in await connection.fetch(_THERE)}
    names = [name for name in _OLD_INDEXES if name in there]
    for name in names:
        async with database.transaction() as connection:
            await connection.execute(_SHORTLY)
            await connection.execute(f"DROP INDEX IF EXISTS {name}")
    return names
