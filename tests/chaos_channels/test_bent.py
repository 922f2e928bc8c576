"""Duplicates, reordering, statuses before answers, batches, cuts, refusals, slowness and HTML: counted, on both channels."""

import asyncio
import re
from collections import Counter, defaultdict

import msgspec
import pytest

from tests.chaos.town import Town
from tests.waiting import until

pytestmark = pytest.mark.chaos

_CLOUD: list[dict[str, object]] = [
    {"kind": "callback_repeat", "repeat": 4, "rate": 0.2, "seed": 1},
    {"kind": "callback_reorder", "size": 10, "within_s": 0.3, "rate": 0.2, "seed": 2},
    {"kind": "callback_batch", "size": 1000, "within_s": 0.3, "rate": 0.3, "seed": 3},
    {"kind": "status_first", "rate": 0.3, "seed": 4},
    {"kind": "cut_after_accept", "rate": 0.05, "seed": 5, "match": {"contains": "Echo"}},
    {"kind": "error", "code": 131056, "rate": 0.05, "seed": 6, "match": {"contains": "Echo"}},
    {"kind": "error", "code": 130429, "times": 2, "match": {"contains": "Echo"}},
    {"kind": "error", "status": 502, "body": "<html>Bad Gateway</html>", "rate": 0.05, "seed": 7, "match": {"contains": "Echo"}},
    {"kind": "slow", "seconds": 0.5, "rate": 0.05, "seed": 8},
]  # fmt: skip
_QR: list[dict[str, object]] = [
    {"kind": "callback_repeat", "repeat": 4, "rate": 0.2, "seed": 1},
    {"kind": "callback_reorder", "size": 10, "within_s": 0.3, "rate": 0.2, "seed": 2},
    {"kind": "status_first", "rate": 0.3, "seed": 4},
    {"kind": "cut_after_accept", "rate": 0.05, "seed": 5, "match": {"contains": "Echo"}},
    {"kind": "error", "code": "paced", "rate": 0.05, "seed": 6, "match": {"contains": "Echo"}},
    {"kind": "error", "code": "not_connected", "rate": 0.03, "seed": 9, "match": {"contains": "Echo"}},
    {"kind": "error", "status": 502, "body": "<html>Bad Gateway</html>", "rate": 0.05, "seed": 7, "match": {"contains": "Echo"}},
    {"kind": "slow", "seconds": 0.5, "rate": 0.05, "seed": 8},
]  # fmt: skip


@pytest.mark.parametrize(("channel", "faults"), [("cloud", _CLOUD), ("qr", _QR)], ids=["cloud", "qr"])
async def test_nothing_is_lost_doubled_or_out_of_order_however_the_channel_is_bent(
    channel: str, faults: list[dict[str, object]], messages: int
) -> None:
    standin = "whatsapp_cloud" if channel == "cloud" else "qr_gateway"
    async with Town(waits_s=(0.1, 0.2, 0.4, 0.8, 1.6, 3.2)) as town:
        town.start_worker("one")
        town.start_worker("two")
        for fault in faults:
            await town.fault(standin, **fault)
        many = messages // 20
        wrote = {f"49151{number:08}": [f"q{number}.0"] for number in range(messages - 10 * many)}
        wrote |= {f"49152{number:08}": [f"q{number}.{part}" for part in range(10)] for number in range(many)}
        await town.write(wrote, channel=channel)
        expected = sum(map(len, wrote.values()))

        async def all_received() -> bool:
            rows = await town.rows("SELECT count(*) AS n FROM messages WHERE direction = 'INBOUND'")
            return bool(rows[0]["n"] == expected)

        await until(all_received, timeout_s=120, what="every message, once")
        await town.until_settled(timeout_s=240)
        await until(lambda: _confirmed(town), timeout_s=60, what="every status")

        replies: dict[str, list[int]] = defaultdict(list)
        for sent in await town.seen(channel):
            person = sent.to.lstrip("+").partition("@")[0]
            replies[person].append(int(re.fullmatch(r"Echo: q\d+\.(\d+)", sent.text)[1]))  # type: ignore[index]
        lost = {person for person, texts in wrote.items() if replies.get(person, [-1])[-1] != len(texts) - 1}
        doubled = {person: seen for person, seen in replies.items() if len(set(seen)) != len(seen)}
        disordered = {person: seen for person, seen in replies.items() if seen != sorted(seen)}
        assert (lost, doubled, disordered) == (set(), {}, {})
        accepted = await _accepted(town, standin, channel)
        assert {message for message, times in accepted.items() if times != 1} == set(), "each was taken once"
        assert len(accepted) == sum(map(len, replies.values()))
        assert await town.dead() == []
        bills = await town.rows("SELECT kind, count(*) AS n FROM usage_logs GROUP BY kind")
        billed = {row["kind"]: row["n"] for row in bills}
        assert billed["message_sent"] == len(accepted)
        assert billed.get("whatsapp_pricing", len(accepted)) == len(accepted)


async def test_a_numbers_limit_is_kept_by_three_workers_together(messages: int) -> None:
    async with Town(cloud_config={"messages_per_second": "50"}) as town:
        number = {"messages_per_second": 55}
        await town.tell("whatsapp_cloud", "_configure", {"numbers": {town.cloud.external_id: number}})
        for name in ("one", "two", "three"):
            town.start_worker(name)
        people = {f"49151{number:08}": [f"q{number}"] for number in range(messages * 2)}
        await town.write(people)
        await town.until_settled()
        seen = await town.seen()
        assert Counter(sent.to.lstrip("+") for sent in seen) == Counter(people.keys())
        async with town.http.get(f"{town.standins.urls['whatsapp_cloud']}/_limits") as response:
            refused = msgspec.json.decode(await response.read(), type=dict[str, dict[str, int]])
        assert refused[town.cloud.external_id]["throughput_refused"] == 0
        workers = await town.rows("SELECT DISTINCT worker FROM all_jobs WHERE queue = 'whatsapp-cloud-send'")
        assert len(workers) == 3, "all of them sent"
        assert [row["n"] for row in await town.rows("SELECT max(attempts) AS n FROM all_jobs")] == [0]


async def test_a_worker_that_dies_while_sending_asks_before_it_sends_again(messages: int) -> None:
    async with Town() as town:
        town.start_worker("one")
        await town.fault("whatsapp_cloud", kind="slow", seconds=3.0, match={"contains": "Echo"})
        wrote = {f"49151{number:08}": [f"q{number}.0"] for number in range(messages // 2)}
        writing = asyncio.create_task(town.write(wrote))
        await until(lambda: _seen_some(town), timeout_s=60)
        assert await town.rows("SELECT id FROM messages WHERE status = 'SENDING'"), "nothing was being sent"
        town.kill("one")
        await town.heal("whatsapp_cloud")
        town.start_worker("two")
        await writing
        await town.until_settled()
        accepted = await _accepted(town, "whatsapp_cloud", "cloud")
        assert {message for message, times in accepted.items() if times != 1} == set()
        assert len(accepted) == len(wrote)


async def _seen_some(town: Town) -> bool:
    return await town.count_seen() > 5


async def _confirmed(town: Town) -> bool:
    rows = await town.rows(
        "SELECT count(*) AS n FROM messages WHERE direction = 'OUTBOUND' AND status NOT IN ('DELIVERED', 'READ')"
    )
    return bool(rows[0]["n"] == 0)


async def _accepted(town: Town, standin: str, channel: str) -> Counter[str]:
    """How often the stand-in took each of our messages; a cut connection (no status) was taken too."""
    taken: Counter[str] = Counter()
    known: set[str] = set()
    for call in await town.calls(standin):
        body = call["body"]
        if not str(call["path"]).endswith("/messages") or not isinstance(body, dict) or body.get("status") == "read":
            continue
        if channel == "cloud":
            if call["status"] in {200, None}:
                taken[str(body["biz_opaque_callback_data"])] += 1
        else:
            key = str(msgspec.convert(call["headers"], dict[str, str])["idempotency-key"])
            if call["status"] in {202, None} and key not in known:  # a repeat of a cut one is answered 200
                taken[key] += 1
            known.add(key) if call["status"] in {202, None} else None
    return taken
