"""`replyline api`: the door, in a process of its own."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import structlog
import typer
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from replyline import logs
from replyline.app import App, open_app
from replyline.cli import garbage
from replyline.cli.connection_cap import ConnectionCap
from replyline.cli.connections import let_go_of_the_deaf, make_room
from replyline.cli.opening import run
from replyline.cli.running import CommandFailed, Exit, Stopped, free_port, settings_here, stop_on_signals, unless
from replyline.settings import Settings
from replyline.supervision import BackgroundTask
from replyline.web import create_app, let_pages_go

log = structlog.get_logger(__name__)

_BACKLOG = 1024


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on; REPLYLINE_HOST otherwise.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; REPLYLINE_PORT otherwise.", min=1, max=65535)] = None,
) -> None:
    """Run the door: callbacks, messages API, widget, administration, /metrics and /health.

    Needs Postgres, and answers 503 until that is there; Redis may be away. Run as many as you like behind a load balancer, each
    on an address of its own. SIGTERM: answers what it has, then ends.
    """
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings_here(**given)
    logs.configure(settings.log_level, settings.log_format)
    run(_api(settings))


async def _api(settings: Settings) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    port = free_port(settings.host, settings.port)
    async with AsyncExitStack() as opened:
        try:
            app = await unless(stop, opened.enter_async_context(open_app(settings, or_later=True)))
        except Stopped:
            return
        app.health.start()
        await _serve(app, port, stop)
        app.supervisor.check()
    log.info("api.stopped")


def _bound_each_address(app: App, port: int) -> BackgroundTask | None:
    most = app.settings.max_connections_per_address
    if most == 0:
        return None
    if not ConnectionCap.works_here():
        log.warning(
            "api.connections_unbounded", hint="only Linux with /proc shows connections: bound them at the proxy"
        )
        return None
    cap = ConnectionCap(port, most=most, trusted=app.settings.trusted_networks)
    return app.supervisor.start("connection cap", cap.run, vital=False)


async def _serve(app: App, port: int, stop: asyncio.Event) -> None:
    settings = app.settings
    served = create_app(app)
    garbage.settle()
    server = Server(
        served,
        address=settings.host,
        port=port,
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
    bounding = _bound_each_address(app, port)
    serving = asyncio.create_task(server.serve(), name="api")
    stopping = asyncio.create_task(app.supervisor.until(stop))
    listening = asyncio.create_task(let_go_of_the_deaf(port))
    await asyncio.wait([serving, stopping, listening], return_when=asyncio.FIRST_COMPLETED)
    if listening.done() and not listening.exception():
        log.info("api.started", url=f"http://{settings.host}:{port}")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    await let_pages_go(served)
    if not serving.done():
        server.stop()  # type: ignore[no-untyped-call]
    for task in (stopping, listening):
        task.cancel()
    if bounding is not None:
        await bounding.stop()
    await asyncio.gather(stopping, listening, return_exceptions=True)
    try:
        await serving
    except OSError as error:
        raise CommandFailed(f"cannot listen on {settings.host}:{port}: {error}", Exit.UNAVAILABLE) from error
