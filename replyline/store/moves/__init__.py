"""The pipeline's writes, all of them: each move is one transaction over the rows that concurrent jobs bring together.

accept (door) → receive (incoming-messages) → answer (ai-processing) → route (outgoing-messages)
→ claim (a send is about to begin) → settle (its outcome);
record (a webhook attempt), apply_status (a channel's report), put_off (a setback), hold (a channel is down),
give_up (a dead letter).
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from replyline.store.database import Connection, Database
from replyline.store.group_commit import GroupCommit
from replyline.store.moves.accept import Accept, Accepted, accept, lane_key
from replyline.store.moves.answer import Answer, Answered, answer
from replyline.store.moves.claim import Claim, Outbound, claim
from replyline.store.moves.give_up import GivenUp, give_up
from replyline.store.moves.health import Held, Hold, hold
from replyline.store.moves.inbound_lane import Receive
from replyline.store.moves.receive import Received, receive
from replyline.store.moves.record import Attempt, record
from replyline.store.moves.route import Route, route
from replyline.store.moves.setbacks import Setback, put_off
from replyline.store.moves.settle import Settle, settle
from replyline.store.moves.statuses import ReportedStatus, apply_statuses
from replyline.store.outbox import Outbox

Row = TypeVar("Row")
Result = TypeVar("Result")
Publish = Callable[[Outbox], None]


class Moves:
    """Every move, group-committed; what a move enqueues is handed to `publish` after its commit."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database = database
        self._publish = publish
        self.accept: GroupCommit[Accept, Accepted] = self._shared(accept, lambda row: lane_key(row.job))
        self.receive: GroupCommit[Receive, Received] = self._shared(
            receive, lambda row: lane_key(row.job), lambda row: row.run.job_id
        )
        self.answer: GroupCommit[Answer, Answered] = self._shared(
            answer, lambda row: row.conversation_id, lambda row: row.run.job_id
        )
        self.route: GroupCommit[Route, bool] = self._shared(
            route, lambda row: row.conversation_id, lambda row: row.run.job_id
        )
        self.claim: GroupCommit[Claim, Outbound | None] = GroupCommit(
            claim,
            within=database.hot_connection,
            limit=database.limit,
            key=lambda row: row.run.job_id,
            identity=lambda row: row.run.job_id,
            publish=publish,
        )
        self.settle: GroupCommit[Settle, bool] = self._shared(
            settle, lambda row: row.conversation_id, lambda row: row.run.job_id
        )
        self.record: GroupCommit[Attempt, bool] = self._shared(
            record, lambda row: row.run.job_id, lambda row: row.run.job_id
        )
        self.apply_status: GroupCommit[ReportedStatus, bool] = self._shared(
            apply_statuses, lambda row: row.update.external_id
        )
        self.put_off: GroupCommit[Setback, bool] = self._shared(put_off, lambda row: row.job_id, lambda row: row.job_id)
        self.hold: GroupCommit[Hold, Held] = self._shared(hold, lambda row: row.run.job_id, lambda row: row.run.job_id)
        self.give_up: GroupCommit[GivenUp, bool] = self._shared(
            give_up, lambda row: row.consequence.conversation_id or row.run.job_id, lambda row: row.run.job_id
        )

    def _shared(
        self,
        move: Callable[[Connection, Sequence[Row], Outbox], Awaitable[Sequence[Result]]],
        key: Callable[[Row], Hashable],
        identity: Callable[[Row], Hashable] | None = None,
    ) -> GroupCommit[Row, Result]:
        return GroupCommit(
            move,
            within=self._database.hot_transaction,
            limit=self._database.limit,
            key=key,
            identity=identity,
            publish=self._publish,
        )
