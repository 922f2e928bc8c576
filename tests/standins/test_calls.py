"""Calls are kept, bounded in number and bytes, and read page by page."""

import pytest

from replyline.standins.calls import MAX_BODY_BYTES, Calls
from tests.standins.side import TOKEN, Side


def _kept(*bodies: bytes, most: int = 100, most_bytes: int = 1_000_000) -> Calls:
    calls = Calls(most=most, most_bytes=most_bytes)
    for body in bodies:
        calls.add("POST", "/", (), body, 200)
    return calls


async def test_a_call_is_recorded_as_it_came(customer: Side) -> None:
    await customer.call("POST", "/hook?x=1", {"a": [1, "ü"]}, headers={"Webhook-Id": "msg_1"})
    (call,) = (await customer.calls()).calls
    assert (call.method, call.path, call.body, call.status) == ("POST", "/hook?x=1", {"a": [1, "ü"]}, 200)
    assert call.headers["webhook-id"] == "msg_1"


async def test_a_body_that_is_not_json_is_recorded_as_text(customer: Side) -> None:
    await customer.call("POST", "/hook", b"a=1&b=2")
    assert (await customer.calls()).calls[0].body == "a=1&b=2"


async def test_secrets_in_headers_are_not_recorded(cloud: Side) -> None:
    await cloud.send_by_cloud()
    said = await cloud.call("GET", "/_calls")
    assert TOKEN.encode() not in said.raw
    assert (await cloud.calls()).calls[0].headers["authorization"] == "[redacted]"


async def test_pages_follow_each_other_by_next(customer: Side) -> None:
    for number in range(3):
        await customer.call("POST", "/hook", {"n": number})
    first = await customer.calls()
    await customer.call("POST", "/hook", {"n": 3})
    second = await customer.calls(first.next)
    nothing = await customer.calls(second.next)
    assert [call.body for call in second.calls] == [{"n": 3}]
    assert (nothing.calls, nothing.next) == ([], second.next)


def test_a_page_has_no_more_than_it_may() -> None:
    calls = _kept(b"0", b"1", b"2", b"3", b"4")
    first = calls.page(0, most=2)
    assert ([call.body for call in first.calls], first.next) == ([0, 1], 2)
    assert [call.body for call in calls.page(first.next, most=2).calls] == [2, 3]


async def test_deleted_calls_are_gone_and_numbers_go_on(customer: Side) -> None:
    await customer.call("POST", "/hook", {"n": 0})
    seen = (await customer.calls()).next
    await customer.call("DELETE", "/_calls")
    await customer.call("POST", "/hook", {"n": 1})
    page = await customer.calls(seen)
    assert [call.body for call in page.calls] == [{"n": 1}]


async def test_a_since_that_is_no_number_is_refused(customer: Side) -> None:
    said = await customer.call("GET", "/_calls?since=yesterday")
    assert said.status == 400
    assert "since is a number" in str(said.json()["error"])


def test_a_since_from_before_a_restart_starts_again() -> None:
    page = _kept(b"0").page(5000)
    assert (page.calls, page.next) == ([], 1)


def test_of_more_calls_than_may_be_kept_the_newest_stay() -> None:
    page = _kept(b"0", b"1", b"2", most=2).page(0)
    assert ([call.body for call in page.calls], page.next) == ([1, 2], 3)


def test_of_more_bytes_than_may_be_kept_the_newest_stay() -> None:
    page = _kept(b'"' + b"a" * 98 + b'"', b'"' + b"b" * 98 + b'"', most_bytes=150).page(0)
    assert [call.body for call in page.calls] == ["b" * 98]


def test_calls_that_are_gone_take_no_room() -> None:
    calls = _kept(b"1" * 100, most_bytes=150)
    calls.clear()
    calls.add("POST", "/", (), b"2" * 100, 200)
    assert len(calls.page(0).calls) == 1


def test_of_a_long_body_the_beginning_is_kept() -> None:
    (call,) = _kept(b'"' + b"a" * MAX_BODY_BYTES + b'"').page(0).calls
    assert call.body == '"' + "a" * (MAX_BODY_BYTES - 1)


@pytest.mark.parametrize("secret", [b"Authorization", b"X-Api-Key", b"Cookie"])
def test_every_header_that_carries_a_secret_is_redacted(secret: bytes) -> None:
    calls = Calls()
    calls.add("GET", "/", ((secret, b"open sesame"), (b"Host", b"here")), b"", 200)
    (call,) = calls.page(0).calls
    assert call.headers == {secret.decode().lower(): "[redacted]", "host": "here"}
