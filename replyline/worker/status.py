"""A worker's own /metrics and /health, for deployments that watch each process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from replyline import metrics
from replyline.app import App

log = structlog.get_logger(__name__)


@asynccontextmanager
async def serve_status(app: App) -> AsyncIterator[int | None]:
    """Serve on REPLYLINE_METRICS_PORT, if it is set; gives the port."""
    wanted = app.settings.metrics_port
    if wanted is None:
        yield None
        return
    server = web.Application()
    server.router.add_get("/metrics", _metrics)
    server.router.add_get("/health/live", _live)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, app.settings.host, wanted)
    await site.start()
    port: int = runner.addresses[0][1]
    log.info("worker.status", url=f"http://{app.settings.host}:{port}/metrics")
    try:
        yield port
    finally:
        await runner.cleanup()


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _live(_request: web.Request) -> web.Response:
    return web.json_response({"status": "live"})
