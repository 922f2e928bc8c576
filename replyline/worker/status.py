"""A worker's own /metrics and /health, for deployments that watch each process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from replyline import metrics
from replyline.app import App

log = structlog.get_logger(__name__)

_APP: web.AppKey[App] = web.AppKey("app", App)


class PortTaken(Exception):
    """The port of REPLYLINE_METRICS_PORT cannot be listened on; the message says why."""


@asynccontextmanager
async def serve_status(app: App) -> AsyncIterator[int | None]:
    """Serve on REPLYLINE_METRICS_PORT, if it is set; gives the port.

    Raises:
        PortTaken: somebody else listens there, or the address is none of this machine's.
    """
    wanted = app.settings.metrics_port
    if wanted is None:
        yield None
        return
    server = web.Application()
    server[_APP] = app
    server.router.add_get("/metrics", _metrics)
    server.router.add_get("/health/live", _live)
    server.router.add_get("/health/ready", _ready)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    host = app.settings.host
    try:
        await web.TCPSite(runner, host, wanted).start()
    except OSError as error:
        await runner.cleanup()
        said = error.strerror or str(error)
        raise PortTaken(
            f"cannot listen on {host}:{wanted} ({said}): set REPLYLINE_METRICS_PORT or REPLYLINE_HOST"
        ) from error
    port: int = runner.addresses[0][1]
    log.info("worker.status", url=f"http://{host}:{port}/metrics")
    try:
        yield port
    finally:
        await runner.cleanup()


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _live(request: web.Request) -> web.Response:
    """Answered by the event loop that the jobs run on: one that hangs does not answer at all."""
    stuck = request.app[_APP].health.stuck
    if stuck is not None:
        return web.json_response({"status": "stuck", "reason": stuck}, status=503)
    return web.json_response({"status": "live"})


async def _ready(request: web.Request) -> web.Response:
    report = await request.app[_APP].health.report()
    status = "ready" if report.ready else "not ready"
    return web.json_response({"status": status, **report.parts}, status=200 if report.ready else 503)
