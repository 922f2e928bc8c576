"""Opening what a command works with, and saying in one line what is not there."""

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import uvloop

from replyline import logs
from replyline.app import App, open_app
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.cli.running import CommandFailed, Exit, settings_here
from replyline.embedded import EmbeddedError
from replyline.store.database import StoreUnavailable
from replyline.supervision import BackgroundTaskFailed
from replyline.vault import UnreadableSecret

Result = TypeVar("Result")


def run(work: Coroutine[object, object, Result]) -> Result:
    """Run a command's coroutine to its end; what is not there ends it as CommandFailed."""
    try:
        return uvloop.run(work)
    except StoreUnavailable as error:
        raise CommandFailed(f"{error}: is the server of DATABASE_URL up?", Exit.UNAVAILABLE) from error
    except BrokerUnavailable as error:
        raise CommandFailed(f"Redis is not available: {error}", Exit.UNAVAILABLE) from error
    except CommandRefused as error:
        raise CommandFailed(f"Redis refuses a command: {error}", Exit.UNAVAILABLE) from error
    except EmbeddedError as error:
        raise CommandFailed(str(error), Exit.UNAVAILABLE) from error
    except BackgroundTaskFailed as error:
        raise CommandFailed(str(error)) from error
    except UnreadableSecret as error:
        raise CommandFailed(f"a stored secret cannot be read: {error}") from error


def open_here(**overrides: object) -> AbstractAsyncContextManager[App]:
    """An App on the servers of `settings_here`, with logs quiet enough for a command's output."""
    settings = settings_here(**overrides)
    logs.configure("error", settings.log_format)
    return open_app(settings)
