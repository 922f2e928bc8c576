"""The commands of what was given up: list, show, run again, delete."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated

import typer

from replyline.app import App
from replyline.cli.output import print_record, print_rows
from replyline.cli.queues import check_queue
from replyline.cli.records import AsJson, Sure, ask, do, group
from replyline.cli.running import CommandFailed, Exit
from replyline.store import dead_letters as records
from replyline.store.moves.dead_letters import NotReplayable

OfCustomer = Annotated[uuid.UUID | None, typer.Option("--customer", help="Only this customer's.", metavar="ID")]

dead_letters = group("dead-letters", "Jobs that were given up: look, run again, delete.")


@dead_letters.command("list")
def list_(
    queue: Annotated[str | None, typer.Option(help="Only of this queue.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason.")] = None,
    customer: OfCustomer = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    _check(queue)

    async def find(app: App) -> list[dict[str, object]]:
        found = await records.list_page(app.database, customer_id=customer, queue=queue, reason=reason, limit=limit)
        return [asdict(dead) for dead in found]

    rows = do(find)
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

    print_record(do(find), as_json=as_json)


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
    yes: Sure = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good; with --all it asks, unless --yes is said."""
    if all_ and not job:
        _check(queue)
        found = do(lambda app: records.ids(app.database, customer_id=customer, queue=queue, reason=reason))
        if found:
            ask(f"Delete {len(found)} dead letter{'s' * (len(found) > 1)} for good?", yes)
    _for_each("discarded", App.discard, job, all_=all_, queue=queue, reason=reason, customer=customer, as_json=as_json)


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
    _check(queue)

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

    results = do(each)
    print_rows(results, ("id", "result", "error"), as_json=as_json, empty="no dead letters fit")
    if any(result["error"] for result in results):
        raise typer.Exit(Exit.FAILED)


def _check(queue: str | None) -> None:
    if queue is not None:
        check_queue(queue)
