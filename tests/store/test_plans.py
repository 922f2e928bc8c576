"""The statements of the hot path read what their keys name, however much waits; and the checks of that can fail."""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from replyline.ids import new_id
from replyline.jobs import decode
from replyline.statuses import StatusUpdate
from replyline.store.conversation_log import LogPlace
from replyline.store.database import Connection, Database
from replyline.store.moves.answer import AiUse, Answer, Answered
from replyline.store.moves.claim import Claim
from replyline.store.moves.give_up import Consequence, GivenUp
from replyline.store.moves.health import Hold
from replyline.store.moves.record import Attempt
from replyline.store.moves.route import Route
from replyline.store.moves.setbacks import Setback
from replyline.store.moves.settle import Settle
from replyline.store.moves.statuses import ReportedStatus
from replyline.store.outbox import NewJob
from replyline.store.turns import OpenTurn
from tests.explained import explained
from tests.make import make_webhook_endpoint
from tests.store.plans import Plans
from tests.store.scene import Scene, failure, make_scene, run_of

_MORE_PAGES = 60
"""An index of what waits here is one or two levels deeper, for each of the few rows of a batch; reading all is hundreds."""


class _Explaining(Database):
    """A database that notes how many pages each statement of the hot path reads."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=8)
        self.pages: dict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def hot_connection(self) -> AsyncIterator[Connection]:
        """See there."""
        async with super().hot_connection() as connection, self._noting(connection):
            yield connection

    @asynccontextmanager
    async def hot_transaction(self) -> AsyncIterator[Connection]:
        """See there."""
        async with super().hot_transaction() as connection, self._noting(connection):
            yield connection

    @asynccontextmanager
    async def _noting(self, connection: Connection) -> AsyncIterator[None]:
        async with explained(connection) as seen:
            yield
        for statement, pages in seen:
            self.pages[statement] = max(self.pages[statement], pages)


class _Life:
    """Messages of new and known people, from the door to their webhook events, by every move and batched read."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def live(self) -> None:
        """Live it once."""
        await self._answered("new")
        await self._answered("new")
        job = await self._to_its_send("held")
        await self._scene.moves.hold(Hold(run_of(job.id), self._scene.channel.id, "token_expired"))
        job = await self._to_its_send("unlucky")
        await self._scene.moves.put_off(Setback(job.id, 5, "retry", failure(), None))
        await self._scene.reads.standing(job.id)
        send = decode(job.queue, job.payload)
        consequence = Consequence(conversation_id=send.conversation_id, failed_message_id=send.message_id)
        assert await self._scene.moves.give_up(GivenUp(run_of(job.id), "undeliverable", failure(), consequence))

    async def _answered(self, sender: str) -> None:
        scene = self._scene
        job = await self._to_its_send(sender)
        send, run = decode(job.queue, job.payload), run_of(job.id)
        assert send.conversation_id is not None
        assert send.message_id is not None
        assert (claimed := await scene.moves.claim(Claim(run, repeat_is_safe=False))) is not None
        assert claimed.claimed
        external_id = f"wamid.{new_id()}"
        assert await scene.moves.settle(Settle(run, send.conversation_id, send.message_id, external_id))
        event = scene.published[-1]
        update = StatusUpdate(external_id, "READ", datetime.now(UTC))
        assert await scene.moves.apply_status(ReportedStatus(scene.channel.id, scene.customer.id, update))
        await scene.reads.log(LogPlace(send.conversation_id, scene.customer.id, 0, 50))
        await self._deliver(event)

    async def _deliver(self, event: NewJob) -> None:
        scene = self._scene
        assert event.queue == "webhook-delivery"
        event_id = uuid.UUID(str(decode(event.queue, event.payload).event_id))  # type: ignore[union-attr]  # its queue says so
        assert await scene.reads.delivery((event.id, event_id)) is not None
        attempt = Attempt(run_of(event.id), event_id, scene.customer.id, datetime.now(UTC), 5, 200, None, None)
        assert await scene.moves.record(attempt)

    async def _to_its_send(self, sender: str) -> NewJob:
        """A message that is heard, answered and routed; its send job."""
        scene = self._scene
        await scene.hear("hello", sender=f"{sender}-of-this-test", external_id=f"in-{new_id()}")
        turn_job = self._published("ai-processing")
        assert (row := await scene.reads.job(turn_job.id)) is not None
        assert row.state == "WAITING"
        payload = decode(turn_job.queue, turn_job.payload)
        turn = await scene.reads.open_turn(OpenTurn(turn_job.id, payload))  # type: ignore[arg-type]  # its queue says so
        assert turn is not None
        answered = await scene.moves.answer(
            Answer(
                run=run_of(turn_job.id),
                job=payload,  # type: ignore[arg-type]  # its queue says so
                conversation_id=turn.conversation_id,
                owner_epoch=turn.owner_epoch,
                after_seq=turn.after_seq,
                through_seq=turn.through_seq,
                amendments=turn.amendments,
                texts=("well",),
                use=AiUse("test", "test-1", 5, 10, 20, 0, None),
            )
        )
        assert answered is Answered.COMMITTED
        outgoing = self._published("outgoing-messages")
        job = decode(outgoing.queue, outgoing.payload)
        assert job.conversation_id is not None
        assert job.message_id is not None
        assert await scene.moves.route(Route(run_of(outgoing.id), job, job.conversation_id, job.message_id))  # type: ignore[arg-type]
        return self._published("whatsapp-cloud-send")

    def _published(self, queue: str) -> NewJob:
        return next(job for job in reversed(self._scene.published) if job.queue == queue)


async def _pages(url: str, scene: Scene | None = None) -> dict[str, int]:
    """The most pages that each statement of a life reads; in a scene of its own, or where much waits."""
    database = _Explaining(url)
    await database.open()
    try:
        here = Scene(database, scene.customer, scene.chatbot, scene.channel) if scene else await make_scene(database)
        if scene is None:
            await make_webhook_endpoint(database, here.customer.id)
        await _Life(here).live()
        return database.pages
    finally:
        await database.close()


async def test_pages_read_do_not_grow_with_what_waits(database_url: str, plans: Plans) -> None:
    alone = await _pages(database_url)
    beside = await _pages(*await plans.where_much_waits())
    assert len(alone) > 30
    assert beside.keys() == alone.keys()
    grown = {
        statement: (alone[statement], pages)
        for statement, pages in beside.items()
        if pages > alone[statement] + _MORE_PAGES
    }
    assert grown == {}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM jobs WHERE queue = $1",
        "SELECT * FROM messages m JOIN unnest($1::text[]) AS r (status) ON m.status = r.status",
        "UPDATE conversations SET reply_to = $1 WHERE channel_id = $2",
        "SELECT v.id, EXISTS (SELECT 1 FROM messages m WHERE m.content = v.reply_to) FROM conversations v WHERE v.id = $1",
    ],
)
async def test_a_statement_without_a_bound_is_found(plans: Plans, statement: str) -> None:
    assert await plans.unbounded({statement}) != []


async def test_a_statement_that_looks_rows_up_is_not(plans: Plans) -> None:
    assert await plans.unbounded({"SELECT * FROM jobs j JOIN unnest($1::uuid[]) AS r (id) ON j.id = r.id"}) == []
