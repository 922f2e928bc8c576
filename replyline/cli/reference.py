"""`docs/cli.md`, written from the commands themselves: `python -m replyline.cli.reference > docs/cli.md`."""

import sys
from collections.abc import Iterator

import typer
from typer.core import TyperGroup

from replyline.cli import COMMANDS, make_app

_COLUMNS = 100

_HEAD = """# Commands

Written from the commands themselves (`make reference`); `replyline COMMAND --help` says the same. Exit codes: 0 done, 1
tried and failed, 2 wrong argument or setting, 3 a server is not there, 4 not found. `replyline --version` says which
version this is.

`replyline --install-completion` teaches the shell you are in (bash, zsh, fish, PowerShell) to complete commands and
options; `replyline --show-completion` prints the script instead, for those who keep such files themselves.

Commands work on the servers that `REDIS_URL` and `DATABASE_URL` name, or else on those that `replyline start` has up in
`REPLYLINE_DATA` (`.replyline`). Tables fit the terminal; `--json` prints everything as one JSON document.
"""


def reference() -> str:
    """The page, in Markdown."""
    whole = typer.main.get_command(make_app())
    if not isinstance(whole, TyperGroup):
        raise TypeError("the command line is one command, not a group")
    return "\n".join([_HEAD, *(part for name in COMMANDS for part in _described(f"replyline {name}", whole, name))])


def _described(path: str, group: TyperGroup, name: str, level: int = 2) -> Iterator[str]:
    command = group.commands[name]
    context = command.make_context(path, [], resilient_parsing=True, terminal_width=_COLUMNS)
    yield f"{'#' * level} {path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, TyperGroup):
        for part in command.commands:
            yield from _described(f"{path} {part}", command, part, level + 1)


if __name__ == "__main__":
    sys.stdout.write(reference())
