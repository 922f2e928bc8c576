"""Stand-ins start and stop, several at a time, and say what is wrong with what they are told."""

import socket

import aiohttp
import pytest

from replyline.standins import Standins
from replyline.standins.server import MAX_BODY_BYTES
from tests.standins.side import Side


async def test_each_has_a_port_of_its_own(standins: Standins) -> None:
    assert sorted(standins.urls) == ["customer", "openai", "qr_gateway", "whatsapp_cloud"]
    assert len(set(standins.urls.values())) == 4


async def test_two_instances_know_nothing_of_each_other(standins: Standins, http: aiohttp.ClientSession) -> None:
    async with Standins() as others:
        await Side(standins.urls["customer"], http).call("POST", "/hook", {})
        assert (await Side(others.urls["customer"], http).calls()).calls == []


async def test_a_port_can_be_fixed(http: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    async with Standins(ports={"customer": port}) as running:
        assert running.urls["customer"] == f"http://127.0.0.1:{port}"
        assert (await Side(running.urls["customer"], http).call("POST", "/", {})).status == 200


async def test_where_a_port_is_taken_none_listens(http: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        standins = Standins(ports={"customer": taken.getsockname()[1]})
        with pytest.raises(OSError, match="in use"):
            await standins.start()
    with pytest.raises(aiohttp.ClientConnectorError):
        await Side(standins.urls["openai"], http).call("GET", "/_calls")


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such stand-in: mail"):
        Standins(ports={"mail": 0})


@pytest.mark.parametrize("name", ["whatsapp_cloud", "qr_gateway", "openai", "customer"])
async def test_a_body_too_large_is_refused_and_recorded(
    standins: Standins, http: aiohttp.ClientSession, name: str
) -> None:
    side = Side(standins.urls[name], http)
    said = await side.call("POST", "/v25.0/1/messages", b"a" * (MAX_BODY_BYTES + 1))
    assert said.status == 413
    assert "error" in said.json()
    assert [call.status for call in (await side.calls()).calls] == [413]


@pytest.mark.parametrize(
    ("name", "body", "wrong"),
    [
        ("whatsapp_cloud", b"{", "truncated"),
        ("whatsapp_cloud", {"numbers": {"1": {}}}, "1: Object missing required field `access_token`"),
        ("whatsapp_cloud", {"numbers": {"1": {"access_token": "t", "colour": 1}}}, "unknown field `colour`"),
        ("whatsapp_cloud", {"numbers": {"1": {"access_token": "t", "callback_url": "door"}}}, "callback_url"),
        ("whatsapp_cloud", {"statuses": ["seen"]}, "Invalid enum value 'seen'"),
        ("whatsapp_cloud", {"retry": {"tries": 0}}, "$.retry.tries"),
        ("qr_gateway", {"sessions": {"a": {"state": "asleep"}}}, "a: Invalid enum value 'asleep'"),
        ("openai", {"think_s": -1}, "$.think_s"),
        ("openai", {"keys": "k"}, "unknown field `keys`"),
        ("customer", {"endpoints": {"/hook": {"secret": "whsec_***"}}}, "/hook: a secret is `whsec_` and base64"),
    ],
)
async def test_a_bad_configuration_is_refused_in_words(
    standins: Standins, http: aiohttp.ClientSession, name: str, body: object, wrong: str
) -> None:
    said = await Side(standins.urls[name], http).call("POST", "/_configure", body)
    assert said.status == 400
    assert wrong in str(said.json()["error"])


async def test_a_configuration_is_laid_over_what_is_there(cloud: Side) -> None:
    await cloud.tell("/_configure", {"numbers": {"2": {"access_token": "other"}}})
    await cloud.tell("/_configure", {"statuses": []})
    assert (await cloud.send_by_cloud()).status == 200


async def test_one_field_of_a_session_can_be_changed(qr: Side) -> None:
    await qr.tell("/_configure", {"sessions": {"shop/1": {"state": "closed"}}})
    assert (await qr.send_by_qr()).error()["code"] == "not_connected"
