"""The gateway driven end to end: pairing, backlog, echoes, a human on the telephone, crashes, two that want one session."""

import asyncio
from collections import Counter
from itertools import pairwise

import aiohttp
import msgspec
import pytest
from aiohttp import web

from replyline.channels import CHANNELS, ChannelAccount
from tests.channels.contract_suite import make_account
from tests.gateway.conftest import JID, Shop
from tests.gateway.process import TOKEN, GatewayFolder
from tests.make import QR_SECRETS
from tests.waiting import until


async def test_a_telephone_is_paired_by_the_picture_and_answers(shop: Shop) -> None:
    await shop.connect()

    async def code() -> bool:
        return (await shop.call("GET", "/qr.svg")).status == 200

    await until(code)
    await shop.gateway.script(shop.door.http, shop.session, "scan", phone="4915100000001")

    async def opened() -> bool:
        return (await shop.call("GET", "")).json["state"] == "open"

    await until(opened)
    assert (await shop.call("GET", "")).json["phone"] == "4915100000001"
    await shop.hear("Hello", message_id="A1")
    await until(lambda: len(shop.arrived()) == 1, timeout_s=20)
    (sent,) = shop.folder.lines("send")
    assert (sent.jid, sent.id and sent.id.startswith("3EB0")) == (JID, True)

    async def delivered() -> bool:
        return await shop.value("SELECT status FROM messages WHERE direction = 'OUTBOUND'") == "DELIVERED"

    await until(delivered)
    assert await shop.value("SELECT external_id FROM messages WHERE direction = 'OUTBOUND'") == sent.id


async def test_a_telephone_is_paired_by_a_code(shop: Shop) -> None:
    await shop.connect()

    async def paired() -> bool:
        answer = await shop.call("POST", "/pair", json={"phone": "4915112345678"})
        return answer.status == 200 and answer.json["pairingCode"] is not None

    await until(paired)


async def test_the_offline_backlog_is_answered_and_old_history_is_not(shop: Shop) -> None:
    await shop.pair()
    await shop.hear("while you were away", message_id="A1", kind="append")
    await shop.hear("from last week", message_id="A2", kind="append", age_s=7 * 86_400)
    await until(lambda: len(shop.arrived()) == 1, timeout_s=20)
    await until(shop.at_rest)
    assert await shop.value("SELECT string_agg(content, ',') FROM messages WHERE direction = 'INBOUND'") == (
        "while you were away"
    )


async def test_own_echoes_are_nothing_and_a_human_on_the_telephone_takes_over(shop: Shop) -> None:
    await shop.pair()
    await shop.hear("Hello", message_id="A1")
    await until(lambda: len(shop.arrived()) == 1, timeout_s=20)
    (sent,) = shop.folder.lines("send")
    assert sent.id is not None
    for kind in ("append", "notify"):
        await shop.hear(sent.text or "", message_id=sent.id, from_me=True, kind=kind)
    await shop.hear("I am on it", message_id="HUMAN1", from_me=True)

    async def taken_over() -> bool:
        return await shop.value("SELECT owner FROM conversations") == "HUMAN"

    await until(taken_over)
    assert await shop.value("SELECT count(*) FROM messages WHERE direction = 'OUTBOUND'") == 2
    await shop.hear("Thanks", message_id="A2")

    async def heard() -> bool:
        return await shop.value("SELECT count(*) FROM messages WHERE direction = 'INBOUND'") == 2

    await until(heard)
    await until(shop.at_rest)
    assert len(shop.arrived()) == 1


async def test_a_gateway_killed_in_the_middle_of_200_sends_sends_each_once(shop: Shop) -> None:
    await shop.pair()
    people = [f"49151{number:08}@s.whatsapp.net" for number in range(200)]
    await asyncio.gather(*(shop.hear("Hello", jid=jid, message_id=f"M{number}") for number, jid in enumerate(people)))
    await until(lambda: len(shop.arrived()) > 40, timeout_s=60)
    shop.gateway.kill()
    assert len(shop.arrived()) < 200
    await shop.move_to(await shop.folder.start(port=shop.gateway.port))

    async def all_there() -> bool:
        return len({line.jid for line in shop.folder.lines("send")}) == 200

    await until(all_there, timeout_s=60)
    await until(shop.at_rest, timeout_s=60)
    ids: dict[str | None, set[str | None]] = {}
    for line in shop.folder.lines("send"):
        ids.setdefault(line.jid, set()).add(line.id)
    assert sorted(filter(None, ids)) == sorted(people), "none lost"
    assert [jid for jid, seen in ids.items() if len(seen) != 1] == [], "no person has two messages"
    assert len({next(iter(seen)) for seen in ids.values()}) == 200
    assert await shop.value("SELECT count(*) FROM all_jobs WHERE state = 'DEAD'") == 0


async def test_of_two_gateways_one_has_the_session_and_the_other_takes_it_when_that_dies(shop: Shop) -> None:
    await shop.pair()
    first = shop.gateway
    second = await shop.folder.start()
    try:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with shop.door.http.get(f"{second.url}/v1/sessions/{shop.session}", headers=headers) as response:
            assert response.status == 421
            assert (await response.json())["error"]["code"] == "not_owner"
        first.kill()
        await shop.move_to(second)
        await shop.hear_when_open()
        await until(lambda: len(shop.arrived()) == 1, timeout_s=30)
        owners = [line.pid for line in shop.folder.lines("open")]
        assert owners[0] == first.pid
        assert set(owners[-1:]) == {second.pid}
        changes = sum(before != after for before, after in pairwise(owners))
        assert changes == 1, "never to and fro"
    finally:
        second.kill()


async def test_events_survive_a_gateway_that_is_killed_before_it_could_tell_them(
    folder: GatewayFolder,
) -> None:
    heard: list[str] = []
    account: ChannelAccount = make_account("WHATSAPP_QR", "shop", config={}, secrets=QR_SECRETS)

    async def take(request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        CHANNELS["WHATSAPP_QR"].verify(account, headers, raw)
        heard.extend(message.content for message in CHANNELS["WHATSAPP_QR"].parse(account, raw).messages)
        return web.Response(status=200)

    runner = web.AppRunner(_app(take))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await runner.cleanup()  # the address is known, and nobody is there
    gateway = await folder.start()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        body = {"webhook_url": f"http://127.0.0.1:{port}/hook", "webhook_secret": QR_SECRETS["secret"]}
        async with http.put(f"{gateway.url}/v1/sessions/shop", json=body) as response:
            assert response.status == 200
        await until(lambda: _is_in(http, gateway.url, "qr"))
        await gateway.script(http, "shop", "scan")
        await until(lambda: _is_in(http, gateway.url, "open"))
        for number in range(50):
            await gateway.hear(http, "shop", f"m{number}", jid=JID, message_id=f"M{number}")
        gateway.kill()
        runner = web.AppRunner(_app(take))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        again = await folder.start()
        try:
            await until(lambda: len(heard) >= 50, timeout_s=30)
            assert heard == [f"m{number}" for number in range(50)], "all, once, in their order"
        finally:
            again.kill()
            await runner.cleanup()


def _app(take: object) -> web.Application:
    app = web.Application()
    app.router.add_post("/hook", take)  # type: ignore[arg-type]
    return app


async def _is_in(http: aiohttp.ClientSession, url: str, state: str) -> bool:
    async with http.get(f"{url}/v1/sessions/shop") as response:
        return bool((await response.json())["state"] == state)


async def test_a_telephone_that_logs_out_holds_its_messages_until_it_is_paired_again(shop: Shop) -> None:
    await shop.pair()
    await shop.gateway.script(shop.door.http, shop.session, "close", code=401)

    async def unhealthy() -> bool:
        return await shop.value("SELECT health_reason FROM channels") == "session_logged_out"

    await until(unhealthy)
    await shop.pair()

    async def healthy() -> bool:
        return await shop.value("SELECT health FROM channels") == "HEALTHY"

    await until(healthy)
    await shop.hear("Hello", message_id="A1")
    await until(lambda: len(shop.arrived()) == 1, timeout_s=20)


@pytest.mark.parametrize("wrong", ["Bearer wrong-token-of-the-tests", ""])
async def test_nobody_speaks_to_the_gateway_without_its_token(folder: GatewayFolder, wrong: str) -> None:
    gateway = await folder.start()
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{gateway.url}/v1/sessions/x", headers={"Authorization": wrong}) as response,
        ):
            assert response.status == 401
            error = msgspec.convert((await response.json())["error"], dict[str, object])
            assert error["code"] == "unauthorized"
    finally:
        gateway.kill()


async def test_a_gateway_ends_in_order(folder: GatewayFolder) -> None:
    gateway = await folder.start()
    assert await gateway.terminate() == 0
    assert Counter(line.event for line in folder.lines("send")) == Counter()
