"""Bodies cost little before it is known who sends them: nothing is read without a key, and what strangers send is bounded."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import pytest
from fastapi import FastAPI

from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database
from replyline.web import create_app
from replyline.web.limits import Limits
from tests.make import make_api_key, make_channel, make_chatbot, make_customer
from tests.waiting import until
from tests.web.conftest import Door, served

Begin = Callable[..., AbstractAsyncContextManager[asyncio.StreamReader]]


@pytest.fixture
async def chatbot(database: Database) -> Chatbot:
    return await make_chatbot(database, (await make_customer(database)).id)


@pytest.fixture
async def cloud(database: Database, chatbot: Chatbot) -> Channel:
    return await make_channel(database, chatbot, "WHATSAPP_CLOUD")


@asynccontextmanager
async def _begun(
    url: str, path: str, *, method: str = "POST", announced: int, sent: bytes = b"", forwarded: str | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """A call whose body has begun and does not end."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {announced}", "Content-Type: application/json"]
    if forwarded is not None:
        lines.append(f"X-Forwarded-For: {forwarded}")
    writer.write("\r\n".join([*lines, "", ""]).encode() + sent)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


def _unlimited(door: Door) -> FastAPI:
    """The application without its own limits, to be put behind others."""
    api = create_app(door.app)
    api.user_middleware = [middleware for middleware in api.user_middleware if str(middleware.cls) != str(Limits)]
    return api


async def _status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(15):  # half of what a body that does not come is waited for
        return int((await reader.readline()).split()[1])


async def test_without_a_key_or_a_session_no_body_is_waited_for(door: Door) -> None:
    """Failed before: every route read up to 4 MB, and parsed it, before it asked who was calling."""
    described = (await door.call("GET", "/openapi.json")).json
    paths = msgspec.convert(described["paths"], dict[str, dict[str, dict[str, object]]])
    asked = 0
    for path, methods in paths.items():
        for method, operation in methods.items():
            takes_one = "requestBody" in operation or path.endswith("/uploads")
            if not takes_one or path in {"/widget/v1/sessions"} or path.startswith("/callbacks/"):
                continue
            real = path.replace("{", "").replace("}", "")
            async with _begun(door.url, real, method=method.upper(), announced=10_000, sent=b"{") as reader:
                assert await _status(reader) == 401, (method, path)
            asked += 1
    assert asked > 15


async def test_a_callback_of_no_channel_is_not_waited_for(door: Door) -> None:
    for kind in ("cloud", "qr"):
        async with _begun(door.url, f"/callbacks/whatsapp-{kind}/nobody", announced=3_000_000) as reader:
            assert await _status(reader) == 404


async def test_each_route_takes_what_it_needs_and_no_more(door: Door, database: Database, chatbot: Chatbot) -> None:
    key = await make_api_key(database, chatbot.customer_id)
    too_much = {"name": "x" * 70_000}
    assert (await door.call("POST", "/v1/api-keys", key=key, json=too_much)).problem == (413, "too_large")
    session = await door.call("POST", "/widget/v1/sessions", json={"site_key": "x" * 20_000})
    assert session.problem == (413, "too_large")
    instructions = json.dumps({"name": "x", "instructions": "🙂" * 80_000}).encode()  # 960 kB, as JSON escapes it
    headers = {"Content-Type": "application/json"}
    made = await door.call("POST", "/v1/chatbots", key=key, data=instructions, headers=headers)
    assert made.status == 201
    body = json.dumps(
        {"chatbotId": made.json["id"], "externalUserId": "ana", "content": "🙂" * 65_536, "channel": "WIDGET"}
    ).encode()
    answer = await door.call("POST", "/v1/messages", key=key, data=body, headers=headers)
    assert answer.problem == (404, "unknown_channel")


async def test_fields_that_do_not_exist_are_counted_not_listed(
    door: Door, database: Database, chatbot: Chatbot
) -> None:
    """Failed before: 400,000 unknown fields were 400,000 errors, and stopped the process for seconds."""
    key = await make_api_key(database, chatbot.customer_id)
    many = {f"f{number}": number for number in range(1_000)}
    session = await door.call("POST", "/widget/v1/sessions", json={**many, "site_key": "x"})
    assert session.problem == (422, "invalid")
    assert len(msgspec.convert(session.json["errors"], list[object])) == 1
    body = {"chatbotId": str(chatbot.id), "kind": "WIDGET", "name": "x"}
    for part in ("config", "secrets"):
        channel = await door.call("POST", "/v1/channels", key=key, json={**body, part: many})
        assert channel.problem == (422, "invalid")
        assert len(msgspec.convert(channel.json["errors"], list[object])) == 1
    some = {f"f{number}": number for number in range(49)}
    listed = await door.call("POST", "/widget/v1/sessions", json={**some, "site_key": "x"})
    assert len(msgspec.convert(listed.json["errors"], list[object])) == 49


async def test_what_strangers_send_together_is_bounded(door: Door, cloud: Channel) -> None:
    path = f"/callbacks/whatsapp-cloud/{cloud.channel_key}"
    limited = Limits(_unlimited(door), max_bytes=16_000, strangers_bytes=16_000)
    async with served(limited) as url:
        async with _begun(url, path, announced=13_000, sent=b"x" * 12_000):

            async def busy() -> bool:
                async with _begun(url, path, announced=8_000, sent=b"x" * 8_000) as reader:
                    return await _status(reader) == 503

            await until(busy)

        async def free_again() -> bool:
            async with _begun(url, path, announced=8_000, sent=b"x" * 8_000) as reader:
                return await _status(reader) == 401

        await until(free_again)


async def test_one_address_leaves_room_for_the_bodies_of_others(door: Door, cloud: Channel) -> None:
    path = f"/callbacks/whatsapp-cloud/{cloud.channel_key}"
    here = (ipaddress.ip_network("127.0.0.0/8"),)
    limited = Limits(_unlimited(door), max_bytes=16_000, trusted=here, strangers_bytes=64_000)
    async with (
        served(limited) as url,
        _begun(url, path, announced=13_000, sent=b"x" * 12_000, forwarded="198.51.100.7"),
    ):

        async def refused() -> bool:
            async with _begun(url, path, announced=8_000, sent=b"x" * 8_000, forwarded="198.51.100.7") as reader:
                return await _status(reader) == 503

        await until(refused)  # a quarter of what there is, and no less than one body may have
        async with _begun(url, path, announced=8_000, sent=b"x" * 8_000, forwarded="198.51.100.8") as reader:
            assert await _status(reader) == 401


async def test_one_address_has_so_many_bodies_on_their_way(door: Door, cloud: Channel) -> None:
    path = f"/callbacks/whatsapp-cloud/{cloud.channel_key}"
    here = (ipaddress.ip_network("127.0.0.0/8"),)
    limited = Limits(_unlimited(door), max_bytes=100_000, trusted=here, strangers_at_once=1)
    async with served(limited) as url:
        async with _begun(url, path, announced=10, sent=b"x", forwarded="2001:db8::1"):

            async def refused() -> bool:
                async with _begun(url, path, announced=1, sent=b"x", forwarded="2001:db8::2") as reader:
                    return await _status(reader) == 429

            await until(refused)
            async with _begun(url, path, announced=1, sent=b"x", forwarded="198.51.100.7") as reader:
                assert await _status(reader) == 401

        async def free_again() -> bool:
            async with _begun(url, path, announced=1, sent=b"x", forwarded="2001:db8::1") as reader:
                return await _status(reader) == 401

        await until(free_again)
