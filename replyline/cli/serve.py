"""The processes of a deployment: api, worker, migrate, standins."""

import asyncio
import json
import sys
from typing import Annotated

import sqlalchemy.exc
import structlog
import typer
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from replyline import logs
from replyline.app import open_app
from replyline.cli.running import CommandFailed, Exit, run, settings_here, stop_on_signals
from replyline.jobs import QUEUE_NAMES
from replyline.settings import Settings
from replyline.standins import Standins
from replyline.store.migrate import migrate as apply_migrations
from replyline.web import create_app
from replyline.worker.run import work
from replyline.worker.status import serve_status

log = structlog.get_logger(__name__)


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on; REPLYLINE_HOST otherwise.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; REPLYLINE_PORT otherwise.", min=1, max=65535)] = None,
) -> None:
    """Run the door: callbacks, messages API, widget, administration, /metrics and /health.

    Needs Postgres; Redis may be away. Run as many as you like behind a load balancer. SIGTERM: answers what it has, then ends.
    """
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings_here(**given)
    logs.configure(settings.log_level, settings.log_format)
    run(_api(settings))


async def _api(settings: Settings) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with open_app(settings) as app:
        server = Server(
            create_app(app),
            address=settings.host,
            port=settings.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=15_000),
            websockets=False,
            log_enabled=False,
            log_level=LogLevels.error,
        )
        serving = asyncio.create_task(server.serve(), name="api")
        stopping = asyncio.create_task(stop.wait())
        log.info("api.started", url=f"http://{settings.host}:{settings.port}")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            server.stop()  # type: ignore[no-untyped-call]
        stopping.cancel()
        await serving
    log.info("api.stopped")


def worker(
    queues: Annotated[
        str | None, typer.Option(help="Only these queues, joined by commas; all otherwise.", metavar="A,B")
    ] = None,
    concurrency: Annotated[
        list[str] | None,
        typer.Option(help="Jobs at once of a queue, as ai-processing=50; may be repeated.", metavar="Q=N"),
    ] = None,
) -> None:
    """Run the jobs of the queues, in as many processes on as many machines as wanted.

    SIGTERM: fetches no more, finishes what runs (REPLYLINE_DRAIN_S seconds at most), hands back the rest and exits 0.
    A second signal ends it at once.
    """
    wanted = _queues(queues)
    counts = _concurrency(concurrency or [])
    settings = settings_here()
    logs.configure(settings.log_level, settings.log_format)
    run(_worker(settings, wanted, counts))


async def _worker(settings: Settings, queues: list[str], concurrency: dict[str, int]) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with open_app(settings) as app, serve_status(app):
        await work(app, queues=queues, concurrency=concurrency, stop=stop)


def _queues(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(QUEUE_NAMES)
    for name in names:
        _known_queue(name)
    return names


def _known_queue(name: str) -> None:
    if name not in QUEUE_NAMES:
        raise CommandFailed(f"no such queue: {name}; the queues are {', '.join(QUEUE_NAMES)}", Exit.WRONG_CALL)


def _concurrency(pairs: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        _known_queue(name)
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise CommandFailed(f"--concurrency reads queue=jobs (1 to 10000), not {pair!r}", Exit.WRONG_CALL)
        counts[name] = int(number)
    return counts


def migrate() -> None:
    """Bring the database to the newest schema. Safe to run from many places at once; `start` does it by itself."""
    settings = settings_here()
    if settings.database_url is None:
        raise CommandFailed("DATABASE_URL is not set", Exit.WRONG_CALL)
    try:
        apply_migrations(settings.database_url)
    except (OSError, sqlalchemy.exc.DBAPIError) as error:
        raise CommandFailed(f"the database cannot be migrated: {_first_line(error)}", Exit.UNAVAILABLE) from error
    except ValueError as error:
        raise CommandFailed(str(error), Exit.WRONG_CALL) from error
    sys.stdout.write("the database is up to date\n")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def standins(
    port: Annotated[
        list[str] | None, typer.Option(help="A fixed port, as openai=9003; may be repeated.", metavar="NAME=PORT")
    ] = None,
) -> None:
    """Run stand-ins for Meta's Cloud API, the QR gateway, an AI vendor and a customer's endpoint, on loopback.

    Prints one line of JSON with their addresses. docs/standins.md shows how to make them fail.
    """
    ports: dict[str, int] = {}
    for pair in port or []:
        name, _, number = pair.partition("=")
        if not number.isdecimal() or int(number) > 65535:
            raise CommandFailed(f"--port reads name=port, not {pair!r}", Exit.WRONG_CALL)
        ports[name] = int(number)
    run(_standins(ports))


async def _standins(ports: dict[str, int]) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with Standins(ports=ports) as running:
        sys.stdout.write(json.dumps(running.urls) + "\n")
        sys.stdout.flush()
        await stop.wait()
