"""`replyline trace`: where one message is and why, with what each of its jobs waited for."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from replyline.app import App
from replyline.broker import BrokerUnavailable
from replyline.cli.output import console, print_json, seconds
from replyline.cli.records import AsJson, do
from replyline.cli.running import CommandFailed, Exit
from replyline.store import timeline
from replyline.store.timeline import Timeline, TimelineJob

_STYLES = {"DONE": "green", "DEAD": "red", "WAITING": "yellow"}
_NOT_THE_BOT = {
    "HUMAN": "a human answers in this conversation: the bot is silent (`replyline conversations owner` changes that)",
    "NONE": "nobody answers in this conversation (`replyline conversations owner` changes that)",
}
_MOST_WHY_CHARS = 80
# What the codes of `wait_reason` mean; one that is not here is said as it is.
_WORDS = {
    "quiet_window": "quiet window, for more of what the person writes",
    "retry": "pause before another try",
    "superseded": "the person wrote on meanwhile",
    "behind_earlier": "an earlier message of the person came first",
    "provider_rate_limited": "the AI provider asked to wait",
    "picture_pending": "a picture was still being fetched",
    "outcome_unknown": "nobody knows whether it was sent",
    "account_limit": "the channel's own limit",
    "recipient_limit": "the limit for one recipient",
    "store_busy": "Postgres could not do it in time (a lock, a timeout)",
    "day_limit": "the channel's limit for a day",
}


def trace(
    wanted: Annotated[
        str,
        typer.Argument(
            help="The id of a message, a trace or a job, BullMQ's id of a job, or the channel's id of a message (wamid).",
            metavar="ID",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show where a message is and why: every job it caused, with waits, tries, errors and workers."""

    async def read(app: App) -> tuple[Timeline, list[str] | None]:
        message_id = await timeline.find_message(app.database, wanted.strip())
        found = None if message_id is None else await timeline.trace(app.database, message_id, customer_id=None)
        if found is None:
            raise CommandFailed(f"there is no message, trace or job {wanted}", Exit.NOT_FOUND)
        return found, await _paused(app, found)

    found, paused = do(read)
    if as_json:
        print_json({**msgspec.to_builtins(found), "paused_queues": paused})
        return
    console.print(stages(found, paused or ()))
    if found.owner in _NOT_THE_BOT and not _answered(found):
        console.print(_NOT_THE_BOT[found.owner], style="yellow")
    _print_errors(found.jobs)
    for said in found.messages:
        what = f"{said.direction.lower():9} {said.status:10} {said.id}"
        ours = said.synthetic and said.direction == "OUTBOUND"
        console.print(f"{what} (said by the system)" if ours else what, style="dim", soft_wrap=True)
    if paused is None:
        console.print("Redis is away: whether a queue is paused is not known", style="dim")


async def _paused(app: App, found: Timeline) -> list[str] | None:
    """Which of the queues that jobs wait in are paused; None where Redis cannot be asked."""
    queues = sorted({job.queue for job in found.jobs if job.state == "WAITING"})
    try:
        return [queue for queue in queues if (await app.broker.counts(queue)).is_paused]
    except BrokerUnavailable:
        return None


def stages(seen: Timeline, paused: Collection[str] = ()) -> Table:
    """The jobs of a trace as people like to read them: "waited" is all the time before the last run began."""
    table = Table("stage", "state", "waited", "ran", "tries", "why", box=None, header_style="bold", pad_edge=False)
    for job in seen.jobs:
        held_s = sum(wait.seconds for wait in job.waits)
        if job.state == "WAITING" and job.wait_since is not None:
            held_s += max(0.0, (datetime.now(UTC) - job.wait_since).total_seconds())
        table.add_row(
            job.queue,
            Text(job.state, style=_STYLES[job.state]),
            seconds(job.wait_s + held_s),
            seconds(job.run_s),
            str(job.attempts + 1) if job.state == "DONE" else str(job.attempts),
            "; ".join(_whys(job, seen, paused)),
        )
    return table


def _whys(job: TimelineJob, seen: Timeline, paused: Collection[str]) -> list[str]:
    whys = []
    if job.state == "DEAD":
        whys.append(f"given up: {job.reason}{_fallback(job, seen)}")
    if job.state == "WAITING" and job.queue in paused:
        whys.append(f"the queue is paused (replyline queues resume {job.queue})")
    if job.state == "WAITING" and job.wait_reason:
        whys.append(f"{_WORDS.get(job.wait_reason, job.wait_reason)}{_until(job.run_at)}")
    whys += [f"{_WORDS.get(wait.reason, wait.reason)}: {seconds(wait.seconds)}" for wait in job.waits if wait.seconds]
    if job.errors and job.state != "DEAD":
        whys.append(job.errors[-1].message[:_MOST_WHY_CHARS])
    return whys


def _fallback(job: TimelineJob, seen: Timeline) -> str:
    said = any(message.synthetic and message.direction == "OUTBOUND" for message in seen.messages)
    return "; the fallback text was said instead" if job.queue == "ai-processing" and said else ""


def _answered(seen: Timeline) -> bool:
    return any(message.direction == "OUTBOUND" for message in seen.messages)


def _until(moment: datetime | None) -> str:
    return f", until {moment:%H:%M:%S} UTC" if moment else ""


def _print_errors(jobs: Sequence[TimelineJob]) -> None:
    for job in jobs:
        for error in job.errors:
            console.print(f"\n{job.queue}, try {error.attempt}, {error.at}, {error.worker}", style="bold")
            console.print(Text(f"{error.reason}: {error.message}", style="red"))
