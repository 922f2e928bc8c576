"""Redis that answers and refuses, and a clock that is wrong, with messages in flight: none lost, doubled or stuck."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest

from replyline.broker import Broker
from replyline.jobs import INCOMING_MESSAGES
from tests.chaos.town import Town, lost_and_doubled, people
from tests.waiting import until

pytestmark = pytest.mark.chaos


class Harm(Protocol):
    """Something that Redis refuses, from the beginning of the block to its end."""

    __name__: str

    def __call__(self, redis: Broker) -> AbstractAsyncContextManager[None]: ...


@asynccontextmanager
async def _no_permission(redis: Broker) -> AsyncIterator[None]:
    await redis.command("ACL", "SETUSER", "default", "-evalsha", "-eval", "-bzpopmin")
    yield
    await redis.command("ACL", "SETUSER", "default", "+@all")


@asynccontextmanager
async def _memory_is_full(redis: Broker) -> AsyncIterator[None]:
    await redis.command("CONFIG", "SET", "maxmemory", "1")
    yield
    await redis.command("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def _key_of_another_type(redis: Broker) -> AsyncIterator[None]:
    await redis.command("SET", f"bull:{INCOMING_MESSAGES}:prioritized", "somebody's mistake")
    yield
    await redis.command("DEL", f"bull:{INCOMING_MESSAGES}:prioritized")


@asynccontextmanager
async def _scripts_flushed_all_the_time(redis: Broker) -> AsyncIterator[None]:
    async def flush() -> None:
        while True:
            await redis.command("SCRIPT", "FLUSH")

    storm = asyncio.create_task(flush())
    yield
    assert not storm.done(), "it stormed to the end"
    storm.cancel()
    await asyncio.gather(storm, return_exceptions=True)


_HARMS: tuple[Harm, ...] = (_no_permission, _memory_is_full, _key_of_another_type, _scripts_flushed_all_the_time)


async def test_whatever_redis_refuses_for_a_while_no_message_is_lost_or_doubled_or_stuck(
    in_flight: int, full: bool
) -> None:
    each = in_flight if full else in_flight // 10
    everybody = list(people(each * len(_HARMS)).items())
    async with Town() as town:
        town.start_worker("one")
        redis = Broker(town.valkey.url)
        await redis.open()
        for number, harm in enumerate(_HARMS):
            wrote = dict(everybody[number * each : (number + 1) * each])
            await _write_through(town, redis, wrote, harm, for_s=45 if full else 3)
            assert (lost_and_doubled(wrote, await town.seen()), await town.dead()) == (([], []), []), harm.__name__
        generations = await town.rows("SELECT max(generation) AS highest FROM all_jobs")
        assert generations[0]["highest"] <= len(_HARMS), "generations do not pile up"
        await redis.close()
        assert await town.terminate("one") == 0


async def test_a_worker_whose_clock_is_an_hour_ahead_leaves_nothing_an_hour_late(full: bool) -> None:
    wrote = people(200 if full else 20)
    async with Town() as town:
        await town.fault("openai", kind="error", status=500, times=len(wrote))
        town.start_worker("ahead", clock_ahead_s=3600)
        await town.write(wrote)

        async def put_off() -> bool:
            (row,) = await town.rows("SELECT count(*) AS jobs FROM all_jobs WHERE attempts > 0")
            return bool(row["jobs"] >= len(wrote) // 2)

        await until(put_off, timeout_s=60)
        town.kill("ahead")
        town.start_worker("right")
        await town.until_settled()
        assert (lost_and_doubled(wrote, await town.seen()), await town.dead()) == (([], []), [])


async def _write_through(town: Town, redis: Broker, wrote: dict[str, list[str]], harm: Harm, *, for_s: float) -> None:
    """Let them write, do the harm while some are answered, and wait until all are."""
    now = asyncio.get_running_loop().time
    writing = await town.write_to_the_middle(wrote)
    async with harm(redis):
        await writing  # the door takes them all the same
        began = now()  # what is left of them is on its way for as long as this lasts: longer than locks and sweeps
        await until(lambda: now() - began > for_s, timeout_s=60)
    await until(lambda: _all_answered(town, wrote), timeout_s=120, what=harm.__name__)
    await town.until_settled()


async def _all_answered(town: Town, wrote: dict[str, list[str]]) -> bool:
    return not lost_and_doubled(wrote, await town.seen())[0]
