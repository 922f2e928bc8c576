"""The hot path's reads: what concurrent jobs ask for in the same moment is asked once."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from replyline.store.conversation_log import LogEntry, LogPlace, read_logs
from replyline.store.database import Connection, Database
from replyline.store.deliveries import Delivery, read_deliveries
from replyline.store.group_commit import GroupCommit
from replyline.store.job_rows import JobRow, read_jobs
from replyline.store.moves.setbacks import Standing, standings
from replyline.store.outbox import Outbox
from replyline.store.turns import OpenTurn, Turn, open_turns

Row = TypeVar("Row")
Result = TypeVar("Result")


class Reads:
    """Every batched read. Each row is its own key: reads need no order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.job: GroupCommit[uuid.UUID, JobRow | None] = self._shared(read_jobs)
        self.open_turn: GroupCommit[OpenTurn, Turn | None] = self._shared(open_turns)
        self.delivery: GroupCommit[tuple[uuid.UUID, uuid.UUID], Delivery | None] = self._shared(read_deliveries)
        self.standing: GroupCommit[uuid.UUID, Standing | None] = self._shared(standings)
        self.log: GroupCommit[LogPlace, Sequence[LogEntry]] = self._shared(read_logs)

    def _shared(
        self, read: Callable[[Connection, Sequence[Row], Outbox], Awaitable[Sequence[Result]]]
    ) -> GroupCommit[Row, Result]:
        return GroupCommit(
            read,
            within=self._database.hot_connection,
            limit=self._database.limit,
            key=lambda _row: object(),
            publish=_nothing_to_publish,
        )


def _nothing_to_publish(outbox: Outbox) -> None:
    raise RuntimeError(f"a read must not enqueue jobs, but {len(outbox.jobs)} came out of one")
