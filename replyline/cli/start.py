"""`replyline start`: everything on this machine, supervised by one process that takes all of it along when it ends."""

import asyncio
import contextlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import aiohttp
import structlog
import typer

from replyline import logs
from replyline.cli.children import Children
from replyline.cli.demo import Demo, Telephone, prepare_demo
from replyline.cli.gateway import NoGateway, find_gateway
from replyline.cli.opening import run
from replyline.cli.output import errors
from replyline.cli.running import CommandFailed, Exit, Stopped, free_port, stop_on_signals, unless
from replyline.embedded import DataFolder, EmbeddedPostgres, EmbeddedValkey
from replyline.settings import Settings, load, open_vault
from replyline.store.migrate import migrate
from replyline.vault import Vault

log = structlog.get_logger(__name__)

_COMING_UP_S = 60.0
_LOOK_EVERY_S = 0.1


def start(
    demo: Annotated[
        bool,
        typer.Option("--demo", help="With stand-ins for Meta, the QR gateway and an AI, and a customer to try it."),
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port of the API, 0 picks a free one.", min=0, max=65535)] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", min=1, max=64)] = None,
) -> None:
    """Run all of Replyline here: Valkey and Postgres (unless REDIS_URL and DATABASE_URL name some), migrations, API, workers.

    The data stays in REPLYLINE_DATA (.replyline) for the next start. While it runs, ready.json in that folder says where
    everything is. Ctrl-C or SIGTERM drains and stops.
    """
    given: dict[str, object] = {}
    if port is not None:
        given["port"] = port
    if workers is not None:
        given["worker_processes"] = workers
    settings = load(**given)
    logs.configure(settings.log_level, settings.log_format)
    run(_Start(settings, given, demo=demo).run())


class _Start:
    """One run of everything, from the lock of the data folder to its release."""

    def __init__(self, settings: Settings, given: Mapping[str, object], *, demo: bool) -> None:
        self._settings = settings
        self._given = given
        self._with_demo = demo
        self._valkey = None if settings.external_redis_url else EmbeddedValkey(settings.data)
        self._postgres = None if settings.database_url else EmbeddedPostgres(settings.data)
        self._stop = asyncio.Event()
        self._without = ""

    async def run(self) -> None:
        stop_on_signals(self._stop)
        with DataFolder(self._settings.data):
            for left in (self._settings.ready_file, self._settings.kill_request_file):  # of a run that was killed
                left.unlink(missing_ok=True)
            try:
                await self._run_servers()
            except Stopped:
                errors.print("Stopped before it was up", style="dim")
            finally:
                for server in (self._postgres, self._valkey):
                    if server is not None:
                        await server.stop()

    async def _run_servers(self) -> None:
        settings = self._settings
        errors.print("Starting Replyline …", style="dim")
        servers = [server.start() for server in (self._valkey, self._postgres) if server is not None]
        await unless(self._stop, asyncio.gather(*servers))
        vault = open_vault(settings)  # makes the key on the first start, before a child could
        settings = load(
            **self._given,
            redis_url=settings.external_redis_url or (self._valkey and self._valkey.url),
            database_url=settings.database_url or (self._postgres and self._postgres.url),
            secret_key=settings.secret_key or (settings.data / "secret.key").read_text(encoding="utf-8").strip(),
            admin_key=settings.admin_key or _own_key(settings.data / "admin.key"),
        )
        if settings.database_url is None or settings.redis_url is None:
            raise RuntimeError("a server was started but has no address")
        await unless(self._stop, asyncio.to_thread(migrate, settings.database_url))
        port = free_port(settings.host, settings.port)
        children = Children(settings, port=port, demo=self._with_demo)
        try:
            await unless(self._stop, self._come_up(settings, children, vault, port))
            await self._supervise(children)
        finally:
            self._settings.ready_file.unlink(missing_ok=True)
            await children.stop(settings.drain_s)

    async def _come_up(self, settings: Settings, children: Children, vault: Vault, port: int) -> None:
        telephone = await self._start_gateway(children)
        demo = None
        if self._with_demo:
            urls = await children.start_standins(_COMING_UP_S)
            demo = await prepare_demo(settings, vault, urls, telephone, api=f"http://{settings.host}:{port}")
        await children.start_serving()
        await self._until_ready(f"http://{settings.host}:{port}", children)
        self._announce(settings, port, children, demo, telephone)

    async def _start_gateway(self, children: Children) -> Telephone | None:
        """The QR gateway, where Node is there; without it everything but real telephones works."""
        try:
            gateway = find_gateway(self._settings.data)
            return Telephone(await children.start_gateway(gateway, _COMING_UP_S), gateway.keys.token)
        except NoGateway as reason:
            self._without = str(reason)
        except CommandFailed as error:
            children.give_up("gateway")
            self._without = f"the QR gateway did not come up: {error}"
        return None

    async def _until_ready(self, api: str, children: Children) -> None:
        deadline = asyncio.get_running_loop().time() + _COMING_UP_S
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                children.check_first_start()
                with contextlib.suppress(
                    aiohttp.ClientError, TimeoutError
                ):  # not up yet: asked again until the deadline
                    async with http.get(f"{api}/health/ready") as response:
                        if response.status == 200:
                            return
                if asyncio.get_running_loop().time() > deadline:
                    raise CommandFailed(f"the API did not come up in {_COMING_UP_S:g} s", Exit.UNAVAILABLE)
                await asyncio.sleep(_LOOK_EVERY_S)

    def _announce(
        self, settings: Settings, port: int, children: Children, demo: Demo | None, telephone: Telephone | None
    ) -> None:
        api = f"http://{settings.host}:{port}"
        ready: dict[str, object] = {
            "pid": os.getpid(),
            "api": api,
            "redis_url": settings.redis_url,
            "embedded_redis": self._valkey is not None,
            "database_url": settings.database_url,
            "admin_key": settings.admin_key,
        }
        if telephone is not None:
            ready["gateway"] = {"url": telephone.gateway_url, "token": telephone.token}
        lines = [f"API         {api}   (docs: /docs, metrics: /metrics)"]
        if demo is not None:
            ready |= {"standins": children.standins, "demo": demo.described()}
            lines += [
                f"Look        {api}/demo   (the widget, two phones, and where the message is)",
                'Try it      replyline send "What are your opening hours?"',
                "            replyline send --channel WHATSAPP_CLOUD Hello",
                "Then        replyline trace MESSAGE · replyline queues · replyline dead-letters list",
            ]
        if telephone is None:
            lines.append(f"Telephone   none: {self._without}")
        elif demo is not None:
            lines += ["Telephone   pair yours:", f"replyline channels session {demo.telephone_channel} start"]
        else:
            lines.append(f"Telephone   QR gateway at {telephone.gateway_url}")
        lines += [
            f"Operator    key in {settings.data / 'ready.json'}: admin_key",
            f"Data        {settings.data.absolute()}",
        ]
        lines.append("Stop        Ctrl-C")
        _write_private(self._settings.ready_file, json.dumps(ready, indent=2))
        # No frame and no wrapping of ours: what is copied from a narrow terminal stays one command.
        errors.print("\nReplyline is up", style="bold")
        for line in lines:
            errors.print(line, markup=False, highlight=False, soft_wrap=True)

    async def _supervise(self, children: Children) -> None:
        """Until the stop: what ends by itself is started again."""
        while not self._stop.is_set():
            for server in (self._valkey, self._postgres):
                if server is not None and server.pid is None:
                    log.error("start.server_ended", server=server.name, log=str(server.log))
                    await server.restart()
            children.kill_a_worker_if_asked()
            await children.revive()
            with contextlib.suppress(TimeoutError):  # the usual case: nobody asked for the stop
                await asyncio.wait_for(self._stop.wait(), timeout=0.5)
        errors.print("Stopping: finishing what runs …", style="dim")


def _own_key(file: Path) -> str:
    """The operator's key of this data folder, made on the first start; readable by us only."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        _write_private(file, secrets.token_urlsafe(32))
        return _own_key(file)


def _write_private(file: Path, text: str) -> None:
    """Whole or not at all, readable by us only: it holds keys."""
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(f"{text}\n")
    unfinished.replace(file)
