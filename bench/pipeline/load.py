"""Load on a contender's door, and what it cost."""

import asyncio
import time
from dataclasses import dataclass
from statistics import quantiles

import asyncpg
import msgspec
import redis.asyncio

from bench.pipeline.stage import Contender, Stage, value

_SENT = "SELECT count(*) FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'"
_STATEMENTS = (
    "SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
    "WHERE d.datname = current_database()"
)
_IN_FLIGHT = 64


class _Sent(msgspec.Struct):
    at: float
    to: str


@dataclass(frozen=True)
class Burst:
    """As many messages as it takes, at once."""

    per_second: float
    cpu_ms: float
    """Of the contender's own processes, a message."""
    servers_cpu_ms: float
    """Of Valkey and Postgres, a message."""
    scripts: float
    statements: float


@dataclass(frozen=True)
class Pace:
    """A steady stream; added latency in ms, from the post to the call at Meta, less what the model took."""

    p50_ms: float
    p99_ms: float


async def burst(stage: Stage, contender: Contender, count: int, *, first: int) -> Burst:
    """Post `count` messages of as many people and wait until all replies were sent."""
    base = await value(contender.database_url, _SENT)
    scripts, statements = await _counters(contender)
    own, (valkey, postgres) = contender.cpu_s(), stage.servers_cpu_s()
    started = time.perf_counter()
    numbers = iter(range(first, first + count))

    async def post() -> None:
        for number in numbers:
            await _post(stage, contender, number)

    await asyncio.gather(*(post() for _ in range(_IN_FLIGHT)))
    await until_sent(contender, base + count)
    took = time.perf_counter() - started
    await until_quiet(contender)  # webhooks are part of what a message costs, though not of its way
    own_now, (valkey_now, postgres_now) = contender.cpu_s(), stage.servers_cpu_s()
    scripts_now, statements_now = await _counters(contender)
    return Burst(
        count / took,
        (own_now - own) / count * 1000,
        (valkey_now - valkey + postgres_now - postgres) / count * 1000,
        (scripts_now - scripts) / count,
        (statements_now - statements) / count,
    )


async def pace(
    stage: Stage, contender: Contender, per_second: float, seconds: float, *, first: int, think_s: float
) -> Pace:
    """Post at a steady rate, far below what the contender can do."""
    async with stage.http.delete(f"{stage.standins['whatsapp_cloud']}/_sent") as response:
        response.raise_for_status()
    base = await value(contender.database_url, _SENT)
    posted: dict[str, float] = {}
    posts = []
    count = int(per_second * seconds)
    began = time.perf_counter()
    for index in range(count):
        wait = began + index / per_second - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        posted[_phone(first + index)] = time.time()
        posts.append(asyncio.create_task(_post(stage, contender, first + index)))
    await asyncio.gather(*posts)
    await until_sent(contender, base + count)
    await until_quiet(contender)
    async with stage.http.get(f"{stage.standins['whatsapp_cloud']}/_sent") as response:
        sent = msgspec.json.decode(await response.read(), type=list[_Sent])
    added = [(one.at - posted[one.to.lstrip("+")] - think_s) * 1000 for one in sent if one.to.lstrip("+") in posted]
    cuts = quantiles(added, n=100)
    return Pace(cuts[49], cuts[98])


async def until_quiet(contender: Contender) -> None:
    """Wait until every webhook was delivered, at most five minutes."""
    for _ in range(3000):
        if not await value(contender.database_url, "SELECT count(*) FROM webhook_events WHERE status = 'PENDING'"):
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{contender.name} did not deliver its webhooks in five minutes")


async def until_sent(contender: Contender, count: int) -> None:
    """Wait until so many replies were sent, at most five minutes."""
    connection = await asyncpg.connect(contender.database_url)
    try:
        for _ in range(6000):
            if await connection.fetchval(_SENT) >= count:
                return
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    raise RuntimeError(f"{contender.name} did not send {count} replies in five minutes")


async def _post(stage: Stage, contender: Contender, number: int) -> None:
    body = {
        "chatbotId": contender.chatbot_id,
        "externalUserId": _phone(number),
        "content": f"When do you open on day {number}?",
        "channel": "WHATSAPP_CLOUD",
    }
    headers = {"Authorization": f"Bearer {contender.api_key}", "Content-Type": "application/json"}
    async with stage.http.post(
        f"{contender.api}/v1/messages", data=msgspec.json.encode(body), headers=headers
    ) as response:
        if response.status != 202:
            raise RuntimeError(f"{contender.name} answered {response.status}: {await response.text()}")
        await response.read()


def _phone(number: int) -> str:
    return f"4915{number:09d}"


async def _counters(contender: Contender) -> tuple[int, int]:
    """Script calls of Redis (both contenders have the server in turn), and statements of the contender's database."""
    async with redis.asyncio.Redis.from_url(contender.redis_url) as client:
        stats = await client.info("commandstats")
    scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
    return scripts, await value(contender.database_url, _STATEMENTS)
