"""`replyline migrate`: the newest schema."""

import sys

import asyncpg
import sqlalchemy.exc

from replyline.cli.running import CommandFailed, Exit, settings_here
from replyline.store.database import described
from replyline.store.migrate import migrate as apply_migrations


def migrate() -> None:
    """Bring the database to the newest schema. Safe to run from many places at once; `start` does it by itself."""
    settings = settings_here()
    if settings.database_url is None:
        raise CommandFailed("DATABASE_URL is not set", Exit.WRONG_CALL)
    try:
        apply_migrations(settings.database_url)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CommandFailed(f"the database cannot be migrated: {described(error)}", Exit.UNAVAILABLE) from error
    except sqlalchemy.exc.DBAPIError as error:
        raise CommandFailed(f"the database cannot be migrated: {_first_line(error)}", Exit.UNAVAILABLE) from error
    except ValueError as error:
        raise CommandFailed(str(error), Exit.WRONG_CALL) from error
    sys.stdout.write("the database is up to date\n")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
