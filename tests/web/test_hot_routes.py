"""The routes that take messages answer as FastAPI's routes of the same paths, which answer wherever a request has a query."""

import hashlib
import hmac
import inspect
from collections.abc import Iterator

import msgspec
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIRouter

from replyline.store.database import Database
from replyline.web import app as web
from replyline.web.widget.wire import MAX_TEXT_CHARS
from tests.make import CLOUD_SECRETS, make_api_key, make_channel
from tests.store.scene import Scene
from tests.web.conftest import Answer, Door
from tests.web.page import ORIGIN, make_site, open_page
from tests.web.signed import cloud_body, cloud_text

JSON = "application/json"
_OWN = {"date", "content-length"}


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


def _message(scene: Scene, **more: object) -> dict[str, object]:
    return {
        "chatbotId": str(scene.chatbot.id),
        "channel": "WIDGET",
        "externalUserId": "a person",
        "externalMessageId": "m1",
        "content": "Are you open?",
        **more,
    }


def _bodies(scene: Scene) -> list[tuple[str | None, bytes]]:
    """What a message may be, and what it must not be, each with its Content-Type."""
    good = msgspec.json.encode(_message(scene))
    return [
        (JSON, good),
        (f"{JSON}; charset=utf-8", good),
        ("application/vnd.acme+json", good),
        ("text/plain", good),
        (None, good),
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b"null"),
        (JSON, b"\xff\xfe"),
        (JSON, b"[" * 100_000),
        (JSON, good.decode().encode("utf-16")),
        (JSON, good.replace(b"open", b"\\ud83d")),
        (JSON, msgspec.json.encode(_message(scene, content=""))),
        (JSON, msgspec.json.encode(_message(scene, content="a" * 100_001))),
        (JSON, msgspec.json.encode(_message(scene, chanel="WIDGET"))),
        (JSON, msgspec.json.encode(_message(scene, channel="FAX"))),
        (JSON, msgspec.json.encode(_message(scene, channel="WHATSAPP_QR"))),
        (JSON, msgspec.json.encode(_message(scene, content="Another text"))),
        (JSON, msgspec.json.encode({str(number): 0 for number in range(60)})),
        (JSON, b'"' + b"a" * 1_000_001 + b'"'),
    ]


async def test_a_message_by_api_is_answered_as_fastapi_answers_it(door: Door, scene: Scene, database: Database) -> None:
    key = await make_api_key(database, scene.customer.id)
    for kind, body in _bodies(scene):
        headers = {} if kind is None else {"Content-Type": kind}
        hot = await door.call("POST", "/v1/messages", key=key, data=body, headers=headers)
        query = f"?customerId={scene.customer.id}"
        full = await door.call("POST", f"/v1/messages{query}", key=key, data=body, headers=headers)
        assert _same(hot) == _same(full), (kind, body[:100])


async def test_who_sends_no_key_or_a_wrong_one_is_answered_as_fastapi_answers_it(door: Door, scene: Scene) -> None:
    body = msgspec.json.encode(_message(scene))
    for key in (None, "", "rk_unknown", "nonsense"):
        hot = await door.call("POST", "/v1/messages", key=key, data=body)
        full = await door.call("POST", f"/v1/messages?customerId={scene.customer.id}", key=key, data=body)
        assert hot.problem == (401, "unauthorized")
        assert _same(hot) == _same(full)


async def test_a_callback_is_answered_as_fastapi_answers_it(door: Door, scene: Scene, database: Database) -> None:
    channel = await make_channel(database, scene.chatbot, "WHATSAPP_CLOUD")
    good = cloud_body(channel, [cloud_text("wamid.1")])
    await _call(door, channel.channel_key, good, _digest(good))  # what follows are repeats of it
    for key, body, digest in (
        (channel.channel_key, good, _digest(good)),
        (channel.channel_key, b"nothing", _digest(b"nothing")),
        (channel.channel_key, b"", _digest(b"")),
        (channel.channel_key, good, "00"),
        ("unknown", good, _digest(good)),
        ("%00", good, _digest(good)),
        ("a/b", good, _digest(good)),
        ("", good, _digest(good)),
    ):
        hot = await _call(door, key, body, digest)
        full = await _call(door, f"{key}?anything=1", body, digest)
        assert _same(hot) == _same(full), (key, body[:50])


async def test_what_a_visitor_writes_is_answered_as_fastapi_answers_it(door: Door, scene: Scene) -> None:
    client_id = "0190c2c0-0000-7000-8000-000000000001"
    for forged, origin, body in (
        (None, ORIGIN, {"client_id": client_id, "text": "Hello"}),
        (None, ORIGIN, {"client_id": client_id, "text": " "}),
        (None, ORIGIN, {"client_id": "1", "text": "Hello"}),
        (None, ORIGIN, {"client_id": client_id, "text": "a" * (MAX_TEXT_CHARS + 1)}),
        (None, ORIGIN, {"client_id": client_id, "text": "Hello", "attachments": ["att_" + "0" * 32]}),
        (None, "https://elsewhere.example", {"client_id": client_id, "text": "Hello"}),
        ("forged", ORIGIN, {"client_id": client_id, "text": "Hello"}),
    ):
        page = await open_page(door, scene.channel)  # each has a few messages at once
        key, headers = forged or page.session_token, {"Origin": origin, "Content-Type": JSON}
        _, hot, full = [
            await door.call("POST", f"/widget/v1/messages{query}", key=key, json=body, headers=headers)
            for query in ("?anything=1", "", "?anything=1")  # the first of a message is told from its repeats
        ]
        assert _same(hot) == _same(full), body


async def test_fastapi_is_not_asked_about_a_plain_message(door: Door, scene: Scene, database: Database) -> None:
    key = await make_api_key(database, scene.customer.id)
    cloud = await make_channel(database, scene.chatbot, "WHATSAPP_CLOUD")
    page = await open_page(door, scene.channel)
    body = cloud_body(cloud, [cloud_text("wamid.1")])
    door.api.router.routes.clear()
    assert (await door.call("POST", "/v1/messages", key=key, json=_message(scene))).status == 202
    assert (await _call(door, cloud.channel_key, body, _digest(body))).status == 200
    assert (await page.write("Hello")).status == 202
    assert (await door.call("POST", "/v1/messages?a=1", key=key, json=_message(scene))).status == 404


async def test_nothing_of_a_body_is_read_before_its_sender_is_known(door: Door, scene: Scene) -> None:
    large = b"a" * 900_000
    for path in ("/v1/messages", "/widget/v1/messages"):
        answer = await door.call("POST", path, data=large, headers={"Content-Type": JSON, "Origin": ORIGIN})
        assert answer.problem == (401, "unauthorized")
        assert answer.headers["connection"] == "close"  # the rest of it was not waited for


def test_no_route_and_no_dependency_runs_in_a_thread(door: Door) -> None:
    calls = {call for route in _routes(door.api) for call in _calls(route.dependant)}
    assert len(calls) > 50
    assert [call for call in calls if not _is_async(call)] == []


def _routes(api: FastAPI) -> Iterator[APIRoute]:
    routers = [api.router, *web._ROUTERS]
    while routers:
        for route in routers.pop().routes:
            if isinstance(route, APIRoute):
                yield route
            elif isinstance(route, APIRouter):
                routers.append(route)


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for part in dependant.dependencies:
        yield from _calls(part)


def _is_async(call: object) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def _digest(body: bytes) -> str:
    return hmac.new(CLOUD_SECRETS["app_secret"].encode(), body, hashlib.sha256).hexdigest()


async def _call(door: Door, path: str, body: bytes, digest: str) -> Answer:
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "Content-Type": JSON}
    return await door.call("POST", f"/callbacks/whatsapp-cloud/{path}", data=body, headers=headers)


def _same(answer: Answer) -> tuple[int, dict[str, str], object]:
    """What must be equal of two answers: all but when they were made, and whether the message had come before."""
    said = {name: value for name, value in answer.json.items() if name != "duplicate"}
    return answer.status, {name: value for name, value in answer.headers.items() if name not in _OWN}, said
