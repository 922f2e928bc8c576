"""What a contender's tables hold before a load: messages that are done, messages that wait."""

import asyncio

from bench.pipeline import bulk
from bench.pipeline.bulk import Originals
from bench.pipeline.contenders import Contender, Replyline
from bench.pipeline.load import Contacts, closed
from bench.pipeline.run import Run

_POSTS_AT_ONCE = 64
_LITTLE_S = 1.5
_TOMORROW = "CASE WHEN isfinite(p.run_at) THEN now() + interval '1 day' ELSE p.run_at END"
_PAUSED = "whatsapp-qr-send"
_WRITES = 5
"""Messages of each waiting person: the first is due tomorrow, as after a rate limit; the others wait behind it."""


async def originals_of_done(run: Run, contender: Contender) -> Originals:
    """Let some people ask and get their answers; all rows of that, as they were left. Everything is stopped afterwards."""
    await contender.start()
    contender.outside.think_s = 0.0
    await closed(contender, _LITTLE_S, flight=64, contacts=run.contacts(returning=100))
    await contender.stop()
    return await bulk.keep_originals(contender.servers, "bench_done")


async def add_done(contender: Contender, originals: Originals, messages: int, *, first: int = 1) -> int:
    """Copy done messages (of both directions) until there are about so many more; the copies made."""
    copies = round(messages / originals.rows["messages"])
    took_s = await bulk.copy(contender.servers, originals, copies, first=first)
    contender.stored_before += copies * originals.rows["messages"] // 2
    if took_s > 1:
        rows = copies * sum(originals.rows.values())
        print(
            f"{contender.name}: {rows:,} rows of {copies * originals.rows['messages']:,} messages made in {took_s:,.0f} s"
        )
    return copies


async def originals_of_waiting(contender: Contender) -> Originals:
    """Let other customers' people write several messages each while nobody works; the rows of that, taken out again."""
    await contender.start_api()
    for account in contender.others:
        for number in range(2):
            for turn in range(_WRITES):
                await contender.post(f"48{number:012d}", f"Message {turn} of somebody who waits", account)
    await contender.stop()
    originals = await bulk.keep_originals(contender.servers, "bench_waiting", remove=True)
    await contender.servers.empty_valkey()
    return originals


async def add_waiting(contender: Contender, originals: Originals, jobs: int) -> None:
    """Copy waiting jobs of other customers: a fifth due tomorrow, the others held behind those."""
    copies = round(jobs / originals.rows["jobs"])
    took_s = await bulk.copy(contender.servers, originals, copies, instead={"run_at": _TOMORROW})
    print(f"{contender.name}: {copies * originals.rows['jobs']:,} waiting jobs made in {took_s:,.0f} s")


async def add_paused(contender: Replyline, originals: Originals, jobs: int) -> None:
    """Pause a queue that no load here needs, and copy waiting jobs into it, all due."""
    copies = round(jobs / originals.rows["jobs"])
    instead = {
        "queue": f"'{_PAUSED}'",
        "name": "'send-message'",
        "lane_key": "NULL",
        "dedupe_key": "NULL",
        "run_at": "now()",
    }
    await contender.pause(_PAUSED)
    await bulk.copy(contender.servers, originals, copies, instead=instead)


async def post_unworked(contender: Contender, contacts: Contacts, messages: int) -> None:
    """Bring so many messages of as many people to the door, which are really due; workers should be stopped."""
    ledger = contender.outside.ledger
    numbers = iter(range(messages))

    async def post() -> None:
        for _ in numbers:
            contact = contacts.next()
            if contact is None:
                raise RuntimeError("there is nobody left who may write")
            await contender.post(contact, ledger.ask(contact))

    await asyncio.gather(*(post() for _ in range(_POSTS_AT_ONCE)))
