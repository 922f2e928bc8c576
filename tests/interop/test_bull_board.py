"""bull-board looks into our queues, through the HTTP API that its pages use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from replyline.app import open_app
from replyline.embedded import EmbeddedValkey
from replyline.jobs import AI_PROCESSING, DEAD_LETTER, QUEUE_NAMES, IncomingMessageJob
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database
from tests.interop.parts import need_application, running
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import quick_retries, settings_for, working
from tests.waiting import until

_NAMES = (*QUEUE_NAMES, DEAD_LETTER)


class _Job(msgspec.Struct, rename="camel"):
    id: str
    name: str
    failed_reason: str | None = None
    stacktrace: list[str] = []
    return_value: object = None


class _Queue(msgspec.Struct, rename="camel"):
    name: str
    counts: dict[str, int]
    jobs: list[_Job]
    has_workers: bool


class _Queues(msgspec.Struct):
    queues: list[_Queue]


class _Board:
    """What the pages of bull-board ask of it."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def queues(self, active: str = "", status: str = "latest") -> dict[str, _Queue]:
        """All queues, with the jobs of the active one."""
        parameters = {"activeQueue": active, "status": status, "page": "1", "jobsPerPage": "10"}
        async with self._http.get("/api/queues", params=parameters) as response:
            text = await response.read()
            assert response.status == 200, text
        return {queue.name: queue for queue in msgspec.json.decode(text, type=_Queues).queues}

    async def jobs(self, queue: str, status: str) -> list[_Job]:
        """The jobs of a queue in one state."""
        return (await self.queues(queue, status))[queue].jobs

    async def workers(self, queue: str) -> list[str]:
        """The names of the workers of a queue."""
        async with self._http.get(f"/api/queues/{queue}/workers") as response:
            found = msgspec.json.decode(await response.read(), type=dict[str, list[dict[str, object]]])
        return [str(worker.get("name")) for worker in found["workers"]]

    async def logs(self, queue: str, job_id: str) -> list[str]:
        """The tab of a job's log."""
        async with self._http.get(f"/api/queues/{queue}/{job_id}/logs") as response:
            return msgspec.json.decode(await response.read(), type=list[str])

    async def retry(self, queue: str, job_id: str) -> None:
        """The button."""
        async with self._http.put(f"/api/queues/{queue}/{job_id}/retry") as response:
            assert response.status in (200, 204), await response.text()


@asynccontextmanager
async def _board(valkey_url: str) -> AsyncIterator[_Board]:
    async with (
        running("board", valkey_url, QUEUES=",".join(_NAMES)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        yield _Board(http)


async def _bot(database: Database, provider_base_url: str | None = None) -> Chatbot:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    if provider_base_url is not None:
        async with database.connection() as connection:
            await connection.execute(
                "UPDATE chatbots SET provider = 'openai_compatible', model = 'm', provider_base_url = $1",
                provider_base_url,
            )
    await make_channel(database, chatbot)
    return chatbot


@pytest.fixture
async def own_valkey_url(tmp_path: Path) -> AsyncIterator[str]:
    """A Valkey of this test's own: BullMQ finds workers among all clients of a server, also those of other tests."""
    valkey = EmbeddedValkey(tmp_path, port=0)
    await valkey.start()
    yield valkey.url
    await valkey.stop()


async def test_it_shows_queues_counts_workers_returnvalues_failures_and_retry_replays(
    database: Database, database_url: str, own_valkey_url: str
) -> None:
    need_application()
    valkey_url = own_valkey_url
    chatbot = await _bot(database, "http://127.0.0.1:9")
    hello = IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content="hello", channel="WIDGET")
    settings = settings_for(valkey_url, database_url, queues=quick_retries(waits_s=()))
    async with _board(valkey_url) as board:
        async with open_app(settings) as app:
            await app.accept(hello)
            await until(lambda: _count(board, "incoming-messages", "prioritized", 1))
        idle = await board.queues()
        assert list(idle) == list(_NAMES)
        assert not any(queue.has_workers for queue in idle.values())

        async with working(settings):
            await until(lambda: _count(board, AI_PROCESSING, "failed", 1))
            queues = await board.queues()
            assert all(queues[name].has_workers for name in QUEUE_NAMES)
            assert len(await board.workers(AI_PROCESSING)) == 1

            (received,) = await until(lambda: board.jobs("incoming-messages", "completed"))
            (inbound,) = await _ids(database, "INBOUND")
            assert received.return_value == {"messageId": inbound}
            (failed,) = await board.jobs(AI_PROCESSING, "failed")
            assert "cannot be reached" in (failed.failed_reason or "")
            assert "ClientConnectorError" in failed.stacktrace[0]
            (line,) = await board.logs(AI_PROCESSING, failed.id)
            assert "given up after attempt 1" in line
            assert "cannot be reached" in line
            assert queues[DEAD_LETTER].counts["prioritized"] + queues[DEAD_LETTER].counts["waiting"] == 1

            async with database.connection() as connection:
                await connection.execute("UPDATE chatbots SET provider = 'knowledge_only'")
            await board.retry(AI_PROCESSING, failed.id)
            completed = await until(lambda: _completed(board, 2))
            assert {job.id: job.return_value for job in completed}[failed.id] == {"replayed": failed.id[:-1] + "1"}
            assert (await board.queues())[AI_PROCESSING].counts["failed"] == 0


async def _count(board: _Board, queue: str, state: str, count: int) -> bool:
    return (await board.queues())[queue].counts[state] == count


async def _completed(board: _Board, count: int) -> list[_Job]:
    found = await board.jobs(AI_PROCESSING, "completed")
    return found if len(found) == count else []


async def _ids(database: Database, direction: str) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT id FROM messages WHERE direction = $1", direction)
    return [str(row["id"]) for row in rows]
