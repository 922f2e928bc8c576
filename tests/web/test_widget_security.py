"""What strangers try at the widget: each is refused, or does no harm."""

import asyncio
import hashlib
import hmac
import time
import uuid
from pathlib import Path

import jwt
import pytest

from replyline.store import channels
from replyline.store.database import Database
from replyline.web.widget.visitors import Guests
from tests.make import VAULT
from tests.proxy import FaultProxy
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Answer, Door, Serve
from tests.web.page import IDENTITY_SECRET, ORIGIN, Page, answer_all, make_site, open_page, save_all

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


def _hash(user_id: str, secret: str = IDENTITY_SECRET) -> str:
    return hmac.new(secret.encode(), user_id.encode(), hashlib.sha256).hexdigest()


def _user_token(site_key: str, *, secret: str = IDENTITY_SECRET, **claims: object) -> str:
    return jwt.encode(
        {"sub": "u1", "aud": site_key, "exp": int(time.time()) + 300, **claims}, secret, algorithm="HS256"
    )


async def _upload(page: Page, data: bytes, mime_type: str, filename: str = "photo.png") -> Answer:
    return await page.call("POST", f"/uploads?filename={filename}", data=data, headers={"Content-Type": mime_type})


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
    assert "access-control-allow-origin" not in answer.headers
    assert await scene.value("SELECT count(*) FROM visitors") == 0


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


async def test_a_preflight_knows_the_origins_that_are_listed(door: Door, scene: Scene) -> None:
    for origin, allowed in ((ORIGIN, True), ("https://evil.example", False)):
        answer = await door.call("OPTIONS", "/widget/v1/messages", headers={"Origin": origin})
        assert answer.status == 204
        assert ("access-control-allow-origin" in answer.headers) is allowed
        assert answer.headers["access-control-max-age"] == "600"
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


async def test_a_ticket_dies_with_its_visitor(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    ticket = (await page.call("POST", "/tickets")).json["ticket"]
    await page.call("DELETE", "/sessions")
    assert (await page.call("GET", f"/events?ticket={ticket}")).problem == (401, "session_expired")


# Users whom the site vouches for.


@pytest.mark.parametrize("by_token", [False, True])
async def test_a_user_finds_their_conversation_in_every_browser(door: Door, scene: Scene, by_token: bool) -> None:
    proof: dict[str, object] = (
        {"user_token": _user_token(scene.channel.external_id)}
        if by_token
        else {"user": {"id": "u1", "hash": _hash("u1")}}
    )
    here = await open_page(door, scene.channel, **proof)
    await here.write("hello")
    await save_all(scene)
    there = await open_page(door, scene.channel, **proof)
    assert there.visitor_token != here.visitor_token
    assert await there.history() == [("user", "hello")]
    assert (await there.begin(**proof)).json["verified"] is True


async def test_both_browsers_of_a_new_user_are_in_one_conversation(door: Door, scene: Scene) -> None:
    proof = {"user": {"id": "u1", "hash": _hash("u1")}}
    pages = await asyncio.gather(*(open_page(door, scene.channel, **proof) for _ in range(5)))
    assert len({page.conversation_id for page in pages}) == 1
    await asyncio.gather(*(page.write(f"from {number}") for number, page in enumerate(pages)))
    await save_all(scene)
    assert len(await pages[0].history()) == 5


async def test_the_conversation_of_a_user_is_closed_to_a_page_that_vouches_for_nobody(door: Door, scene: Scene) -> None:
    user = await open_page(door, scene.channel, user={"id": "u1", "hash": _hash("u1")})
    await user.write("my secret")
    await save_all(scene)
    stranger = Page(door, scene.channel.external_id, visitor_token=user.visitor_token)
    begun = await stranger.begin()
    assert (begun.status, begun.json["verified"]) == (201, False)
    assert stranger.visitor_token != user.visitor_token
    assert await stranger.history() == []


async def test_another_user_in_the_same_browser_sees_nothing_of_the_first(door: Door, scene: Scene) -> None:
    first = await open_page(door, scene.channel, user={"id": "u1", "hash": _hash("u1")})
    await first.write("my secret")
    await save_all(scene)
    second = Page(door, scene.channel.external_id, visitor_token=first.visitor_token)
    await second.begin(user={"id": "u2", "hash": _hash("u2")})
    assert await second.history() == []


@pytest.mark.parametrize(
    "user",
    [
        {"id": "u1"},
        {"id": "u1", "hash": ""},
        {"id": "u1", "hash": _hash("u2")},
        {"id": "u1", "hash": _hash("u1", "guessed")},
        {"id": "u1", "hash": hashlib.sha256(b"u1").hexdigest()},
    ],
)
async def test_a_hash_that_is_not_the_sites_is_refused(door: Door, scene: Scene, user: dict[str, object]) -> None:
    assert (await Page(door, scene.channel.external_id).begin(user=user)).problem == (403, "identity_invalid")


async def test_a_users_token_that_is_not_good_is_refused(door: Door, scene: Scene) -> None:
    key, now = scene.channel.external_id, int(time.time())
    for token in (
        _user_token("site_another"),
        _user_token(key, secret="guessed-guessed-guessed-guessed-guessed"),
        _user_token(key, exp=now - 60),
        _user_token(key, exp=now + 3600),
        _user_token(key, sub=""),
        _user_token(key, sub=7),
        jwt.encode({"sub": "u1", "aud": key}, IDENTITY_SECRET, algorithm="HS256"),
        jwt.encode({"sub": "u1", "aud": key, "exp": now + 60}, None, algorithm="none"),  # type: ignore[arg-type]
        "x",
    ):
        answer = await Page(door, key).begin(user_token=token)
        assert answer.problem == (403, "identity_invalid"), token


async def test_an_old_token_of_a_user_renews_only_that_users_own_session(door: Door, scene: Scene) -> None:
    key, now = scene.channel.external_id, int(time.time())
    user = await open_page(door, scene.channel, user_token=_user_token(key))
    await user.write("hello")
    await save_all(scene)
    old = _user_token(key, exp=now - 3600)
    assert (await user.begin(user_token=old)).json["verified"] is True, "the page of a session that is over"
    assert await user.history() == [("user", "hello")]
    thieves = [
        (None, old),
        ((await open_page(door, scene.channel)).visitor_token, old),
        ((await open_page(door, scene.channel, user_token=_user_token(key, sub="u2"))).visitor_token, old),
        (user.visitor_token, _user_token(key, exp=now - 90_000)),
        (user.visitor_token, _user_token(key, sub="u2", exp=now - 3600)),
    ]
    for visitor_token, token in thieves:
        thief = Page(door, key, visitor_token=visitor_token)
        assert (await thief.begin(user_token=token)).problem == (403, "identity_invalid")


async def test_a_site_may_ask_for_users_that_it_vouches_for(door: Door, database: Database) -> None:
    site = await make_site(database, identity="required")
    assert (await Page(door, site.channel.external_id).begin()).problem == (403, "identity_required")
    assert (await open_page(door, site.channel, user={"id": "u1", "hash": _hash("u1")})).conversation_id


async def test_a_site_without_the_secret_vouches_for_nobody(door: Door, scene: Scene, database: Database) -> None:
    await scene.fetch(
        "UPDATE channels SET secrets_sealed = $2 WHERE id = $1",
        scene.channel.id,
        VAULT.seal('{"visitor_secret": "only-ours-and-long-enough-for-hs256"}'),
    )
    answer = await Page(door, scene.channel.external_id).begin(user={"id": "u1", "hash": _hash("u1", "")})
    assert answer.problem == (403, "identity_invalid")


# Files.


async def test_a_file_belongs_to_its_message_and_its_conversation(door: Door, scene: Scene) -> None:
    page, stranger = await open_page(door, scene.channel), await open_page(door, scene.channel)
    uploaded = await _upload(page, PNG, "image/png", "..%2F..%2Fetc%2Fphoto.png")
    assert (uploaded.status, uploaded.json["name"], uploaded.json["size"]) == (201, "photo.png", len(PNG))
    name = uploaded.json["id"]
    theft = {"client_id": str(uuid.uuid4()), "text": "mine", "attachments": [name]}
    assert (await stranger.call("POST", "/messages", json=theft)).problem == (422, "invalid")
    assert (await stranger.call("GET", f"/uploads/{name}")).problem == (404, "not_found")
    client_id = str(uuid.uuid4())
    assert (await page.write("", client_id, attachments=[name])).status == 202
    await save_all(scene)
    assert (await page.write("", client_id, attachments=[name])).status == 200, "a repeat names what is taken by itself"
    assert (await page.write("again", attachments=[name])).problem == (422, "invalid")
    (entry,) = (await page.call("GET", "/messages")).entries
    assert (entry["text"], entry["attachments"]) == ("", [uploaded.json])
    assert (await stranger.call("GET", f"/uploads/{name}")).problem == (404, "not_found")
    got = await page.call("GET", f"/uploads/{name}")
    assert (got.status, got.body) == (200, PNG)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith("attachment;")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"<script>alert(1)</script>", "image/png"),
        (b"<svg onload=alert(1)>", "image/svg+xml"),
        (b"<html>", "text/html"),
        (PNG, "image/jpeg"),
        (b"%PDF-1.7", "image/png"),
        (b"MZ\x90\x00", "application/pdf"),
        (b"\x00\x01\x02", "text/plain"),
        (b"\xff\xfe", "text/plain"),
        (b"GIF89a", "application/x-msdownload"),
        (b"RIFF....WAVE", "image/webp"),
        (PNG, ""),
    ],
)
async def test_a_file_that_lies_about_its_type_is_refused(
    door: Door, scene: Scene, data: bytes, mime_type: str, tmp_path: Path
) -> None:
    page = await open_page(door, scene.channel)
    assert (await _upload(page, data, mime_type or "application/octet-stream")).status == 415
    assert await scene.value("SELECT count(*) FROM media") == 0
    assert not [file for file in (tmp_path / "media").rglob("*") if file.is_file()]


async def test_text_that_is_a_page_stays_text(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    uploaded = await _upload(page, b"<script>alert(1)</script>", "text/plain", "a.html")
    got = await page.call("GET", f"/uploads/{uploaded.json['id']}")
    assert got.headers["content-type"] == "application/octet-stream"
    assert "attachment" in got.headers["content-disposition"]


async def test_a_file_that_is_too_large_is_refused(serve: Serve, scene: Scene) -> None:
    async with serve(max_body_bytes=2000) as door:
        page = await open_page(door, scene.channel)
        assert (await _upload(page, PNG + b"\0" * 3000, "image/png")).problem == (413, "too_large")


async def test_a_site_may_take_no_files(door: Door, database: Database) -> None:
    site = await make_site(database, uploads="off")
    page = await open_page(door, site.channel)
    assert (await _upload(page, PNG, "image/png")).problem == (403, "uploads_off")


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


# Limits.


async def test_an_address_makes_a_few_visitors_an_hour(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="3/3600") as door:
        statuses = [
            (await Page(door, scene.channel.external_id, address="203.0.113.7").begin()).status for _ in range(4)
        ]
        assert statuses == [201, 201, 201, 429]
        refused = await Page(door, scene.channel.external_id, address="203.0.113.7").begin()
        assert refused.problem == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 1200
        assert refused.json["retry_after_ms"]
        assert (await Page(door, scene.channel.external_id, address="203.0.113.8").begin()).status == 201
        spoofed = Page(door, scene.channel.external_id, address="198.51.100.1, 203.0.113.7")
        assert (await spoofed.begin()).status == 429, "what the person's own proxy says is not believed"


async def test_a_line_of_the_persons_own_is_not_believed(serve: Serve, scene: Scene) -> None:
    """Some proxies add a second X-Forwarded-For instead of going on with the first."""
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="1/3600") as door:
        statuses = []
        for number in range(3):
            headers = [
                ("Origin", ORIGIN),
                ("X-Forwarded-For", f"198.51.100.{number}"),
                ("X-Forwarded-For", "203.0.113.7"),
            ]
            body = {"site_key": scene.channel.external_id}
            async with door.http.post(f"{door.url}/widget/v1/sessions", json=body, headers=headers) as response:
                statuses.append(response.status)
        assert statuses == [201, 429, 429]


async def test_an_address_of_ipv4_written_as_ipv6_is_its_own(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="1/3600") as door:
        for address, status in (("::ffff:203.0.113.1", 201), ("::ffff:203.0.113.2", 201), ("203.0.113.2", 429)):
            assert (await Page(door, scene.channel.external_id, address=address).begin()).status == status


async def test_one_network_of_ipv6_is_one_address(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="1/3600") as door:
        assert (await Page(door, scene.channel.external_id, address="2001:db8::1").begin()).status == 201
        assert (await Page(door, scene.channel.external_id, address="2001:db8::2").begin()).status == 429
        assert (await Page(door, scene.channel.external_id, address="2001:db8:0:1::1").begin()).status == 201


async def test_a_known_visitor_is_not_counted_as_new(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="1/3600") as door:
        page = Page(door, scene.channel.external_id, address="203.0.113.7")
        assert [(await page.begin()).status for _ in range(5)] == [201] * 5


async def test_a_visitor_writes_five_at_once_and_then_one_a_second(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    answers = [await page.write(f"m{number}") for number in range(6)]
    assert [answer.status for answer in answers] == [202] * 5 + [429]
    assert 0 < int(str(answers[-1].json["retry_after_ms"])) <= 1000
    assert await scene.value("SELECT count(*) FROM jobs") == 5


async def test_an_address_begins_a_few_conversations(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_conversations_per_address="1/3600") as door:
        first = Page(door, scene.channel.external_id, address="203.0.113.7")
        await first.begin()
        assert (await first.write("hello")).status == 202
        await save_all(scene)
        await first.begin()
        assert (await first.write("and more")).status == 202, "their conversation has begun"
        second = Page(door, scene.channel.external_id, address="203.0.113.7")
        await second.begin()
        assert (await second.write("hello")).problem == (429, "rate_limited")


async def test_a_conversation_is_counted_once_also_while_no_worker_saves_it(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_conversations_per_address="2/3600") as door:
        ana, ben = (Page(door, scene.channel.external_id, address="203.0.113.7") for _ in range(2))
        for page in (ana, ben):
            await page.begin()
        assert [(await ana.write(f"m{number}")).status for number in range(4)] == [202] * 4
        assert (await ben.write("hello")).status == 202


async def test_a_sites_month_may_be_full(door: Door, database: Database) -> None:
    site = await make_site(database, messages_per_month="1")
    page = await open_page(door, site.channel)
    assert (await page.write("one")).status == 202
    await save_all(site)
    other = await open_page(door, site.channel)
    await until(lambda: _is_full(other), what="the month to be full", timeout_s=30)


async def _is_full(page: Page) -> bool:
    return (await page.write("two")).json.get("code") == "monthly_limit"


async def test_limits_are_off_while_redis_is_away(serve: Serve, scene: Scene) -> None:
    async with serve(redis_url="redis://127.0.0.1:9/0") as door:
        page = await open_page(door, scene.channel)
        assert [(await page.write(f"m{number}")).status for number in range(7)] == [202] * 7
        assert (await page.call("POST", "/tickets")).problem == (503, "redis_unavailable")


async def test_a_redis_that_hangs_holds_nobody_up(serve: Serve, scene: Scene, valkey_url: str) -> None:
    async with FaultProxy(valkey_url) as proxy, serve(redis_url=proxy.url()) as door:
        page = await open_page(door, scene.channel)
        proxy.freeze(replies_only=True)
        async with asyncio.timeout(8):  # Redis itself is given up after 10 s
            assert (await page.write("hello")).status == 202
            await save_all(scene)
            assert await page.history() == [("user", "hello")]
            async with page.stream("?after=0") as stream:
                await until(lambda: stream.logged == [(1, "hello")], what="the message")


async def test_without_redis_a_visitor_has_a_bounded_number_of_streams(serve: Serve, scene: Scene) -> None:
    async with serve(redis_url="redis://127.0.0.1:9/0", widget_streams_per_visitor=2) as door:
        page = await open_page(door, scene.channel)
        headers = {**page.headers, "Authorization": f"Bearer {page.session_token}"}
        opened = [await door.http.get(f"{door.url}/widget/v1/events", headers=headers) for _ in range(6)]
        assert sorted(response.status for response in opened) == [200] * 4 + [429] * 2
        for response in opened:
            response.close()


# Other people's things.


async def test_identities_of_two_sites_are_two(door: Door, scene: Scene, database: Database) -> None:
    other = await make_site(database)
    here = await open_page(door, scene.channel, user={"id": "u1", "hash": _hash("u1")})
    there = await open_page(door, other.channel, user={"id": "u1", "hash": _hash("u1")})
    await here.write("hello")
    await save_all(scene)
    assert await there.history() == []
    assert here.conversation_id != there.conversation_id


async def test_what_a_server_writes_first_is_in_the_users_conversation(door: Door, scene: Scene) -> None:
    user = await open_page(door, scene.channel, user={"id": "u1", "hash": _hash("u1")})
    await scene.hear("from the server", sender="u1", identity_kind="external")
    await user.write("from the page")
    await save_all(scene)
    assert await user.history() == [("user", "from the server"), ("user", "from the page")]


async def test_a_ticket_is_for_one_conversation(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    ticket = (await page.call("POST", "/tickets")).json["ticket"]
    await scene.fetch("UPDATE visitors SET conversation_id = gen_random_uuid()")
    door.api.state.guests = Guests(door.app, door.api.state.sites)  # which remembers nobody from a moment ago
    assert (await page.call("GET", f"/events?ticket={ticket}")).problem == (401, "session_expired")


async def test_a_switched_off_widget_ends_its_sessions(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await channels.update(
        scene.database, VAULT, scene.channel.id, customer_id=scene.customer.id, changes={"enabled": False}
    )

    async def refused() -> bool:
        return (await page.call("GET", "/messages")).status == 401

    await until(refused, timeout_s=15, what="the end of the session")
