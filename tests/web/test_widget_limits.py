"""How often a visitor, an address and a site may do what, and what holds without Redis."""

import asyncio

import pytest

from replyline.store.database import Database
from tests.proxy import FaultProxy
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Door, Serve
from tests.web.page import ORIGIN, Page, make_site, open_page, save_all


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


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


async def test_networks_that_may_be_one_persons_make_a_few_addresses_worth_of_visitors(
    serve: Serve, scene: Scene
) -> None:
    """Failed before: each of the 65,536 networks of 64 bits in a /48 was an address of its own."""
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="1/3600") as door:

        async def begin(addresses: list[str]) -> list[int]:
            return [(await Page(door, scene.channel.external_id, address=one).begin()).status for one in addresses]

        assert await begin([f"2001:db8:1:{number:x}::1" for number in range(4)]) == [201, 201, 429, 429], "one /56"
        assert await begin([f"2001:db8:1:{number:x}00::1" for number in range(1, 5)]) == [201, 201, 429, 429], "its /48"
        assert await begin(["2001:db8:2::1", *(f"203.0.113.{number}" for number in range(6))]) == [201] * 7


async def test_a_flood_out_of_one_network_locks_no_newcomer_out(serve: Serve, scene: Scene) -> None:
    """Failed before: 25 visitors of one free /48 used up the site's limit, and everybody else was refused."""
    settings = {"widget_visitors_per_site": "20/3600", "widget_visitors_per_address": "10/3600"}
    async with serve(trusted_proxies="127.0.0.0/8", **settings) as door:
        flood = [
            (await Page(door, scene.channel.external_id, address=f"2001:db8:1:{number:x}00::1").begin()).status
            for number in range(25)
        ]
        assert flood == [201] * 13 + [429] * 12, "3 as newcomers, and the site's half for everybody"
        for honest in ("2001:db8:2::1", "203.0.113.7", "2a01:4f8::1", "198.51.100.7"):
            assert (await Page(door, scene.channel.external_id, address=honest).begin()).status == 201
        # The rest of the newcomers' half.
        for number in range(3):
            assert (await Page(door, scene.channel.external_id, address=f"192.0.2.{number}").begin()).status == 201
        full = await Page(door, scene.channel.external_id, address="192.0.2.99").begin()
        assert full.problem == (429, "rate_limited"), "20 in all"


async def test_visitors_of_one_ipv4_address_have_the_whole_limit_of_their_address(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="8/3600") as door:
        statuses = [
            (await Page(door, scene.channel.external_id, address="203.0.113.7").begin()).status for _ in range(9)
        ]
        assert statuses == [201] * 8 + [429]


async def test_a_known_visitor_is_not_counted_as_new(serve: Serve, scene: Scene) -> None:
    async with serve(trusted_proxies="127.0.0.0/8", widget_visitors_per_address="1/3600") as door:
        page = Page(door, scene.channel.external_id, address="203.0.113.7")
        assert [(await page.begin()).status for _ in range(5)] == [201] * 5


async def test_a_visitor_writes_five_at_once_and_then_one_a_second(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    answers = [await page.write(f"m{number}") for number in range(6)]
    assert [answer.status for answer in answers] == [202] * 5 + [429]
    assert 0 < int(str(answers[-1].json["retry_after_ms"])) <= 1000
    assert await scene.value("SELECT count(*) FROM all_jobs") == 5


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
