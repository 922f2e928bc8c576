"""Faults of calls, on the wire: what the caller gets, and whether it was carried out."""

import asyncio

import aiohttp
import pytest

from replyline.standins import Standins
from replyline.standins.faults import MAX_RULES
from tests.channels.far_end import FarEnd
from tests.standins.side import Side
from tests.waiting import until


async def test_a_slow_call_is_carried_out_and_answered_late(cloud: Side) -> None:
    await cloud.fault("slow", seconds=0.3)
    before = asyncio.get_running_loop().time()
    said = await cloud.send_by_cloud()
    assert asyncio.get_running_loop().time() - before >= 0.3
    assert (said.status, len(await cloud.sent())) == (200, 1)


async def test_an_error_is_answered_and_nothing_is_carried_out(cloud: Side) -> None:
    await cloud.fault("error", status=503, body={"what": "down"}, headers={"Retry-After": "7"})
    said = await cloud.send_by_cloud()
    assert (said.status, said.json(), said.headers["Retry-After"]) == (503, {"what": "down"}, "7")
    assert await cloud.sent() == []


async def test_an_error_can_be_a_page_of_a_proxy(cloud: Side) -> None:
    await cloud.fault("error", status=502, body="<h1>Bad gateway</h1>", headers={"Content-Type": "text/html"})
    said = await cloud.send_by_cloud()
    assert (said.status, said.raw, said.headers["Content-Type"]) == (502, b"<h1>Bad gateway</h1>", "text/html")


async def test_an_error_can_have_an_empty_body(cloud: Side) -> None:
    await cloud.fault("error", status=502, body="")
    assert (await cloud.send_by_cloud()).raw == b""


async def test_a_redirect_can_be_answered(customer: Side) -> None:
    await customer.fault("error", status=302, headers={"Location": "http://127.0.0.1:1/"})
    said = await customer.call("POST", "/hook", {})
    assert (said.status, said.headers["Location"]) == (302, "http://127.0.0.1:1/")


async def test_a_slow_error_comes_late(openai: Side) -> None:
    await openai.fault("error", status=500, seconds=0.3)
    before = asyncio.get_running_loop().time()
    assert (await openai.call("POST", "/v1/chat/completions", {})).status == 500
    assert asyncio.get_running_loop().time() - before >= 0.3


@pytest.mark.parametrize(
    ("code", "status", "title"),
    [
        (190, 401, "Access token has expired"),
        (130429, 429, "Rate limit hit"),
        (131056, 429, "(Business Account, Consumer Account) pair rate limit hit"),
        (131000, 500, "Something went wrong"),
    ],
)
async def test_an_error_of_meta_has_its_form(cloud: Side, code: int, status: int, title: str) -> None:
    await cloud.fault("error", code=code)
    said = await cloud.send_by_cloud()
    error = said.error()
    assert (said.status, error["code"], error["message"]) == (status, code, f"(#{code}) {title}")
    assert (error["type"], error["error_data"]) == (
        "OAuthException",
        {"messaging_product": "whatsapp", "details": "told to fail"},
    )
    assert error["fbtrace_id"]


async def test_an_error_of_meta_may_have_another_status(cloud: Side) -> None:
    await cloud.fault("error", code=130429, status=400)
    said = await cloud.send_by_cloud()
    assert (said.status, said.error()["code"]) == (400, 130429)


@pytest.mark.parametrize(
    ("told", "status", "code", "retryable"),
    [
        ({"code": "paced"}, 429, "paced", True),
        ({"code": "restricted"}, 423, "restricted", False),
        ({"code": "not_on_whatsapp"}, 422, "not_on_whatsapp", False),
        ({"status": 409}, 409, "not_connected", True),
        ({"status": 502}, 502, "internal", True),
    ],
    ids=str,
)
async def test_an_error_of_the_gateway_has_its_form(
    *, qr: Side, told: dict[str, object], status: int, code: str, retryable: bool
) -> None:
    await qr.fault("error", **told)
    said = await qr.send_by_qr()
    error = said.error()
    assert (said.status, error["code"], error["retryable"]) == (status, code, retryable)


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        ({"code": "insufficient_quota"}, 429, "insufficient_quota"),
        ({"code": "context_length_exceeded"}, 400, "context_length_exceeded"),
        ({"status": 429}, 429, "rate_limit_exceeded"),
        ({"status": 503}, 503, "server_is_overloaded"),
    ],
    ids=str,
)
async def test_an_error_of_openai_has_its_form(openai: Side, told: dict[str, object], status: int, code: str) -> None:
    await openai.fault("error", **told)
    said = await openai.call("POST", "/v1/chat/completions", {})
    assert (said.status, said.error()["code"]) == (status, code)
    assert set(said.error()) == {"message", "type", "param", "code"}


async def test_a_call_cut_before_is_not_carried_out(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("cut_before")
    with pytest.raises(aiohttp.ClientError):
        await cloud.send_by_cloud()
    assert (await cloud.sent(), door.calls) == ([], [])
    assert [call.status for call in (await cloud.calls()).calls] == [None]


async def test_a_call_cut_after_is_carried_out_with_its_callbacks(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("cut_after_accept")
    with pytest.raises(aiohttp.ClientError):
        await cloud.send_by_cloud("Did you get this?")
    assert [sent.text for sent in await cloud.sent()] == ["Did you get this?"]
    await until(lambda: len(door.calls) == 2)
    assert [call.status for call in (await cloud.calls()).calls] == [None]


async def test_a_fault_ends_after_its_times(cloud: Side) -> None:
    await cloud.fault("error", status=500, times=2)
    assert [(await cloud.send_by_cloud()).status for _ in range(3)] == [500, 500, 200]
    assert (await cloud.call("GET", "/_faults")).raw == b"[]"


async def test_a_fault_hits_its_share_of_calls_the_same_with_the_same_seed(customer: Side) -> None:
    async def hits() -> list[int]:
        await customer.call("DELETE", "/_faults")
        await customer.fault("error", status=500, rate=0.5, seed=7)
        return [(await customer.call("POST", "/hook", {})).status for _ in range(40)]

    first = await hits()
    assert first == await hits()
    assert 8 <= first.count(500) <= 32


async def test_a_fault_is_for_calls_that_match(cloud: Side) -> None:
    await cloud.fault("error", status=500, match={"path": "/messages", "contains": "unlucky"})
    assert (await cloud.send_by_cloud("lucky")).status == 200
    assert (await cloud.send_by_cloud("unlucky")).status == 500


async def test_a_fault_of_another_path_is_not_for_this_one(customer: Side) -> None:
    await customer.fault("error", status=500, match={"path": "/hook?tenant=1"})
    paths = ("/hook?tenant=1", "/hook?tenant=2", "/other")
    assert [(await customer.call("POST", path, {})).status for path in paths] == [500, 200, 200]


async def test_the_first_fault_that_fits_decides(cloud: Side) -> None:
    faults = [
        {"kind": "error", "status": 500, "match": {"contains": "cat"}},
        {"kind": "error", "status": 503},
    ]
    await cloud.tell("/_faults", faults)
    assert [(await cloud.send_by_cloud(text)).status for text in ("cat", "dog")] == [500, 503]


async def test_control_routes_do_not_fail(cloud: Side) -> None:
    await cloud.fault("cut_before")
    assert (await cloud.call("GET", "/_sent")).status == 200
    assert (await cloud.call("DELETE", "/_faults")).status == 200
    assert (await cloud.send_by_cloud()).status == 200


@pytest.mark.parametrize(
    ("name", "body", "wrong"),
    [
        ("openai", b"nonsense", "not a fault"),
        ("openai", {}, "missing required field `kind`"),
        ("openai", {"kind": "explode"}, "Invalid value 'explode'"),
        ("openai", {"kind": "slow"}, "missing required field `seconds`"),
        ("openai", {"kind": "slow", "seconds": -1}, "$.seconds"),
        ("openai", {"kind": "cut_before", "status": 500}, "unknown field `status`"),
        ("openai", {"kind": "error", "rate": 2}, "$.rate"),
        ("openai", {"kind": "error", "times": 0}, "$.times"),
        ("openai", {"kind": "error", "match": {"body": "x"}}, "unknown field `body`"),
        ("openai", {"kind": "callback_drop"}, "openai does not take the fault callback_drop"),
        ("openai", {"kind": "error", "code": "tired"}, "code is one of"),
        ("customer", {"kind": "status_failed"}, "customer does not take the fault status_failed"),
        ("customer", {"kind": "error", "code": 1}, "code means nothing here"),
        ("qr_gateway", {"kind": "callback_batch"}, "qr_gateway does not take the fault callback_batch"),
        ("qr_gateway", {"kind": "error", "code": 131056}, "code is one of"),
        ("whatsapp_cloud", {"kind": "error", "code": "paced"}, "code is a number here"),
        ("whatsapp_cloud", [{"kind": "cut_before"}, {"kind": "callback_batch", "size": 1}], "$[1].size"),
        ("whatsapp_cloud", [{"kind": "cut_before"}] * (MAX_RULES + 1), f"at most {MAX_RULES} faults"),
    ],
)
async def test_a_bad_fault_is_refused_in_words_and_none_is_added(
    standins: Standins, http: aiohttp.ClientSession, name: str, body: object, wrong: str
) -> None:
    side = Side(standins.urls[name], http)
    said = await side.call("POST", "/_faults", body)
    assert said.status == 400
    assert wrong in str(said.json()["error"])
    assert (await side.call("GET", "/_faults")).raw == b"[]"
