"""The commands of queues: how full each is and how fast it goes, and letting one stand still."""

from typing import Annotated

import msgspec
import typer

from replyline.app import App
from replyline.cli.output import console, print_json, print_rows, seconds
from replyline.cli.records import AsJson, do
from replyline.cli.running import CommandFailed, Exit
from replyline.jobs import DEAD_LETTER, QUEUE_NAMES
from replyline.store.rates import read_rates

queues = typer.Typer(help="The queues: counts, oldest job, rates; pause and resume one.")
OneQueue = Annotated[str, typer.Argument(help="Its name.", metavar="QUEUE", autocompletion=lambda: list(QUEUE_NAMES))]

_WINDOW_S = 60.0


class _QueueRow(msgspec.Struct):
    queue: str
    waiting: int
    delayed: int
    active: int
    completed: int
    failed: int
    paused: bool
    oldest_s: float | None
    done_last_minute: int
    average_run_s: float | None
    average_wait_s: float | None


@queues.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show each queue: how many jobs are in each state, the oldest that could run, and the last minute's rate and times."""
    if context.invoked_subcommand is not None:
        return
    rows = do(_queue_rows)
    if as_json:
        print_json(msgspec.to_builtins(rows))
        return
    shown = [
        {
            **msgspec.to_builtins(row),
            "queue": f"{row.queue} (paused)" if row.paused else row.queue,
            "oldest": seconds(row.oldest_s),
            "per_min": row.done_last_minute,
            "run": seconds(row.average_run_s),
            "wait": seconds(row.average_wait_s),
        }
        for row in rows
    ]
    columns = ("queue", "waiting", "delayed", "active", "completed", "failed", "oldest", "per_min", "wait", "run")
    print_rows(shown, columns, as_json=False, empty="no queues")
    console.print(
        "waiting = BullMQ's lists wait and prioritized: LLEN …:wait alone reads 0, because every job has a priority",
        style="dim",
    )


@queues.command()
def pause(queue: OneQueue) -> None:
    """Let no worker take jobs of a queue; what runs, runs on, and nothing is lost."""
    check_queue(queue)
    do(lambda app: app.broker.pause(queue))
    console.print(f"{queue} is paused; replyline queues resume {queue} lets it go on", style="dim")


@queues.command()
def resume(queue: OneQueue) -> None:
    """Let a paused queue go on."""
    check_queue(queue)
    do(lambda app: app.broker.resume(queue))
    console.print(f"{queue} goes on", style="dim")


def check_queue(name: str) -> None:
    """Raises CommandFailed, with the names that there are, where no queue has this one."""
    if name not in QUEUE_NAMES:
        raise CommandFailed(f"no such queue: {name}; the queues are {', '.join(QUEUE_NAMES)}", Exit.WRONG_CALL)


async def _queue_rows(app: App) -> list[_QueueRow]:
    rates = {rate.queue: rate for rate in await read_rates(app.database, window_s=_WINDOW_S)}
    rows = []
    for queue in (*QUEUE_NAMES, DEAD_LETTER):
        counts = await app.broker.counts(queue)
        oldest = await app.broker.oldest_waiting_ms(queue)
        rate = rates.get(queue)
        rows.append(
            _QueueRow(
                queue=queue,
                waiting=counts.waiting + counts.prioritized,
                delayed=counts.delayed,
                active=counts.active,
                completed=counts.completed,
                failed=counts.failed,
                paused=counts.is_paused,
                oldest_s=None
                if oldest is None or queue == DEAD_LETTER
                else max(0, app.broker.now_ms() - oldest) / 1000,
                done_last_minute=rate.done if rate else 0,
                average_run_s=rate.average_run_s if rate else None,
                average_wait_s=rate.average_wait_s if rate else None,
            )
        )
    return rows
