"""A producer's job scheduler on `incoming-messages`: each of its iterations is one message, also when our worker is killed."""

import pytest

from tests.chaos.town import Town
from tests.interop.parts import need_application, run
from tests.waiting import until

pytestmark = pytest.mark.chaos

_RECEIVED = "SELECT id FROM messages WHERE direction = 'INBOUND'"


async def test_each_iteration_is_one_message_though_our_worker_is_killed_again_and_again() -> None:
    need_application()
    async with Town() as town:
        await town.rows("UPDATE chatbots SET external_reference = 'test-bot-id'")
        town.start_worker()
        await run("schedule", town.valkey.url, EVERY="100")
        for _ in range(3):
            await _goes_on(town, by=4)
            town.kill("worker")
            town.start_worker()
        await _goes_on(town, by=1)
        await run("schedule", town.valkey.url)
        await town.until_settled()

        jobs = await town.rows("SELECT dedupe_key, state FROM all_jobs WHERE queue = 'incoming-messages'")
        received = await town.rows(_RECEIVED)
        assert len(received) == len(jobs) >= 12
        assert all(row["dedupe_key"].startswith("bullmq:incoming-messages:repeat:remind:") for row in jobs)
        assert await town.dead() == []


async def _goes_on(town: Town, *, by: int) -> None:
    before = len(await town.rows(_RECEIVED))

    async def more() -> bool:
        return len(await town.rows(_RECEIVED)) >= before + by

    await until(more, timeout_s=60, what=f"{by} more iterations")
