"""`replyline worker`: the jobs of the queues, in a process of its own."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from replyline import logs
from replyline.app import open_app
from replyline.cli import garbage
from replyline.cli.opening import run
from replyline.cli.queues import check_queue
from replyline.cli.running import CommandFailed, Exit, Stopped, settings_here, stop_on_signals, unless
from replyline.jobs import QUEUE_NAMES
from replyline.settings import Settings
from replyline.worker.run import work
from replyline.worker.status import PortTaken, serve_status


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

    Waits for Postgres and Redis where they are away.

    SIGTERM: fetches no more, finishes what runs (REPLYLINE_DRAIN_S seconds at most), hands back the rest and exits 0.
    A second signal ends it at once.
    """
    wanted = _queues(queues)
    counts = _concurrency(concurrency or [])
    settings = settings_here()
    _refuse_external(wanted if queues else [], settings)
    logs.configure(settings.log_level, settings.log_format)
    run(_worker(settings, wanted, counts))


async def _worker(settings: Settings, queues: list[str], concurrency: dict[str, int]) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with AsyncExitStack() as opened:
        try:
            app = await unless(stop, opened.enter_async_context(open_app(settings, or_later=True)))
            await opened.enter_async_context(serve_status(app))
            app.health.start()
            await unless(stop, app.joining.joined())
        except PortTaken as error:
            raise CommandFailed(str(error), Exit.UNAVAILABLE) from error
        except Stopped:
            return
        garbage.settle()
        await work(app, queues=queues, concurrency=concurrency, stop=stop)


def _queues(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(QUEUE_NAMES)
    for name in names:
        check_queue(name)
    return names


def _refuse_external(names: list[str], settings: Settings) -> None:
    for name in names:
        if name in settings.external:
            raise CommandFailed(
                f"{name} is in REPLYLINE_EXTERNAL_QUEUES: an external worker does its jobs", Exit.WRONG_CALL
            )


def _concurrency(pairs: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        check_queue(name)
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise CommandFailed(f"--concurrency reads queue=jobs (1 to 10000), not {pair!r}", Exit.WRONG_CALL)
        counts[name] = int(number)
    return counts
