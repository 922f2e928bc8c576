"""A customer with a chatbot and a channel, and the moves made on it one after the other, without a queue in between."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import asyncpg
import msgspec

from replyline.ids import new_id
from replyline.jobs import ANY_JOB, ChannelKind, IncomingMessageJob, decode
from replyline.statuses import DeliveryStatus, StatusUpdate
from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot
from replyline.store.customers import Customer
from replyline.store.database import Database
from replyline.store.moves import Moves
from replyline.store.moves.accept import Accept, Accepted
from replyline.store.moves.answer import AiUse, Answer, Answered
from replyline.store.moves.give_up import Consequence, GivenUp
from replyline.store.moves.health import Unhealthy, heal, mark_unhealthy
from replyline.store.moves.inbound_lane import Receive
from replyline.store.moves.receive import Received
from replyline.store.moves.route import Route
from replyline.store.moves.setbacks import Failure
from replyline.store.moves.settle import Outcome, Settle
from replyline.store.moves.statuses import ReportedStatus
from replyline.store.moves.work import Run
from replyline.store.outbox import NewJob, Outbox
from replyline.store.reads import Reads
from replyline.store.turns import OpenTurn, Turn
from tests.make import make_channel, make_chatbot, make_customer

JobState = Literal["WAITING", "DONE", "DEAD"]


def run_of(job_id: uuid.UUID) -> Run:
    """A run of the job by a worker of the test."""
    return Run(job_id, datetime.now(UTC), "test-worker")


def failure(message: str = "it broke") -> Failure:
    """One failed try."""
    return Failure(
        at=datetime.now(UTC).isoformat(),
        attempt=1,
        worker="test-worker",
        reason="broken",
        message=message,
        stack="stack",
    )


class Scene:
    """What a test moves and looks at."""

    def __init__(self, database: Database, customer: Customer, chatbot: Chatbot, channel: Channel) -> None:
        self.database = database
        self.customer = customer
        self.chatbot = chatbot
        self.channel = channel
        self.published: list[NewJob] = []
        self.grown: list[uuid.UUID] = []
        self.moves = Moves(database, self.published_by)
        self.reads = Reads(database)

    def published_by(self, outbox: Outbox) -> None:
        """What a move of another process would publish."""
        self.published.extend(outbox.jobs)
        self.grown.extend(outbox.grown)

    async def fetch(self, query: str, *values: object) -> Sequence[asyncpg.Record]:
        """Rows as they are in Postgres."""
        async with self.database.connection() as connection:
            return await connection.fetch(query, *values)

    async def value(self, query: str, *values: object) -> object:
        """One value as it is in Postgres."""
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *values)

    async def accept(
        self, text: str, *, sender: str = "ana", external_id: str | None = None, **more: object
    ) -> Accepted:
        """A message at the door; `more` are other fields of its job."""
        return await self.moves.accept(self.row(text, sender=sender, external_id=external_id, **more))

    def row(self, text: str, *, sender: str = "ana", external_id: str | None = None, **more: object) -> Accept:
        """What the door hands to the move `accept`."""
        job = IncomingMessageJob(
            customer_id=self.customer.id,
            trace_id=new_id(),
            message_id=new_id(),
            chatbot_id=self.chatbot.id,
            channel_id=self.channel.id,
            channel=self.channel.kind,
            external_user_id=sender,
            content=text,
            external_message_id=external_id,
        )
        job = msgspec.structs.replace(job, **more)
        key = f"{self.channel.id}:{external_id}" if external_id else None
        return Accept(job, self.customer.priority, key)

    async def job(self, job_id: uuid.UUID) -> ANY_JOB:
        """The payload of a job row."""
        (row,) = await self.fetch("SELECT queue, payload::text AS payload FROM all_jobs WHERE id = $1", job_id)
        return decode(row["queue"], row["payload"].encode())

    async def receive(self, accepted: Accepted) -> Received:
        """Save an accepted message."""
        job = await self.job(accepted.job_id)
        assert isinstance(job, IncomingMessageJob)
        return await self.moves.receive(Receive(run_of(accepted.job_id), job))

    async def hear(
        self, text: str, *, sender: str = "ana", external_id: str | None = None, **more: object
    ) -> uuid.UUID:
        """Accept and save a message; its id."""
        accepted = await self.accept(text, sender=sender, external_id=external_id, **more)
        assert await self.receive(accepted) is Received.SAVED
        return accepted.message_id

    async def waiting(self, queue: str) -> list[uuid.UUID]:
        """The waiting jobs of a queue, oldest first."""
        rows = await self.fetch("SELECT id FROM all_jobs WHERE queue = $1 AND state = 'WAITING' ORDER BY id", queue)
        return [row["id"] for row in rows]

    async def open_turn(self) -> tuple[uuid.UUID, Turn]:
        """The one waiting turn."""
        (job_id,) = await self.waiting("ai-processing")
        job = await self.job(job_id)
        turn = await self.reads.open_turn(OpenTurn(job_id, job))  # type: ignore[arg-type]  # its queue says so
        assert turn is not None
        return job_id, turn

    async def answer(self, job_id: uuid.UUID, turn: Turn, *texts: str) -> Answered:
        """Commit an answer to a turn as it was opened; without texts, that there was nothing to say."""
        job = await self.job(job_id)
        use = AiUse("test", "test-1", 5, 10, 20, 0, None) if texts else None
        return await self.moves.answer(
            Answer(
                run=run_of(job_id),
                job=job,  # type: ignore[arg-type]  # its queue says so
                conversation_id=turn.conversation_id,
                owner_epoch=turn.owner_epoch,
                after_seq=turn.after_seq,
                through_seq=turn.through_seq,
                amendments=turn.amendments,
                texts=texts,
                use=use,
            )
        )

    async def say(self, question: str, text: str) -> None:
        """Hear a question and commit its answer."""
        await self.hear(question)
        job_id, turn = await self.open_turn()
        assert await self.answer(job_id, turn, text) is Answered.COMMITTED

    async def route(self) -> bool:
        """Route the one message that may leave."""
        (job_id,) = await self.waiting("outgoing-messages")
        job = await self.job(job_id)
        assert job.conversation_id is not None
        assert job.message_id is not None
        return await self.moves.route(Route(run_of(job_id), job, job.conversation_id, job.message_id))  # type: ignore[arg-type]

    async def send(
        self, external_id: str | None, queue: str = "whatsapp-cloud-send", *, outcome: Outcome = "sent"
    ) -> bool:
        """Settle the one send."""
        (job_id,) = await self.waiting(queue)
        job = await self.job(job_id)
        assert job.conversation_id is not None
        assert job.message_id is not None
        return await self.moves.settle(
            Settle(run_of(job_id), job.conversation_id, job.message_id, external_id, outcome=outcome)
        )

    async def report(self, external_id: str, status: DeliveryStatus, **more: object) -> bool:
        """The channel says how far a message has come."""
        update = replace(StatusUpdate(external_id, status, datetime.now(UTC)), **more)  # type: ignore[arg-type]
        return await self.moves.apply_status(ReportedStatus(self.channel.id, self.customer.id, update))

    async def fail_send(self, queue: str = "whatsapp-cloud-send") -> uuid.UUID:
        """Give the one send up; its job."""
        (job_id,) = await self.waiting(queue)
        job = await self.job(job_id)
        consequence = Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)
        assert await self.moves.give_up(GivenUp(run_of(job_id), "undeliverable", failure(), consequence))
        return job_id

    async def fall_ill(self, reason: str, *, probe_after_s: float = 60) -> bool:
        """The channel cannot send."""
        outbox = Outbox()
        sick = Unhealthy(self.channel.id, self.customer.id, reason, f"because of {reason}", probe_after_s)
        async with self.database.transaction() as connection:
            return await mark_unhealthy(connection, sick, outbox)

    async def get_well(self) -> list[NewJob]:
        """The channel can send again; what is published then."""
        outbox = Outbox()
        async with self.database.transaction() as connection:
            assert await heal(connection, self.channel.id, customer_id=self.customer.id, outbox=outbox)
        return outbox.jobs

    async def outbound(self) -> list[tuple[str, str]]:
        """Our messages as (content, status), in their order."""
        rows = await self.fetch("SELECT content, status FROM messages WHERE direction = 'OUTBOUND' ORDER BY seq")
        return [(row["content"], row["status"]) for row in rows]


async def make_scene(database: Database, kind: ChannelKind = "WHATSAPP_CLOUD", *, quiet_window_s: float = 0) -> Scene:
    """A customer, a chatbot without a quiet window, and a channel of that kind."""
    customer = await make_customer(database, monthly_price=60)
    chatbot = await make_chatbot(database, customer.id, quiet_window_s=quiet_window_s)
    return Scene(database, customer, chatbot, await make_channel(database, chatbot, kind))
