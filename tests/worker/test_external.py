"""Queues that an external BullMQ worker does: what it is given, what its results change, and that nothing is done twice by us."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from replyline.app import App, open_app
from replyline.broker import ActiveJob, Completed, Failed, Outcome, Postpone
from replyline.external_results import NotOpen, Result, find_open, hand_over_again, record, report
from replyline.jobs import WHATSAPP_QR_SEND, IncomingMessageJob
from replyline.settings import SettingsError, load
from replyline.store.database import Database
from replyline.store.external import AT_WORK, LOST, WAITS
from replyline.store.timeline import trace
from replyline.worker.external import ExternalWork
from replyline.worker.sweeper import Sweeper
from tests.make import make_channel, make_chatbot, make_customer
from tests.retried import retry
from tests.running import settings_for, working
from tests.waiting import until

_OURS = {"external_queues": WHATSAPP_QR_SEND, "sweep_every_s": 0.2, "sweep_grace_s": 0.5}


class Outside:
    """An external worker that notes what it was given."""

    def __init__(self, decide: Callable[[ActiveJob], Outcome]) -> None:
        self.given: list[ActiveJob] = []
        self._decide = decide

    async def __call__(self, job: ActiveJob) -> Outcome:
        """Do one job."""
        self.given.append(job)
        return self._decide(job)


@asynccontextmanager
async def _outside(app: App, outside: Outside) -> AsyncIterator[None]:
    worker = app.broker.worker(WHATSAPP_QR_SEND, outside, concurrency=5, name="nest")
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.close(1)
        await running


async def _answer(app: App, database: Database) -> None:
    """A conversation with an answer of ours on its way to WhatsApp by QR."""
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    channel = await make_channel(database, chatbot, "WHATSAPP_QR", external_id="session-1")
    await app.accept(
        IncomingMessageJob(
            chatbot_id=chatbot.id,
            external_user_id="4915112345678",
            content="Hi",
            channel="WHATSAPP_QR",
            channel_id=channel.id,
        )
    )
    await until(lambda: _messages(database))


async def _ask_again(app: App, database: Database) -> None:
    async with database.connection() as connection:
        chatbot_id = await connection.fetchval("SELECT id FROM chatbots")
    await app.accept(
        IncomingMessageJob(
            chatbot_id=chatbot_id, external_user_id="4915112345678", content="Hi again", channel="WHATSAPP_QR"
        )
    )


async def _messages(database: Database) -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(
            "SELECT id, status, external_id, error_reason, content, conversation_id FROM messages "
            "WHERE direction = 'OUTBOUND' ORDER BY seq"
        )


async def _jobs(database: Database, state: str = "WAITING") -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(
            "SELECT *, payload::text AS raw, errors::text AS kept FROM all_jobs WHERE queue = $1 AND state = $2 ORDER BY id",
            WHATSAPP_QR_SEND,
            state,
        )


async def _with_status(database: Database, status: str, count: int = 1) -> Sequence[asyncpg.Record]:
    found = [row for row in await _messages(database) if row["status"] == status]
    return found if len(found) == count else []


async def _waits_because(database: Database, reason: str) -> Sequence[asyncpg.Record]:
    return [row for row in await _jobs(database) if row["wait_reason"] == reason]


async def test_the_job_suffices_to_send_and_its_result_settles_the_message(
    database: Database, database_url: str, valkey_url: str
) -> None:
    outside = Outside(lambda _: Completed(b'{"externalId":"3EB0AA"}'))
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app, _outside(app, outside):
        await _answer(app, database)
        (message,) = await until(lambda: _with_status(database, "SENT"))
    data = json.loads(outside.given[0].data)
    assert (data["to"], data["channel"], data["channelExternalId"]) == ("4915112345678", "WHATSAPP_QR", "session-1")
    assert data["messageId"] == str(message["id"])
    assert data["content"]
    assert set(data) == {
        "customerId", "traceId", "conversationId", "messageId", "channel", "channelId", "channelExternalId", "to", "content",
    }  # fmt: skip
    assert message["external_id"] == "3EB0AA"
    (job,) = await _jobs(database, "DONE")
    assert job["worker"] == "external: nest"
    assert len(outside.given) == 1


async def test_a_failure_is_a_dead_letter_and_a_replay_hands_it_over_again(
    database: Database, database_url: str, valkey_url: str
) -> None:
    fates: list[Outcome] = [
        Failed("the number is not on WhatsApp", "Error: the number is not on WhatsApp\n  at send"),
        Completed(b'"3EB0BB"'),
    ]
    outside = Outside(lambda _: fates.pop(0))
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app, _outside(app, outside):
        await _answer(app, database)
        (message,) = await until(lambda: _with_status(database, "FAILED"))
        (dead,) = await _jobs(database, "DEAD")
        assert (dead["reason"], message["error_reason"]) == ("external_failed", "external_failed")
        assert "not on WhatsApp" in dead["kept"]
        await app.replay(dead["id"], customer_id=None)
        (message,) = await until(lambda: _with_status(database, "SENT"))
    assert message["external_id"] == "3EB0BB"
    assert [job.id for job in outside.given] == [f"{dead['id']}-0", f"{dead['id']}-1"]


async def test_a_failed_job_that_is_retried_outside_is_settled_after_all(
    database: Database, database_url: str, valkey_url: str
) -> None:
    fates: list[Outcome] = [Failed("offline"), Completed(b'{"externalId":"3EB0CC"}')]
    outside = Outside(lambda _: fates.pop(0))
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app, _outside(app, outside):
        await _answer(app, database)
        await until(lambda: _with_status(database, "FAILED"))
        (dead,) = await _jobs(database, "DEAD")
        await retry(valkey_url, WHATSAPP_QR_SEND, f"{dead['id']}-0")
        (message,) = await until(lambda: _with_status(database, "SENT"))
    assert message["external_id"] == "3EB0CC"
    assert [job.id for job in outside.given] == [f"{dead['id']}-0"] * 2


async def test_what_is_done_after_all_lets_no_message_overtake_the_one_that_is_leaving(
    database: Database, database_url: str, valkey_url: str
) -> None:
    failing = Outside(lambda _: Failed("offline"))
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app:
        async with _outside(app, failing):
            await _answer(app, database)
            await until(lambda: _with_status(database, "FAILED"))
        (dead,) = await _jobs(database, "DEAD")
        for asked in (2, 3):
            await _ask_again(app, database)
            await until(lambda asked=asked: _are(database, asked))  # type: ignore[misc]
        await until(lambda: _with_status(database, "SENDING"))
        retried = f"{dead['id']}-0"
        await retry(valkey_url, WHATSAPP_QR_SEND, retried)
        later = Outside(lambda job: Completed(b'"3EB0FF"') if job.id == retried else Postpone(600_000))
        async with _outside(app, later):
            await until(lambda: _with_status(database, "SENT"))
        assert [row["status"] for row in await _messages(database)] == ["SENT", "SENDING", "QUEUED"]
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT lane_length FROM conversations") == 2
            assert not await connection.fetchval(
                "SELECT count(*) FROM all_jobs WHERE queue = 'outgoing-messages' AND state = 'WAITING'"
            )


async def test_a_job_that_waits_for_an_earlier_message_is_not_handed_over(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app:
        async with _outside(app, Outside(lambda _: Failed("offline"))):
            await _answer(app, database)
            await until(lambda: _with_status(database, "FAILED"))
        (dead,) = await _jobs(database, "DEAD")
        await _ask_again(app, database)
        await until(lambda: _with_status(database, "SENDING"))
        await app.replay(dead["id"], customer_id=None)
        with pytest.raises(NotOpen, match="waits for an earlier message"):
            await hand_over_again(app, dead["id"])
        assert await app.broker.states(WHATSAPP_QR_SEND, [f"{dead['id']}-1", f"{dead['id']}-2"]) == [None, None]


async def _are(database: Database, count: int) -> bool:
    return len(await _messages(database)) == count


async def test_a_failure_with_text_that_postgres_does_not_keep_ends_its_job_too(
    database: Database, database_url: str, valkey_url: str
) -> None:
    outside = Outside(lambda _: Failed("no\0 such number"))
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app, _outside(app, outside):
        await _answer(app, database)
        await until(lambda: _with_status(database, "FAILED"))
    (dead,) = await _jobs(database, "DEAD")
    assert "no\ufffd such" in json.loads(dead["kept"])[0]["message"]


async def test_what_ended_while_we_were_down_is_settled_at_the_next_start(
    database: Database, database_url: str, valkey_url: str
) -> None:
    settings = settings_for(valkey_url, database_url, **_OURS)
    async with working(settings) as app:
        await _answer(app, database)
        await until(lambda: _jobs(database))
    outside = Outside(lambda _: Completed(b'{"externalId":"3EB0DD"}'))
    async with open_app(settings) as app, _outside(app, outside):
        await until(lambda: bool(outside.given))
        (job,) = await _jobs(database)
        await until(lambda: _is(app, f"{job['id']}-0", "completed"))
        assert (await _messages(database))[0]["status"] == "SENDING"
        await app.broker.command("XTRIM", f"bull:{WHATSAPP_QR_SEND}:events", "MAXLEN", "0")
    async with working(settings):
        (message,) = await until(lambda: _with_status(database, "SENT"))
    assert message["external_id"] == "3EB0DD"
    assert len(outside.given) == 1


async def _is(app: App, job_id: str, state: str) -> bool:
    return await app.broker.states(WHATSAPP_QR_SEND, [job_id]) == [state]


async def test_a_job_in_an_external_workers_hands_is_left_there_and_the_timeline_says_so(
    database: Database, database_url: str, valkey_url: str
) -> None:
    let_go = asyncio.Event()

    async def slowly(_: ActiveJob) -> Outcome:
        await let_go.wait()
        return Completed()

    async with working(settings_for(valkey_url, database_url, **_OURS)) as app:
        await _answer(app, database)
        (job,) = await until(lambda: _waits_because(database, WAITS))
        worker = app.broker.worker(WHATSAPP_QR_SEND, slowly, concurrency=1, name="nest")
        running = asyncio.create_task(worker.run())
        await until(lambda: _waits_because(database, AT_WORK))
        async with database.connection() as connection:
            await connection.execute("UPDATE jobs SET run_at = now() - interval '1 hour' WHERE id = $1", job["id"])
        assert await Sweeper(app).sweep() == 0
        await ExternalWork(app).look()
        shown = await trace(database, job["message_id"], customer_id=job["customer_id"])
        assert shown is not None
        assert [entry.wait_reason for entry in shown.jobs if entry.queue == WHATSAPP_QR_SEND] == [AT_WORK]
        assert await _jobs(database)
        let_go.set()
        await until(lambda: _with_status(database, "SENT"))
        await worker.close(1)
        await running
    assert (await _jobs(database, "DONE"))[0]["generation"] == 0


async def test_a_job_that_was_never_published_is_published_under_its_own_id(
    database: Database, database_url: str, valkey_url: str
) -> None:
    settings = settings_for(valkey_url, database_url, **_OURS)
    async with working(settings) as app:
        await _answer(app, database)
        await until(lambda: _jobs(database))
    async with open_app(settings) as app:
        (job,) = await _jobs(database)
        # As if the process had died between its commit and BullMQ.
        await app.broker.remove(WHATSAPP_QR_SEND, f"{job['id']}-0")
        async with database.connection() as connection:
            await connection.execute("UPDATE jobs SET handed_over_at = NULL WHERE id = $1", job["id"])
        await until(lambda: _due_for(database, 0.6))
        await ExternalWork(app).look()
        await until(lambda: _is(app, f"{job['id']}-0", "prioritized"))
    assert (await _jobs(database))[0]["generation"] == 0


async def _due_for(database: Database, seconds: float) -> bool:
    async with database.connection() as connection:
        return bool(
            await connection.fetchval(
                "SELECT bool_and(run_at < now() - make_interval(secs => $1)) FROM all_jobs WHERE state = 'WAITING'",
                seconds,
            )
        )


@pytest.mark.parametrize("seen", [True, False])
async def test_a_job_that_redis_forgot_is_not_published_again_but_unknown_until_an_operator_acts(
    database: Database, database_url: str, valkey_url: str, *, seen: bool
) -> None:
    settings = settings_for(valkey_url, database_url, **_OURS)
    async with working(settings) as app:
        await _answer(app, database)
        (job,) = await until(lambda: _waits_because(database, WAITS))
    async with open_app(settings) as app:
        if not seen:  # taken and done in the quarter of a second before Redis was emptied
            async with database.connection() as connection:
                await connection.execute("UPDATE jobs SET handed_over_at = NULL WHERE id = $1", job["id"])
        await app.broker.command("FLUSHDB")
        work = ExternalWork(app)

        async def marked() -> Sequence[asyncpg.Record]:
            await work.look()
            return await _waits_because(database, LOST)

        await until(marked)
        assert await _with_status(database, "UNKNOWN")
        assert await Sweeper(app).sweep() == 0
        assert await app.broker.states(WHATSAPP_QR_SEND, [f"{job['id']}-0", f"{job['id']}-1"]) == [None, None]

        await hand_over_again(app, job["id"])
        await until(lambda: _is(app, f"{job['id']}-1", "prioritized"))
        assert await _with_status(database, "SENDING")
        with pytest.raises(NotOpen, match="BullMQ still has"):
            await hand_over_again(app, job["id"])


async def test_a_reported_result_settles_the_job_and_takes_it_from_the_queue(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app:
        await _answer(app, database)
        (job,) = await until(lambda: _jobs(database))
        result = Result("sent", "by hand", job["created_at"], external_id="3EB0EE")
        await report(app, job["id"], result)
        (message,) = await _with_status(database, "SENT")
        assert message["external_id"] == "3EB0EE"
        assert await app.broker.states(WHATSAPP_QR_SEND, [f"{job['id']}-0"]) == [None]
        with pytest.raises(NotOpen):
            await report(app, job["id"], result)


async def _queued(app: App, database: Database) -> asyncpg.Record:
    await _answer(app, database)
    (job,) = await until(lambda: _jobs(database))
    await until(lambda: _is(app, f"{job['id']}-0", "prioritized"))
    return job


async def test_a_job_that_was_settled_while_redis_was_away_is_taken_from_the_queue(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url, **_OURS | {"sweep_every_s": 3600.0})) as app:
        job = await _queued(app, database)
        assert await record(app, await find_open(app, job["id"]), Result("sent", "by hand", job["created_at"]))
        await ExternalWork(app).look()
        assert await app.broker.states(WHATSAPP_QR_SEND, [f"{job['id']}-0"]) == [None]


async def test_a_settled_job_that_is_reported_again_is_taken_from_the_queue(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url, **_OURS | {"sweep_every_s": 3600.0})) as app:
        job = await _queued(app, database)
        result = Result("failed", "by hand", job["created_at"])
        assert await record(app, await find_open(app, job["id"]), result)
        with pytest.raises(NotOpen):
            await report(app, job["id"], result)
        assert await app.broker.states(WHATSAPP_QR_SEND, [f"{job['id']}-0"]) == [None]


async def test_an_id_that_another_message_has_does_not_keep_a_sent_message_open(
    database: Database, database_url: str, valkey_url: str
) -> None:
    outside = Outside(lambda _: Completed(b'"the-same"'))
    async with working(settings_for(valkey_url, database_url, **_OURS)) as app, _outside(app, outside):
        await _answer(app, database)
        (first,) = await until(lambda: _with_status(database, "SENT"))
        await _ask_again(app, database)
        both = await until(lambda: _with_status(database, "SENT", 2))
    assert [row["external_id"] for row in both] == ["the-same", None]
    assert first["conversation_id"] == both[1]["conversation_id"]


def test_only_send_queues_can_be_external() -> None:
    with pytest.raises(SettingsError, match="cannot be external: ai-processing"):
        load(external_queues="whatsapp-qr-send, ai-processing")
    assert load(external_queues="whatsapp-qr-send, whatsapp-cloud-send").external == {
        "whatsapp-qr-send",
        "whatsapp-cloud-send",
    }
