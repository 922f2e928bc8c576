"""The command `replyline`: one file a group of commands, errors that say what to do, exit codes that scripts can use."""

import sys
from typing import Annotated

import click
import typer

from replyline import __version__
from replyline.broker import BrokerUnavailable
from replyline.cli import connected, queues, records, serve
from replyline.cli.follow import send, trace
from replyline.cli.output import errors, print_json, print_rows
from replyline.cli.running import CommandFailed, Exit
from replyline.cli.start import start
from replyline.embedded import EmbeddedError
from replyline.settings import SettingsError, describe
from replyline.store.database import StoreUnavailable
from replyline.vault import UnreadableSecret

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Replyline: the message pipeline behind a multi-tenant AI chatbot.\n\n"
    'Begin with `replyline start --demo`, then `replyline send "Hello"`. Exit codes: 0 done, 1 tried and failed, '
    "2 wrong argument or setting, 3 a server is not there, 4 not found.",
)

app.command(rich_help_panel=None)(start)
for command in (serve.api, serve.worker, serve.migrate):
    app.command()(command)
app.command()(send)
app.command()(trace)
app.command()(queues.queues)
app.add_typer(queues.dead_letters, name="dead-letters")
for group in (*records.GROUPS, *connected.GROUPS):
    app.add_typer(group)
app.command()(connected.usage)
app.command()(serve.standins)
app.command("redis-cli", context_settings={"ignore_unknown_options": True})(queues.redis_cli)


@app.command()
def settings(as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False) -> None:
    """List every setting with its default and meaning. All are environment variables; .env is read."""
    rows = [{"name": name, "default": default, "meaning": meaning} for name, default, meaning in describe()]
    print_rows(rows, ("name", "default", "meaning"), as_json=as_json, empty="")


@app.command()
def version(as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False) -> None:
    """Say which version this is."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(__version__)


def main() -> None:
    """Run the command line; every foreseen failure is one line on standard error and an exit code of `running.Exit`."""
    try:
        code = app(standalone_mode=False)
    except click.exceptions.Abort:
        code = _fail("stopped", Exit.FAILED)
    except click.ClickException as error:
        error.show()
        code = Exit.WRONG_CALL
    except CommandFailed as error:
        code = _fail(str(error), error.code)
    except SettingsError as error:
        code = _fail(str(error), Exit.WRONG_CALL)
    except StoreUnavailable as error:
        code = _fail(f"{error}: is the server of DATABASE_URL up?", Exit.UNAVAILABLE)
    except BrokerUnavailable as error:
        code = _fail(f"Redis is not available: {error}", Exit.UNAVAILABLE)
    except EmbeddedError as error:
        code = _fail(str(error), Exit.UNAVAILABLE)
    except UnreadableSecret as error:
        code = _fail(f"a stored secret cannot be read: {error}", Exit.FAILED)
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _fail(message: str, code: Exit) -> Exit:
    errors.print(f"replyline: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code
