"""Each harm that the guarantees speak of, done with hundreds of messages in flight: nothing lost, nothing doubled."""

import asyncio

import pytest

from replyline.broker import Broker
from replyline.jobs import QUEUE_NAMES
from tests.chaos.town import Town, lost_and_doubled, people
from tests.waiting import until

pytestmark = pytest.mark.chaos


async def test_a_worker_is_killed(in_flight: int) -> None:
    async with Town() as town:
        town.start_worker("one")
        town.start_worker("two")
        wrote = people(in_flight)
        writing = await town.write_to_the_middle(wrote)
        town.kill("one")
        town.start_worker("three")
        await writing
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_a_worker_is_told_to_stop(in_flight: int) -> None:
    async with Town() as town:
        town.start_worker("one")
        wrote = people(in_flight)
        writing = await town.write_to_the_middle(wrote)
        assert await town.terminate("one") == 0
        broker = Broker(town.valkey.url)
        await broker.open()
        assert [(await broker.counts(queue)).active for queue in QUEUE_NAMES] == [0] * len(QUEUE_NAMES)
        await broker.close()
        town.start_worker("two")
        await writing
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_all_processes_are_killed(in_flight: int) -> None:
    async with Town() as town:
        town.start_worker("one")
        town.start_worker("two")
        wrote = people(in_flight)
        writing = await town.write_to_the_middle(wrote)
        town.kill_all()
        town.start_api()
        await town.until_ready()
        town.start_worker("three")
        await writing
        await _until_received(town, in_flight)
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_redis_loses_everything(in_flight: int) -> None:
    async with Town() as town:
        town.start_worker()
        wrote = people(in_flight)
        writing = await town.write_to_the_middle(wrote)
        await _redis(town, "FLUSHALL")
        await writing
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_redis_is_away_while_messages_come(in_flight: int, full: bool) -> None:
    async with Town() as town:
        town.start_worker()
        wrote = people(in_flight)
        half = dict(list(wrote.items())[: in_flight // 2])
        rest = dict(list(wrote.items())[in_flight // 2 :])
        writing = asyncio.create_task(town.write(half))
        await until(lambda: _seen(town, in_flight // 8), timeout_s=60)
        town.valkey.kill()
        gone_at = asyncio.get_running_loop().time()
        await town.write(rest)  # the door takes them all the same
        await _until_received(town, in_flight)
        await until(lambda: asyncio.get_running_loop().time() - gone_at > (10 if full else 2), timeout_s=20)
        await town.valkey.restart()
        await writing
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_postgres_is_restarted(in_flight: int) -> None:
    async with Town() as town:
        town.start_worker()
        wrote = people(in_flight)
        writing = await town.write_to_the_middle(wrote)
        town.postgres.kill()
        await town.postgres.restart()
        await writing
        await _until_received(town, in_flight)  # what the door refused meanwhile, the service repeats
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_every_callback_comes_five_times_at_once(in_flight: int) -> None:
    async with Town() as town:
        town.start_worker("one")
        town.start_worker("two")
        wrote = people(in_flight)
        await town.write(wrote, times=5)
        await _until_received(town, in_flight)
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_the_provider_fails_for_a_while(in_flight: int) -> None:
    async with Town() as town:
        # Every call fails until so many have: retries come later than that, so no turn fails as often as it may be tried.
        await town.fault("openai", kind="error", status=500, times=in_flight // 3)
        await town.fault("openai", kind="error", status=429, headers={"Retry-After": "0.2"}, times=in_flight // 3)
        town.start_worker()
        wrote = people(in_flight)
        await town.write(wrote)
        await town.until_settled()
        await _assert_whole(town, wrote)


async def test_answers_of_sends_are_lost_on_the_way_back(in_flight: int) -> None:
    async with Town() as town:
        await town.fault("whatsapp_cloud", kind="cut_after_accept", rate=0.2, seed=2)
        town.start_worker()
        wrote = people(in_flight)
        await town.write(wrote)
        await town.until_settled()
        await _assert_whole(town, wrote)


async def _assert_whole(town: Town, wrote: dict[str, list[str]]) -> None:
    lost, doubled = lost_and_doubled(wrote, await town.seen())
    dead = await town.dead()
    facts = {
        row["kind"]: row["facts"]
        for row in await town.rows("SELECT kind, count(*) AS facts FROM usage_logs GROUP BY kind")
    }
    assert (lost, doubled, dead) == ([], [], [])
    prices = facts.pop("whatsapp_pricing", 0)  # told by statuses, of which some are still on their way
    # Every call that was answered to a run that lived is paid for, also if another run's answer was used.
    answered = sum(call["status"] == 200 for call in await town.calls("openai"))
    assert len(wrote) <= facts.pop("ai_answer") <= answered
    assert facts == dict.fromkeys(("message_received", "message_sent"), len(wrote))
    assert prices <= len(wrote)


async def _until_received(town: Town, count: int) -> None:
    async def received() -> bool:
        (row,) = await town.rows("SELECT count(*) AS jobs FROM all_jobs WHERE queue = 'incoming-messages'")
        return bool(row["jobs"] == count)

    await until(received, timeout_s=180, what=f"{count} messages at the door")


async def _seen(town: Town, count: int) -> bool:
    return await town.count_seen() >= count


async def _redis(town: Town, *words: str) -> None:
    reader, writer = await asyncio.open_unix_connection(town.valkey.url.removeprefix("unix://").partition("?")[0])
    writer.write((" ".join(words) + "\r\n").encode())
    assert (await reader.readline()).startswith(b"+OK")
    writer.close()
    await writer.wait_closed()
