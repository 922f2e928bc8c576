"""What the inbound lane costs: no statement more for an ordinary message, and no more rows read however much waits."""

import re
from collections.abc import Sequence

import pytest

from replyline.store.database import Connection, Database
from replyline.store.moves.accept import accept
from replyline.store.moves.inbound_lane import Receive, free_lanes, go_on
from replyline.store.moves.receive import receive
from replyline.store.outbox import Outbox
from tests.explained import explained
from tests.store.scene import Scene, make_scene, run_of

_WAITING = 50_000
_MOST_BUFFERS = 150
"""An index is three or four pages deep here; reading what waits is thousands."""


async def _let_wait(connection: Connection, scene: Scene, *, lane: str | None) -> None:
    """Many waiting messages that no statistics know of: each of another sender, or all of one."""
    await connection.execute("ANALYZE jobs")
    await connection.execute(
        "INSERT INTO jobs (id, queue, name, payload, customer_id, trace_id, lane_key, priority, message_id, run_at) "
        "SELECT gen_random_uuid(), 'incoming-messages', 'process-message', '{}', $1, gen_random_uuid(), "
        "       coalesce($3, 'lane-' || n), 5, gen_random_uuid(), CASE WHEN $3 IS NULL THEN now() ELSE 'infinity' END "
        "FROM generate_series(1, $2::int) AS n",
        scene.customer.id,
        _WAITING,
        lane,
    )


@pytest.mark.parametrize("one_lane", [False, True])
async def test_no_statement_reads_what_waits_whatever_the_statistics_say(database: Database, one_lane: bool) -> None:
    scene = await make_scene(database)
    await scene.hear("first")
    lane = f"{scene.channel.id}:ana" if one_lane else None
    async with database.connection() as connection:
        await _let_wait(connection, scene, lane=lane)
    rows = [scene.row(f"m{number}", sender="zoe") for number in range(3)]
    async with database.hot_connection() as connection, explained(connection) as seen:
        async with connection.transaction():
            accepted = await accept(connection, rows, Outbox())
            if one_lane:
                await accept(connection, [scene.row("of the flood", sender="ana")], Outbox())
        async with connection.transaction():
            await receive(connection, [Receive(run_of(accepted[0].job_id), rows[0].job)], Outbox())
        async with connection.transaction():
            await go_on(connection, [lane or "lane-7"], Outbox())
            await free_lanes(connection, Outbox())
    of_jobs = [(query, pages) for query, pages in seen if re.search(r"\bjobs\b", query)]
    assert len(of_jobs) >= 5
    assert [(query, pages) for query, pages in of_jobs if pages > _MOST_BUFFERS] == []


async def test_an_ordinary_message_takes_no_more_statements_than_it_did(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("so that contact and conversation are known")
    row = scene.row("hello")
    async with database.hot_connection() as connection:  # that has read the types already
        async with connection.transaction():
            with _counted(connection) as queries:
                (accepted,) = await accept(connection, [row], Outbox())
        assert len(queries) == 1
        async with connection.transaction():
            with _counted(connection) as queries:
                await receive(connection, [Receive(run_of(accepted.job_id), row.job)], Outbox())
    # lane, place, conversation, message, turn, conversation, usage, endpoints: eight before there was a lane as well
    assert len(queries) == 8


class _counted:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queries: list[str] = []

    def __enter__(self) -> Sequence[str]:
        self._connection.add_query_logger(self._note)
        return self._queries

    def __exit__(self, *_: object) -> None:
        self._connection.remove_query_logger(self._note)

    def _note(self, record: object) -> None:
        self._queries.append(str(record))
