"""`replyline evolution`: Evolution API v2 behind our own QR gateway contract."""

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
import uvloop
from aiohttp import web

from replyline import logs
from replyline.cli.records import text_of
from replyline.cli.running import CommandFailed, Exit, stop_on_signals
from replyline.evolution.memory import Memory
from replyline.evolution.service import Adapter, AdapterSettings
from replyline.webhooks import open_webhook_session

_LEAST_TOKEN_CHARS = 16
_LINK_S = 60.0
"""How long the file of a link may take, in seconds."""


def evolution(
    url: Annotated[str, typer.Option(help="Where Evolution API is, as http://evolution:8080.")],
    api_key: Annotated[str, typer.Option(help="Its global API key; @FILE reads a file.")],
    token: Annotated[
        str, typer.Option(help="What Replyline says to this adapter (gateway_token); @FILE reads a file.")
    ],
    *,
    data: Annotated[Path, typer.Option(help="Folder for what must not be forgotten.")] = Path(".replyline/evolution"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8091,
    public_url: Annotated[
        str | None, typer.Option(help="Where Evolution reaches this adapter; http://HOST:PORT otherwise.")
    ] = None,
    grace: Annotated[
        float, typer.Option(help="Seconds to wait for Evolution's word on a send of unknown outcome.", min=0, max=600)
    ] = 20.0,
    allow_private_links: Annotated[
        bool, typer.Option("--allow-private-links", help="Send files from links that lead to private addresses too.")
    ] = False,
) -> None:
    """Let WhatsApp by QR go through an Evolution API v2 server that you already run.

    Then connect a channel to it: --config gateway_url=http://HOST:PORT --secret gateway_token=TOKEN. docs/evolution.md has more.
    """
    settings = AdapterSettings(
        url=url,
        api_key=text_of(api_key),
        token=text_of(token),
        public_url=(public_url or "").rstrip("/"),
        grace_s=grace,
    )
    if len(settings.token) < _LEAST_TOKEN_CHARS:
        raise CommandFailed(f"--token needs at least {_LEAST_TOKEN_CHARS} characters", Exit.WRONG_CALL)
    if not url.startswith(("http://", "https://")):
        raise CommandFailed(f"--url must begin with http:// or https://, not {url!r}", Exit.WRONG_CALL)
    logs.configure("info", "auto")
    try:
        uvloop.run(_serve(settings, data, host, port, allow_private_links=allow_private_links))
    except (OSError, sqlite3.Error) as error:
        raise CommandFailed(f"cannot start: {error}", Exit.UNAVAILABLE) from error


async def _serve(settings: AdapterSettings, data: Path, host: str, port: int, *, allow_private_links: bool) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    memory = Memory(data)
    try:
        async with (
            aiohttp.ClientSession() as http,
            open_webhook_session(allow_private=allow_private_links, timeout_s=_LINK_S) as link_http,
        ):
            adapter = Adapter(settings, memory, http, link_http)
            runner = web.AppRunner(adapter.application(), access_log=None, shutdown_timeout=2.0)
            await runner.setup()
            await web.TCPSite(runner, host, port).start()
            here = f"http://{host}:{runner.addresses[0][1]}"
            adapter.reached_at(settings.public_url or here)
            await adapter.open()
            sys.stdout.write(json.dumps({"url": here}) + "\n")
            sys.stdout.flush()
            try:
                await stop.wait()
            finally:
                await runner.cleanup()
                await adapter.close()
    finally:
        memory.close()
