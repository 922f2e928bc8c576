"""Looking at the queues and at what was given up: queues, dead-letters, redis-cli."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, TypeVar

import msgspec
import typer

from replyline import logs
from replyline.app import App
from replyline.broker import Broker, CommandRefused
from replyline.cli.opening import open_here, run
from replyline.cli.output import console, print_json, print_record, print_rows, seconds
from replyline.cli.running import CommandFailed, Exit, settings_here
from replyline.jobs import DEAD_LETTER, QUEUE_NAMES
from replyline.settings import Settings
from replyline.store import dead_letters as records
from replyline.store.moves.dead_letters import NotReplayable
from replyline.store.rates import read_rates

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
OfCustomer = Annotated[uuid.UUID | None, typer.Option("--customer", help="Only this customer's.")]

dead_letters = typer.Typer(no_args_is_help=True, help="Jobs that were given up: look, run again, delete.")
Result = TypeVar("Result")

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


def queues(as_json: AsJson = False) -> None:
    """Show each queue: how many jobs are in each state, the oldest that could run, and the last minute's rate and times."""
    rows = run(_queue_rows())
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


async def _queue_rows() -> list[_QueueRow]:
    async with open_here() as app:
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


@dead_letters.command("list")
def list_(
    queue: Annotated[str | None, typer.Option(help="Only of this queue.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason.")] = None,
    customer: OfCustomer = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""

    async def find(app: App) -> list[dict[str, object]]:
        found = await records.list_page(app.database, customer_id=customer, queue=queue, reason=reason, limit=limit)
        return [asdict(dead) for dead in found]

    rows = run(_with_app(find))
    columns = ("id", "queue", "reason", "attempts", "finished_at", "customer_id")
    print_rows(rows, columns, as_json=as_json, empty="no dead letters")


@dead_letters.command()
def show(job: uuid.UUID, customer: OfCustomer = None, as_json: AsJson = False) -> None:
    """Show one dead letter: payload, reason and every error of its tries."""

    async def find(app: App) -> dict[str, object]:
        dead = await records.get(app.database, job, customer_id=customer)
        if dead is None:
            raise CommandFailed(f"there is no dead letter {job}", Exit.NOT_FOUND)
        return asdict(dead)

    print_record(run(_with_app(find)), as_json=as_json)


@dead_letters.command()
def replay(
    job: Annotated[list[uuid.UUID] | None, typer.Argument(help="Ids, as `list` shows them.")] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All that --queue, --reason and --customer select.")] = False,
    queue: Annotated[str | None, typer.Option(help="With --all: only of this queue.")] = None,
    reason: Annotated[str | None, typer.Option(help="With --all: only with this reason.")] = None,
    customer: OfCustomer = None,
    as_json: AsJson = False,
) -> None:
    """Run dead letters again, as the same jobs with no attempts used; a conversation's order is kept."""
    _for_each("replayed", App.replay, job, all_=all_, queue=queue, reason=reason, customer=customer, as_json=as_json)


@dead_letters.command()
def discard(
    job: Annotated[list[uuid.UUID] | None, typer.Argument(help="Ids, as `list` shows them.")] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All that --queue, --reason and --customer select.")] = False,
    queue: Annotated[str | None, typer.Option(help="With --all: only of this queue.")] = None,
    reason: Annotated[str | None, typer.Option(help="With --all: only with this reason.")] = None,
    customer: OfCustomer = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good."""
    _for_each("discarded", App.discard, job, all_=all_, queue=queue, reason=reason, customer=customer, as_json=as_json)


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
            typer.echo(f"{indent}{reply.decode(errors='replace')}")
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
            typer.echo(f"{indent}(error) {reply}")
        case _:
            typer.echo(f"{indent}{reply}")


Act = Callable[..., Awaitable[object]]


def _for_each(
    done: str,
    act: Act,
    jobs: list[uuid.UUID] | None,
    *,
    all_: bool,
    queue: str | None,
    reason: str | None,
    customer: uuid.UUID | None,
    as_json: bool,
) -> None:
    """One after the other, oldest first, so that a conversation's messages rejoin its lane in their order."""
    if bool(jobs) == all_:
        raise CommandFailed("name dead letters by id, or say --all", Exit.WRONG_CALL)
    if not all_ and (queue or reason):
        raise CommandFailed("--queue and --reason go with --all", Exit.WRONG_CALL)

    async def each(app: App) -> list[dict[str, object]]:
        ids = (
            sorted(jobs) if jobs else await records.ids(app.database, customer_id=customer, queue=queue, reason=reason)
        )
        results: list[dict[str, object]] = []
        for job_id in ids:
            try:
                await act(app, job_id, customer_id=customer)
            except NotReplayable as error:
                results.append({"id": job_id, "result": "refused", "error": str(error)})
            else:
                results.append({"id": job_id, "result": done, "error": None})
        return results

    results = run(_with_app(each))
    print_rows(results, ("id", "result", "error"), as_json=as_json, empty="no dead letters fit")
    if any(result["error"] for result in results):
        raise typer.Exit(Exit.FAILED)


async def _with_app(work: Callable[[App], Awaitable[Result]]) -> Result:
    async with open_here() as app:
        return await work(app)
