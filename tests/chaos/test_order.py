"""Order: whatever fails on the way, a conversation's replies arrive in the order of its messages."""

import re
from collections import defaultdict

import pytest

from tests.chaos.town import Town, people

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("channel", ["cloud", "qr"])
async def test_conversations_of_many_messages_keep_their_order_through_random_failures(
    channel: str, full: bool
) -> None:
    count, messages = (50, 20) if full else (15, 8)
    async with Town(waits_s=(0.05, 0.1, 0.2, 0.4, 0.8, 1.6)) as town:
        await town.fault("openai", kind="error", status=500, rate=0.15, seed=3)
        sends = "whatsapp_cloud" if channel == "cloud" else "qr_gateway"
        await town.fault(sends, kind="error", status=503, code=131016 if channel == "cloud" else None, rate=0.1, seed=4)
        await town.fault(sends, kind="cut_after_accept", rate=0.05, seed=5)
        town.start_worker("one")
        town.start_worker("two")
        wrote = people(count, messages=messages)
        await town.write(wrote, channel=channel)
        await town.until_settled()

        replies: dict[str, list[int]] = defaultdict(list)
        for sent in await town.seen(channel):
            replies[sent.to.lstrip("+")].append(int(re.fullmatch(r"Echo: q\d+\.(\d+)", sent.text)[1]))  # type: ignore[index]
        disordered = {sender: seen for sender, seen in replies.items() if seen != sorted(set(seen))}
        assert disordered == {}, "in order, and none twice"
        assert {sender: seen[-1] for sender, seen in replies.items()} == dict.fromkeys(wrote, messages - 1), (
            "the last one answered"
        )
        assert await town.dead() == []
        assert {500} < await _statuses(town, "openai"), "no call of the model failed"
        assert {503, None} < await _statuses(town, sends), "no send failed, or none was cut off"


async def _statuses(town: Town, standin: str) -> set[object]:
    """The answers that a stand-in gave; None for a connection that it cut."""
    return {call["status"] for call in await town.calls(standin)}
