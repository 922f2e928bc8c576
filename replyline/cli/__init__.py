"""The command `replyline`: one file a command or group, errors that say what to do, exit codes that scripts can use."""

import sys
from importlib import import_module

import typer

from replyline.cli.output import errors
from replyline.cli.running import CommandFailed, Exit
from replyline.settings import SettingsError

# Where each command is. Only what is called is imported: the API's libraries alone take a second to load.
COMMANDS = {
    "start": "start:start",
    "api": "api:api",
    "worker": "worker:worker",
    "migrate": "migrate:migrate",
    "send": "follow:send",
    "trace": "follow:trace",
    "queues": "queues:queues",
    "dead-letters": "queues:dead_letters",
    "customers": "records:customers_group",
    "chatbots": "records:chatbots_group",
    "channels": "channels:channels_group",
    "conversations": "conversations:conversations_group",
    "knowledge": "connected:knowledge_group",
    "webhooks": "connected:webhooks_group",
    "usage": "connected:usage",
    "standins": "standins:standins",
    "evolution": "evolution:evolution",
    "redis-cli": "queues:redis_cli",
    "settings": "about:settings",
    "version": "about:version",
}


def make_app(called: str | None = None) -> typer.Typer:
    """The command line; where a command is `called`, of the others only their absence."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Replyline: the message pipeline behind a multi-tenant AI chatbot.\n\n"
        'Begin with `replyline start --demo`, then `replyline send "Hello"`. Exit codes: 0 done, 1 tried and failed, '
        "2 wrong argument or setting, 3 a server is not there, 4 not found.",
    )
    app.callback()(_nothing)  # without it, a single command would take the place of the whole
    for name in [called] if called in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[str(name)].partition(":")
        command = getattr(import_module(f"replyline.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, context_settings={"ignore_unknown_options": name == "redis-cli"})(command)
    return app


def _nothing() -> None:
    """The options of `replyline` itself: there are none."""


def main() -> None:
    """Run the command line; every foreseen failure is one line on standard error and an exit code of `running.Exit`."""
    try:
        code = make_app(sys.argv[1] if len(sys.argv) > 1 else None)(standalone_mode=False)
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
