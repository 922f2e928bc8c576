"""The command `replyline`: one file a command or group, errors that say what to do, exit codes that scripts can use."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from replyline import __version__
from replyline.cli.completion import called_command
from replyline.cli.output import errors
from replyline.cli.running import CommandFailed, Exit
from replyline.settings import SettingsError

# Where each command is, and its line in the list of commands. Only what is called is imported: the API's libraries alone take a
# second to load. A test holds the lines to the commands' own help.
COMMANDS = {
    "start": (
        "start:start",
        "Run all of Replyline here: Valkey and Postgres (unless REDIS_URL and DATABASE_URL name some), migrations, API, workers.",
    ),
    "api": ("api:api", "Run the door: callbacks, messages API, widget, administration, /metrics and /health."),
    "worker": ("worker:worker", "Run the jobs of the queues, in as many processes on as many machines as wanted."),
    "migrate": (
        "migrate:migrate",
        "Bring the database to the newest schema. Safe to run from many places at once; `start` does it by itself.",
    ),
    "send": (
        "follow:send",
        "Try a message: put it in at the door and follow it live to its delivered reply, with each stage's wait and run time.",
    ),
    "trace": (
        "trace:trace",
        "Show where a message is and why: every job it caused, with waits, tries, errors and workers.",
    ),
    "queues": ("queues:queues", "The queues: counts, oldest job, rates; pause and resume one."),
    "workers": (
        "workers:workers",
        "List the connected workers and the queues that each takes jobs from; `trace` names a worker by the same name.",
    ),
    "dead-letters": ("dead_letters:dead_letters", "Jobs that were given up: look, run again, delete."),
    "customers": ("records:customers_group", "Businesses that pay us: their price makes their plan and priority."),
    "api-keys": ("api_keys:keys_group", "API keys of customers: when each was last used; revoke one."),
    "audit": ("api_keys:audit_trail", "Show which API keys were made and revoked, by whom, newest first."),
    "chatbots": ("records:chatbots_group", "Bots: instructions, provider, memory, quiet windows."),
    "channels": ("channels:channels_group", "Connected accounts: widgets, WhatsApp numbers, QR sessions."),
    "conversations": (
        "conversations:conversations_group",
        "Threads of people with a chatbot: who answers, and what a human says.",
    ),
    "knowledge": ("connected:knowledge_group", "Documents that a chatbot answers from."),
    "webhooks": ("connected:webhooks_group", "URLs that are told what happens."),
    "usage": ("connected:usage", "Show what a customer used, by day (UTC), kind, channel and model."),
    "external": ("external:external", "Jobs of REPLYLINE_EXTERNAL_QUEUES that have not ended: look, settle, do again."),
    "standins": (
        "standins:standins",
        "Run stand-ins for Meta's Cloud API, the QR gateway, an AI vendor and a customer's endpoint, on loopback.",
    ),
    "evolution": (
        "evolution:evolution",
        "Let WhatsApp by QR go through an Evolution API v2 server that you already run.",
    ),
    "redis-cli": (
        "redis:redis_cli",
        "Send one command to Redis, where no redis-cli is installed: KEYS 'bull:*', ZCARD bull:ai-processing:prioritized …",
    ),
    "settings": (
        "about:settings",
        "List every setting with its default and meaning. All are environment variables; .env is read.",
    ),
    "version": ("about:version", "Say which version this is."),
}


def make_app(called: str | None = None) -> typer.Typer:
    """The command line; where a command is `called`, of the others only their absence."""
    app = _bare_app()
    for name in [called] if called in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[str(name)][0].partition(":")
        command = getattr(import_module(f"replyline.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, context_settings={"ignore_unknown_options": name == "redis-cli"})(command)
    return app


def _listing_app() -> typer.Typer:
    """The command line without its commands but for their names and lines: enough to list them or to miss one."""
    app = _bare_app()
    for name, (_, line) in COMMANDS.items():
        app.command(name, help=line)(_nothing)
    return app


def _bare_app() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Replyline: the message pipeline behind a multi-tenant AI chatbot.\n\n"
        'Begin with `replyline start --demo`, then `replyline send "Hello"`. Exit codes: 0 done, 1 tried and failed, '
        "2 wrong argument or setting, 3 a server is not there, 4 not found.",
    )
    app.callback()(_options)  # without it, a single command would take the place of the whole
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """The options of `replyline` itself."""


def _nothing() -> None:
    """Stands for a command in the list of commands."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; every foreseen failure is one line on standard error and an exit code of `running.Exit`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        called = called_command(given)
        app = make_app(called) if called in COMMANDS else _listing_app()
        code = app(given, standalone_mode=False, prog_name="replyline")
    except typer.Abort:
        code = _fail("stopped", Exit.FAILED)
    except typer.TyperException as error:
        code = _wrong_call(error.format_message())
    except CommandFailed as error:
        code = _fail(str(error), error.code)
    except SettingsError as error:
        code = _fail(str(error), Exit.WRONG_CALL)
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _wrong_call(message: str) -> Exit:
    if message.startswith("Usage:"):  # a group named without a command: its help is the answer
        errors.print(message, markup=False, highlight=False, soft_wrap=True)
        return Exit.WRONG_CALL
    return _fail(f"{message}\nTry: replyline --help", Exit.WRONG_CALL)


def _fail(message: str, code: Exit) -> Exit:
    errors.print(f"replyline: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code
