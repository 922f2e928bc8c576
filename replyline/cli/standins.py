"""`replyline standins`: what is outside, on loopback."""

import asyncio
import json
import sys
from typing import Annotated

import typer
import uvloop

from replyline.cli.running import CommandFailed, Exit, stop_on_signals
from replyline.standins import Standins


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
    try:
        uvloop.run(_standins(ports))
    except ValueError as error:
        raise CommandFailed(str(error), Exit.WRONG_CALL) from error
    except OSError as error:
        raise CommandFailed(f"cannot listen: {error.strerror}", Exit.UNAVAILABLE) from error


async def _standins(ports: dict[str, int]) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with Standins(ports=ports) as running:
        sys.stdout.write(json.dumps(running.urls) + "\n")
        sys.stdout.flush()
        await stop.wait()
