"""`replyline api`: the door, in a process of its own."""

import asyncio
from typing import Annotated

import structlog
import typer
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from replyline import logs
from replyline.app import open_app
from replyline.cli.connections import let_go_of_the_deaf, make_room
from replyline.cli.opening import run
from replyline.cli.running import settings_here, stop_on_signals
from replyline.settings import Settings
from replyline.web import create_app, let_pages_go

log = structlog.get_logger(__name__)

_BACKLOG = 1024


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
        served = create_app(app)
        server = Server(
            served,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=15_000),
            websockets=False,
            backlog=_BACKLOG,
            # Granian's own default is 128 connections in all, open pages among them.
            backpressure=make_room(settings.max_connections),
            log_enabled=False,
            log_level=LogLevels.error,
        )
        serving = asyncio.create_task(server.serve(), name="api")
        stopping = asyncio.create_task(stop.wait())
        await let_go_of_the_deaf(settings.port)
        log.info("api.started", url=f"http://{settings.host}:{settings.port}")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        await let_pages_go(served)
        if not serving.done():
            server.stop()  # type: ignore[no-untyped-call]
        stopping.cancel()
        await serving
    log.info("api.stopped")
