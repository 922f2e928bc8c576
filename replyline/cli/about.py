"""What this Replyline is and what can be set: settings, version."""

from typing import Annotated

import typer

from replyline import __version__
from replyline.cli.output import print_json, print_rows
from replyline.settings import describe, in_words, load


def settings(
    values: Annotated[
        bool, typer.Option("--values", help="The values in force here instead of the meanings; secrets are masked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List every setting with its default and meaning. All are environment variables; .env is read."""
    rows = [{"name": name, "default": default, "meaning": meaning} for name, default, meaning in describe()]
    if not values:
        print_rows(rows, ("name", "default", "meaning"), as_json=as_json, empty="")
        return
    in_force = in_words(load())
    rows = [{"name": row["name"], "value": in_force[row["name"]], "default": row["default"]} for row in rows]
    print_rows(rows, ("name", "value", "default"), as_json=as_json, empty="")


def version(as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False) -> None:
    """Say which version this is."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(__version__)
