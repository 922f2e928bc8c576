"""What strangers try at the widget: each is refused, or does no harm."""

import asyncio
import hashlib
import time
import uuid

import jwt
import pytest

from replyline.store import channels
from replyline.store.database import Database
from replyline.web.widget.visitors import Guests
from tests.make import VAULT
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Door, Serve
from tests.web.page import IDENTITY_SECRET, ORIGIN, Page, answer_all, make_site, open_page, save_all


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


# Origins.


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://shop.example.evil.example",
        "http://shop.example",
        "https://shop.example:8443",
        "https://chain.example",
        "https://xchain.example",
        "https://a.chain.example.evil.example",
        "null",
        "https://",
        "x" * 5000,
    ],
)
async def test_a_page_of_another_site_gets_no_session(door: Door, scene: Scene, origin: str) -> None:
    page = Page(door, scene.channel.external_id, origin=origin)
    answer = await page.begin()
    assert answer.status == 403
    assert answer.json["code"] in {"origin_not_allowed", "origin_missing"}
    # A page may read that it is refused, so that its owner finds out why.
    assert answer.headers.get("access-control-allow-origin") == (origin if len(origin) <= 300 else None)
    assert await scene.value("SELECT count(*) FROM visitors") == 0


async def _begin(door: Door, scene: Scene, host: str, **headers: str) -> int:
    named = {"Host": host, **headers}
    body = {"site_key": scene.channel.external_id}
    async with door.http.post(f"{door.url}/widget/v1/sessions", json=body, headers=named) as response:
        return response.status


async def test_a_name_that_points_here_does_not_make_a_page_ours(serve: Serve, scene: Scene) -> None:
    """Failed before (DNS rebinding): any page whose host is the one that is called counted as ours."""
    async with serve(public_url="https://chat.shop.example") as door:
        for host in ("evil.example", "evil.example:8000"):
            assert await _begin(door, scene, host, Origin=f"http://{host}") == 403
            assert await _begin(door, scene, host, **{"Sec-Fetch-Site": "same-origin"}) == 403
        assert await _begin(door, scene, "10.0.0.5", Origin="https://chat.shop.example") == 201
    async with serve() as door:
        assert await _begin(door, scene, "chat.shop.example", Origin="https://chat.shop.example") == 403
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert await _begin(door, scene, host, Origin=f"http://{host}") == 201


async def test_a_call_without_an_origin_is_refused(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    page.origin = None
    for answer in (await page.begin(), await page.write("hi"), await page.call("GET", "/messages")):
        assert answer.problem == (403, "origin_missing")


@pytest.mark.parametrize("origin", [ORIGIN, "https://a.chain.example", "https://a.b.chain.example"])
async def test_a_page_of_the_site_may_read_the_answer(door: Door, scene: Scene, origin: str) -> None:
    page = Page(door, scene.channel.external_id, origin=origin)
    answer = await page.begin()
    assert answer.status == 201
    assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (origin, "Origin")
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_site_may_let_every_page_show_its_widget(door: Door, database: Database) -> None:
    everywhere = await make_site(database, allowed_origins="*")
    assert (await Page(door, everywhere.channel.external_id, origin="https://any.example").begin()).status == 201


async def test_our_own_pages_may_show_every_widget(door: Door, scene: Scene) -> None:
    page = Page(door, scene.channel.external_id, origin=door.url)
    assert (await page.begin()).status == 201
    page.origin = None  # browsers leave it out of a GET to the page's own server
    answer = await page.call("GET", "/messages", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status == 200


async def test_a_preflight_passes_for_every_page_and_shows_nothing(door: Door, scene: Scene) -> None:
    for origin in (ORIGIN, "https://evil.example"):
        answer = await door.call("OPTIONS", "/widget/v1/messages", headers={"Origin": origin})
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-max-age"] == "600"
    page = Page(door, scene.channel.external_id, origin="https://evil.example")
    answer = await page.call("GET", "/messages")
    assert answer.status == 401
    assert "access-control-allow-origin" not in answer.headers
    assert (
        "access-control-allow-origin"
        not in (await door.call("GET", "/v1/chatbots", headers={"Origin": ORIGIN})).headers
    ), "nothing else is for pages"


async def test_an_error_can_be_read_by_the_page(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    page.session_token = "forged"
    answer = await page.write("hi")
    assert answer.problem == (401, "unauthorized")
    assert answer.headers["access-control-allow-origin"] == ORIGIN


# Tokens.


async def test_a_session_that_is_over_opens_nothing(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    page.session_token = _forge(page, scene, exp=int(time.time()) - 60)
    for answer in (await page.write("hi"), await page.call("GET", "/messages"), await page.call("GET", "/events")):
        assert answer.problem == (401, "session_expired")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_stream_ends_with_its_session(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    page.session_token = _forge(page, scene, exp=int(time.time()) + 1)
    async with page.stream() as stream:
        await until(lambda: stream.ended, what="the end of the stream")


def _forge(page: Page, scene: Scene, *, secret: str | None = None, **claims: object) -> str:
    """The session's token with other claims, signed as ours is (or with another secret)."""
    kept = jwt.decode(page.session_token, options={"verify_signature": False})
    ours = scene.channel.open_secrets(VAULT)["visitor_secret"]
    return jwt.encode({**kept, **claims}, secret or ours, algorithm="HS256", headers={"kid": str(scene.channel.id)})


async def test_a_forged_session_opens_nothing(door: Door, scene: Scene, database: Database) -> None:
    page = await open_page(door, scene.channel)
    other = await make_site(database)
    claims = jwt.decode(page.session_token, options={"verify_signature": False})
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": str(scene.channel.id)})  # type: ignore[arg-type]
    forged = [
        _forge(page, scene, secret="guessed-guessed-guessed-guessed-guessed"),
        unsigned,
        page.session_token[:-4] + "AAAA",
        jwt.encode(claims, IDENTITY_SECRET, algorithm="HS256", headers={"kid": str(scene.channel.id)}),
        jwt.encode(claims, "x" * 40, algorithm="HS256", headers={"kid": "x"}),
        jwt.encode(claims, "x" * 40, algorithm="HS256", headers={"kid": str(uuid.uuid4())}),
        jwt.encode(
            claims,
            other.channel.open_secrets(VAULT)["visitor_secret"],
            algorithm="HS256",
            headers={"kid": str(other.channel.id)},
        ),
        _forge(page, scene, sid=str(uuid.uuid4())),
        _forge(page, scene, sid="x"),
        _forge(page, scene, cv=str(uuid.uuid4())),
        "a.b.c",
        str(page.visitor_token),
    ]
    for token in forged:
        page.session_token = token
        answer = await page.call("GET", "/messages")
        assert answer.status == 401, token


async def test_a_stolen_session_is_worth_nothing_on_another_sites_page(
    door: Door, scene: Scene, database: Database
) -> None:
    page = await open_page(door, scene.channel)
    page.origin = "https://a.chain.example"  # which may show the widget too
    assert (await page.call("GET", "/messages")).problem == (403, "origin_not_allowed")


async def test_a_visitor_token_opens_its_own_site_only(door: Door, scene: Scene, database: Database) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    other = await make_site(database)
    thief = Page(door, other.channel.external_id, visitor_token=page.visitor_token)
    assert (await thief.begin()).status == 201
    assert thief.visitor_token != page.visitor_token
    assert await thief.history() == []


async def test_who_logs_out_takes_every_session_along(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    stolen = Page(door, scene.channel.external_id, visitor_token=page.visitor_token)
    await stolen.begin()
    assert (await page.call("DELETE", "/sessions")).status == 204
    for one in (page, stolen):
        assert (await one.call("GET", "/messages")).problem == (401, "session_expired")
    await stolen.begin()
    assert await stolen.history() == [], "the old token makes somebody new"


async def test_who_logs_out_takes_the_open_stream_along(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    stolen = Page(door, scene.channel.external_id, visitor_token=page.visitor_token)
    await stolen.begin()
    async with stolen.stream() as stream:
        await page.call("DELETE", "/sessions")
        await until(lambda: stream.ended, what="the end of the stream")


async def test_a_token_taken_back_elsewhere_ends_the_open_stream(door: Door, scene: Scene) -> None:
    page, other = await open_page(door, scene.channel), await open_page(door, scene.channel)
    async with page.stream() as stream, other.stream() as staying:
        await scene.fetch("DELETE FROM visitor_tokens WHERE token_hash = $1", _token_hash(page))
        await until(lambda: stream.ended, timeout_s=20, what="the end of the stream")
        assert not staying.ended
        await scene.fetch("UPDATE channels SET enabled = false WHERE id = $1", scene.channel.id)
        await until(lambda: staying.ended, timeout_s=20, what="the end of a widget that is off")


def _token_hash(page: Page) -> bytes:
    return hashlib.sha256(str(page.visitor_token).encode()).digest()


async def test_tokens_are_not_kept_in_clear(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    (row,) = await scene.fetch("SELECT token_hash FROM visitor_tokens")
    assert row["token_hash"] == hashlib.sha256(str(page.visitor_token).encode()).digest()
    assert str(page.visitor_token) not in page.session_token


async def test_a_switched_off_widget_ends_its_sessions(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await channels.update(
        scene.database, VAULT, scene.channel.id, customer_id=scene.customer.id, changes={"enabled": False}
    )

    async def refused() -> bool:
        return (await page.call("GET", "/messages")).status == 401

    await until(refused, timeout_s=15, what="the end of the session")


# Tickets.


async def test_a_ticket_opens_the_stream_once(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    ticket = (await page.call("POST", "/tickets")).json["ticket"]
    page.session_token = ""
    async with page.stream(f"?ticket={ticket}&after=0"):
        pass
    assert (await page.call("GET", f"/events?ticket={ticket}")).problem == (401, "ticket_used")
    assert (await page.call("GET", "/events?ticket=guessed")).problem == (401, "ticket_used")


async def test_of_many_who_show_one_ticket_one_gets_in(serve: Serve, scene: Scene) -> None:
    async with serve(widget_streams_per_visitor=100) as door:
        page = await open_page(door, scene.channel)
        ticket = (await page.call("POST", "/tickets")).json["ticket"]

        async def show() -> int:
            url = f"{door.url}/widget/v1/events?ticket={ticket}"
            async with door.http.get(url, headers=page.headers) as response:
                return response.status

        assert sorted(await asyncio.gather(*(show() for _ in range(20)))) == [200] + [401] * 19


async def test_a_stolen_ticket_is_worth_nothing_on_another_page(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    for origin in ("https://a.chain.example", "https://evil.example", None):
        page.origin = ORIGIN
        ticket = (await page.call("POST", "/tickets")).json["ticket"]
        thief = Page(door, scene.channel.external_id, origin=origin)
        assert (await thief.call("GET", f"/events?ticket={ticket}")).status == 403


async def test_a_ticket_is_gone_after_half_a_minute(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    made = (await page.call("POST", "/tickets")).json
    assert made["expires_in"] == 30
    keys = await door.app.broker.command("KEYS", "*:ticket")
    assert isinstance(keys, list)
    (key,) = keys
    assert isinstance(key, bytes)
    assert str(made["ticket"]).encode() not in key, "who may look into Redis has no ticket yet"
    left_ms = await door.app.broker.command("PTTL", key.decode())
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= 30_000
    await door.app.broker.command("PEXPIRE", key.decode(), "0")  # half a minute later
    assert (await page.call("GET", f"/events?ticket={made['ticket']}")).problem == (401, "ticket_used")


async def test_a_session_that_a_process_with_another_clock_began_is_good(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    page.session_token = _forge(page, scene, iat=int(time.time()) + 3600, exp=int(time.time()) + 7200)
    assert (await page.call("POST", "/tickets")).status == 201


async def test_a_ticket_is_for_one_conversation(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    ticket = (await page.call("POST", "/tickets")).json["ticket"]
    await scene.fetch("UPDATE visitors SET conversation_id = gen_random_uuid()")
    door.api.state.guests = Guests(door.app, door.api.state.sites)  # which remembers nobody from a moment ago
    assert (await page.call("GET", f"/events?ticket={ticket}")).problem == (401, "session_expired")


async def test_a_ticket_dies_with_its_visitor(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    ticket = (await page.call("POST", "/tickets")).json["ticket"]
    await page.call("DELETE", "/sessions")
    assert (await page.call("GET", f"/events?ticket={ticket}")).problem == (401, "session_expired")


# Script in every text.


async def test_script_stays_text_wherever_it_is_written(door: Door, database: Database) -> None:
    script = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028event: reset"
    site = await make_site(database, title=script[:60], greeting=script.replace("\u2028", " "))
    page = Page(door, site.channel.external_id)
    begun = await page.begin(page_url=f"https://shop.example/{script}")
    assert begun.headers["content-type"] == "application/json"
    assert begun.headers["x-content-type-options"] == "nosniff"
    async with page.stream() as stream:
        await page.write(f"{script}\n\nevent: reset\ndata: {{}}\r\rid: 99")
        await save_all(site)
        await answer_all(site, f"{script}\n\nevent: reset\ndata: {{}}")
        await until(lambda: len(stream.logged) == 2, what="both messages")
        assert [event.name for event in stream.events] == ["message.created", "message.completed"]
        assert str(stream.logged[0][1]).startswith(script)
