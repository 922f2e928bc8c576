"""Users whom a site vouches for: found in every browser, and closed to whoever brings no proof."""

import asyncio
import hashlib
import hmac
import time

import jwt
import pytest

from replyline.store.database import Database
from tests.make import VAULT
from tests.store.scene import Scene
from tests.web.conftest import Door
from tests.web.page import IDENTITY_SECRET, Page, make_site, open_page, save_all


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


def _hash(user_id: str, secret: str = IDENTITY_SECRET) -> str:
    return hmac.new(secret.encode(), user_id.encode(), hashlib.sha256).hexdigest()


def _user_token(site_key: str, *, secret: str = IDENTITY_SECRET, **claims: object) -> str:
    return jwt.encode(
        {"sub": "u1", "aud": site_key, "exp": int(time.time()) + 300, **claims}, secret, algorithm="HS256"
    )


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
        _user_token(key, exp="soon"),
        _user_token(key, iat=now + 300),
        _user_token(key, nbf=now + 300),
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
