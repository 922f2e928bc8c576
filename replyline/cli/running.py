"""What a command works with: the servers that the environment names, or those that `replyline start` has up here."""

import asyncio
import json
import os
import signal
import sys
from enum import IntEnum

from replyline.settings import Settings, SettingsError, load


class Exit(IntEnum):
    """Exit codes of every command: what a script can go by."""

    OK = 0
    FAILED = 1
    """It was tried and did not work: the message was not delivered, the dead letter cannot be replayed."""
    WRONG_CALL = 2
    """An argument or a setting is wrong; nothing was tried."""
    UNAVAILABLE = 3
    """Postgres, Redis, the API or an embedded server is not there."""
    NOT_FOUND = 4


class CommandFailed(Exception):
    """Ends a command with a message for people and a code for scripts."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def settings_here(**overrides: object) -> Settings:
    """The settings, with the servers of a running `replyline start` where the environment names none.

    Raises:
        SettingsError: nothing is named and nothing is running.
    """
    settings = load(**overrides)
    if settings.external_redis_url and settings.database_url:
        return settings
    ready = read_ready(settings)
    if ready is None:
        raise SettingsError(
            f"nothing is running in {settings.data}: start `replyline start` first, "
            "or set REDIS_URL and DATABASE_URL to the servers you mean"
        )
    found: dict[str, object] = {"redis_url": ready["redis_url"], "database_url": ready["database_url"]}
    key_file = settings.data / "secret.key"
    if settings.secret_key is None and key_file.exists():
        found["secret_key"] = key_file.read_text(encoding="utf-8").strip()
    return load(**{**found, **overrides})


def read_ready(settings: Settings) -> dict[str, object] | None:
    """What `replyline start` wrote, or None where it is not running (a file left by a crash does not count)."""
    try:
        ready: dict[str, object] = json.loads(settings.ready_file.read_text(encoding="utf-8"))
        os.kill(int(str(ready["pid"])), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{settings.ready_file} is damaged ({error}): remove it and start again") from error
    except PermissionError:
        pass  # it runs as somebody else: running all the same
    return ready


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` at the first SIGTERM or SIGINT; the second ends the process at once, with what it has not finished."""

    def received() -> None:
        if stop.is_set():
            sys.stderr.write("stopped at once: what was running will be run again\n")
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
