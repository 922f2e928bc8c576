"""The event stream: everything once and in order, over cuts, a Redis that is away, and pages that read slowly."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from prometheus_client import Gauge

from replyline import metrics
from replyline.broker import Broker, Told
from replyline.live import encode_event, typing
from replyline.publisher import LOG_GREW
from replyline.store.database import Database
from replyline.store.moves.speak import Owner
from replyline.web.widget import listener
from tests.proxy import FaultProxy
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Door, Serve
from tests.web.page import Page, Stream, answer_all, make_site, open_page, save_all


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


@pytest.fixture
async def broker(valkey_url: str) -> AsyncIterator[Broker]:
    broker = Broker(valkey_url)
    await broker.open()
    yield broker
    await broker.close()


async def _tell_of_growth(broker: Broker, scene: Scene) -> None:
    grown, scene.grown = scene.grown, []
    await broker.live.tell([Told(str(conversation_id), LOG_GREW) for conversation_id in grown])


async def test_messages_come_with_their_place_and_what_is_written_without(
    door: Door, scene: Scene, broker: Broker
) -> None:
    page = await open_page(door, scene.channel)
    async with page.stream() as stream:
        await page.write("Are you open?")
        await save_all(scene)
        await _tell_of_growth(broker, scene)
        (created,) = await stream.until("message.created")
        assert (created.id, created.data["author"], created.data["text"]) == (1, "user", "Are you open?")
        answer = str(uuid.uuid4())
        await broker.live.begin(page.conversation_id, answer)
        for word in ("From ", "7 ", "am."):
            assert await broker.live.append(page.conversation_id, answer, word)
        pieces = await stream.until("message.delta", 3)
        assert [(piece.id, piece.data) for piece in pieces] == [
            (None, {"id": answer, "i": index, "text": word}) for index, word in enumerate(("From ", "7 ", "am."))
        ]
        await broker.live.end(page.conversation_id, answer)
        await answer_all(scene, "From 7 am.")
        await _tell_of_growth(broker, scene)
        (completed,) = await stream.until("message.completed")
        assert (completed.id, completed.data["author"], completed.data["text"]) == (2, "assistant", "From 7 am.")
        await broker.live.tell([Told(page.conversation_id, encode_event(typing("assistant", on=False)))])
        (sign,) = await stream.until("typing")
        assert (sign.id, sign.data) == (None, {"on": False, "author": "assistant"})


async def test_the_stream_has_what_proxies_and_browsers_need(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    async with page.stream() as stream:
        headers = stream.response.headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["Access-Control-Allow-Origin"] == page.origin
        assert "Access-Control-Allow-Credentials" not in headers


async def test_who_comes_in_the_middle_of_an_answer_gets_what_is_written_so_far(
    door: Door, scene: Scene, broker: Broker
) -> None:
    page = await open_page(door, scene.channel)
    answer = str(uuid.uuid4())
    await broker.live.begin(page.conversation_id, answer)
    for word in ("one ", "two "):
        await broker.live.append(page.conversation_id, answer, word)
    async with page.stream() as stream:
        (so_far,) = await stream.until("message.delta")
        assert so_far.data == {"id": answer, "i": 1, "text": "one two ", "replace": True}
        await broker.live.append(page.conversation_id, answer, "three")
        pieces = await stream.until("message.delta", 2)
        assert pieces[1].data == {"id": answer, "i": 2, "text": "three"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=strategies.lists(strategies.integers(0, 12), max_size=5), by_header=strategies.booleans())
async def test_a_page_that_is_cut_off_anywhere_misses_nothing_and_sees_nothing_twice(
    door: Door, scene: Scene, broker: Broker, cuts: list[int], by_header: bool
) -> None:
    page = await open_page(door, scene.channel)
    wanted = [f"m{number}" for number in range(12)]
    identity = str(await scene.value("SELECT identity FROM visitors WHERE conversation_id = $1", _id(page)))
    place, said = 0, 0
    seen: list[tuple[int | None, object]] = []
    for cut in [*sorted(cuts), len(wanted)]:
        query, headers = ("", {"Last-Event-ID": str(place)}) if by_header else (f"?after={place}", {})
        async with page.stream(query, **headers) as stream:
            while said < len(wanted) and (said < cut or cut == len(wanted)):
                await scene.hear(
                    wanted[said],
                    sender=identity,
                    identity_kind="visitor",
                    conversation_id=uuid.UUID(page.conversation_id),
                )
                said += 1
                await _tell_of_growth(broker, scene)
            if cut == len(wanted):
                await _logged(stream, len(wanted) - len(seen))
            seen += stream.logged
            place = max([place, *(event.id or 0 for event in stream.events)])
    assert [text for _, text in seen] == wanted
    assert [id_ for id_, _ in seen] == list(range(1, 13))


async def test_pieces_that_were_missed_are_made_good_when_redis_is_back(
    serve: Serve, scene: Scene, broker: Broker, valkey_url: str
) -> None:
    async with FaultProxy(valkey_url) as proxy, serve(redis_url=proxy.url()) as door:
        page = await open_page(door, scene.channel)
        answer = str(uuid.uuid4())
        async with page.stream() as stream:
            await broker.live.begin(page.conversation_id, answer)
            await broker.live.append(page.conversation_id, answer, "one ")
            await stream.until("message.delta")
            await proxy.cut()
            await broker.live.append(page.conversation_id, answer, "two ")
            await page.write("and this?")
            await save_all(scene)
            so_far = (await stream.until("message.delta", 2))[-1]
            assert so_far.data == {"id": answer, "i": 1, "text": "one two ", "replace": True}
            assert [text for _, text in await _logged(stream, 1)] == ["and this?"]


async def test_messages_come_without_redis(serve: Serve, scene: Scene, valkey_url: str) -> None:
    async with FaultProxy(valkey_url) as proxy, serve(redis_url=proxy.url()) as door:
        page = await open_page(door, scene.channel)
        async with page.stream() as stream:
            proxy.refuse()
            await proxy.cut()
            await page.write("hello")
            await save_all(scene)
            await answer_all(scene, "hi")
            assert [text for _, text in await _logged(stream, 2)] == ["hello", "hi"]


async def test_a_page_that_is_ahead_of_the_log_reads_anew(door: Door, scene: Scene, broker: Broker) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    async with page.stream("?after=99") as stream:
        (reset,) = await stream.until("reset")
        assert (reset.id, reset.data) == (1, {"reason": "unknown_place"})
        await answer_all(scene, "hi")
        await _tell_of_growth(broker, scene)
        assert await _logged(stream, 1) == [(2, "hi")]


async def test_a_page_far_behind_reads_anew(
    door: Door, scene: Scene, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MOST_REPLAYED", 1)
    page = await open_page(door, scene.channel)
    for text in ("one", "two"):
        await page.write(text)
    await save_all(scene)
    async with page.stream("?after=0") as stream:
        (reset,) = await stream.until("reset")
        assert reset.data == {"reason": "too_far_behind"}
    async with page.stream("?after=1") as stream:
        assert await _logged(stream, 1) == [(2, "two")]


async def test_a_visitor_listens_on_a_few_pages_and_no_more(serve: Serve, scene: Scene) -> None:
    async with serve(widget_streams_per_visitor=2) as door:
        page = await open_page(door, scene.channel)
        another = Page(door, scene.channel.external_id, visitor_token=page.visitor_token)
        await another.begin()
        async with page.stream(), page.stream(), another.stream():
            third = await page.call("GET", "/events")
            assert third.problem == (429, "too_many_streams")
            assert third.json["retry_after_ms"]
            other = await open_page(door, scene.channel)
            async with other.stream():
                pass

        async def free() -> bool:
            async with door.http.get(
                f"{door.url}/widget/v1/events",
                headers={**page.headers, "Authorization": f"Bearer {page.session_token}"},
            ) as response:
                return response.status == 200

        await until(free, what="a place for another page")


async def test_a_closed_conversation_says_so(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    async with page.stream() as stream:
        await door.app.set_owner(_id(page), customer_id=scene.customer.id, owner="NONE")
        await stream.until("conversation.closed")
    async with page.stream() as stream:
        await stream.until("conversation.closed")


async def test_an_open_page_is_told_who_answers_now_and_a_later_one_too(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    owners: tuple[Owner, ...] = ("NONE", "BOT", "HUMAN")
    async with page.stream() as stream:
        assert (await stream.until("conversation.owner"))[-1].data == {"owner": "BOT"}
        for count, owner in enumerate(owners, start=2):
            await door.app.set_owner(_id(page), customer_id=scene.customer.id, owner=owner)
            assert (await stream.until("conversation.owner", count))[-1].data == {"owner": owner}
    async with page.stream() as stream:
        assert (await stream.until("conversation.owner"))[-1].data == {"owner": "HUMAN"}


async def test_what_one_page_read_the_other_learns(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    await answer_all(scene, "hi")
    async with page.stream() as stream:
        await page.call("POST", "/read", json={"up_to": 2})
        (status,) = await stream.until("message.status")
        assert status.data == {"up_to": 2, "status": "read"}
        await page.call("POST", "/typing", json={"on": True})
        (sign,) = await stream.until("typing")
        assert sign.data == {"on": True, "author": "user"}


async def test_a_page_that_reads_nothing_holds_little_and_misses_nothing(
    serve: Serve, scene: Scene, broker: Broker
) -> None:
    async with serve() as door:
        page = await open_page(door, scene.channel)
        host, _, port = door.url.removeprefix("http://").partition(":")
        slow = socket.socket()
        # Before it connects, and not smaller: a window that is narrowed later is opened again a few bytes at a time.
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.connect((host, int(port)))
        open_before = _now(metrics.open_streams)
        slow.sendall(
            f"GET /widget/v1/events?after=0 HTTP/1.1\r\nHost: x\r\nOrigin: {page.origin}\r\n"
            f"Authorization: Bearer {page.session_token}\r\n\r\n".encode()
        )
        await until(lambda: _now(metrics.open_streams) > open_before, what="the slow page")
        answer = str(uuid.uuid4())
        most, dropped_before = 0.0, _dropped()
        for _ in range(150):  # more than sockets hold
            await broker.live.begin(page.conversation_id, answer)
            for _ in range(8):
                await broker.live.append(page.conversation_id, answer, "x" * 8000)
            answer = str(uuid.uuid4())
            most = max(most, _now(metrics.stream_held_bytes))
        await page.write("and this?")
        await save_all(scene)
        assert 0 < most <= listener.MOST_LIVE_BYTES
        assert _dropped() > dropped_before, "more came than is held"
        slow.settimeout(20)
        received = b""
        while b"and this?" not in received:  # it catches up from the log
            received = received[-1000:] + await asyncio.to_thread(slow.recv, 1_000_000)
        slow.close()
    assert _now(metrics.stream_held_bytes) == 0


def _dropped() -> float:
    return sum(
        sample.value
        for metric in metrics.stream_events_total.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["kind"] == "dropped"
    )


def _now(gauge: Gauge) -> float:
    (sample,) = [one for metric in gauge.collect() for one in metric.samples]
    return sample.value


async def _logged(stream: Stream, count: int) -> list[tuple[int | None, object]]:
    await until(lambda: len(stream.logged) >= count, what=f"{count} messages")
    return stream.logged


def _id(page: Page) -> uuid.UUID:
    return uuid.UUID(page.conversation_id)
