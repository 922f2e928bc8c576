"""`replyline redis-cli`: one command to Redis, and its reply as redis-cli prints it."""

from typing import Annotated

import typer

from replyline import logs
from replyline.broker import Broker, CommandRefused
from replyline.cli.opening import run
from replyline.cli.output import harmless
from replyline.cli.running import CommandFailed, settings_here
from replyline.settings import Settings


def redis_cli(
    words: Annotated[list[str], typer.Argument(help="A command and its arguments.", metavar="COMMAND…")],
) -> None:
    """Send one command to Redis, where no redis-cli is installed: KEYS 'bull:*', ZCARD bull:ai-processing:prioritized …"""

    async def ask(url: str, prefix: str) -> None:
        # Without the deployment's claim: who is locked out by it needs this command to look, and to give the keys free.
        broker = Broker(url, prefix=prefix)
        await broker.open()
        try:
            _print_reply(await broker.command(*words))
        except CommandRefused as error:
            raise CommandFailed(f"(error) {error}") from error
        finally:
            await broker.close()

    settings = settings_here()
    logs.configure("error", settings.log_format)
    run(ask(_redis_url(settings), settings.prefix))


def _redis_url(settings: Settings) -> str:
    if settings.external_redis_url is None:
        raise CommandFailed("no Redis: set REDIS_URL, or run this where `replyline start` is up")
    return settings.external_redis_url


def _print_reply(reply: object, indent: str = "") -> None:
    match reply:
        case None:
            typer.echo(f"{indent}(nil)")
        case bytes():
            _say(f"{indent}{reply.decode(errors='replace')}")
        case list():
            if not reply:
                typer.echo(f"{indent}(empty)")
            for number, entry in enumerate(reply, 1):
                if isinstance(entry, list):
                    typer.echo(f"{indent}{number})")
                    _print_reply(entry, f"{indent}   ")
                else:
                    _print_reply(entry, f"{indent}{number}) ")
        case Exception():
            _say(f"{indent}(error) {reply}")
        case _:
            _say(f"{indent}{reply}")


def _say(line: str) -> None:
    typer.echo(harmless(line))
