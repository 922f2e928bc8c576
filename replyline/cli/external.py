"""`replyline external`: jobs that an external BullMQ worker does, and what to do where it does not."""

import uuid
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from replyline.cli.opening import open_here, run
from replyline.cli.output import console, print_rows
from replyline.cli.running import CommandFailed, Exit
from replyline.external_results import FAILED, NotOpen, Result, hand_over_again, report
from replyline.store import external as records

external = typer.Typer(
    no_args_is_help=True, help="Jobs of REPLYLINE_EXTERNAL_QUEUES that have not ended: look, settle, do again."
)
Job = Annotated[uuid.UUID, typer.Argument(help="The job's id, as `list` shows it.", metavar="JOB")]
_COLUMNS = ("id", "queue", "message_id", "late_s", "wait_reason")


class Outcome(StrEnum):
    """How a job ended."""

    SENT = "sent"
    FAILED = "failed"


@external.command("list")
def list_(
    lost: Annotated[bool, typer.Option("--lost", help="Only those that Redis forgot.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List jobs that an external worker has not finished, the longest due first."""

    async def work() -> list[dict[str, object]]:
        async with open_here() as app, app.database.connection() as connection:
            found = await records.oldest(connection, app.settings.external, lost=lost, limit=limit)
            return [{**asdict(job), "late_s": round(job.late_s, 1)} for job in found]

    print_rows(run(work()), _COLUMNS, as_json=as_json, empty="no open jobs in external queues")


@external.command()
def settle(
    job: Job,
    outcome: Annotated[Outcome, typer.Argument(help="What became of the message.")],
    external_id: Annotated[str | None, typer.Option("--id", help="What the channel calls the message.")] = None,
    error: Annotated[str, typer.Option(help="Why it failed.")] = "",
) -> None:
    """Say how a job ended: its message is SENT or FAILED, and its conversation's next one goes."""
    result = Result(outcome.value, "reported by an operator", datetime.now(UTC), external_id, FAILED, error)

    async def work() -> None:
        async with open_here() as app:
            await report(app, job, result)

    _do(work())
    console.print(outcome.value, style="dim")


@external.command()
def again(job: Job) -> None:
    """Publish a job that Redis forgot, although an external worker may have done it."""

    async def work() -> None:
        async with open_here() as app:
            await hand_over_again(app, job)

    _do(work())
    console.print("published again", style="dim")


def _do(work: Coroutine[object, object, None]) -> None:
    try:
        run(work)
    except NotOpen as error:
        raise CommandFailed(str(error), Exit.NOT_FOUND) from error
