"""What a command works with: the servers that the environment names, or those that `replyline start` has up here."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable
from enum import IntEnum
from typing import TypeVar

from replyline.settings import Settings, SettingsError, load

Found = TypeVar("Found")


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


class Stopped(Exception):
    """The process was told to stop while it was still starting."""


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


async def unless(stop: asyncio.Event, starting: Awaitable[Found]) -> Found:
    """What `starting` gives; where `stop` is set first, that is cancelled.

    Raises:
        Stopped: it was.
    """
    task = asyncio.ensure_future(starting)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not stop.is_set():  # what fails while it is stopped fails because of that
            return task.result()
    finally:
        stopping.cancel()
        task.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
    raise Stopped


def free_port(host: str, port: int) -> int:
    """The port to listen on: the one asked for, or any for 0.

    Raises:
        CommandFailed: it cannot be listened on; another process does, also one that would share it, or the address is not ours.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandFailed(
                f"cannot listen on {host}:{port} ({error.strerror}): stop what does, or set REPLYLINE_PORT (0 picks a free "
                "port) or REPLYLINE_HOST",
                Exit.UNAVAILABLE,
            ) from error
        found: int = probe.getsockname()[1]
        return found
