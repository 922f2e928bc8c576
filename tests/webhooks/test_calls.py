"""Calls of a customer's endpoint: what goes over the wire, and what every answer means."""

import email.utils
import gzip
import time
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from standardwebhooks import Webhook

from replyline import webhooks
from replyline.errors import JobError, Permanent, RateLimited, Temporary
from tests.channels.far_end import Cut, FarEnd, Hang, Say, closed_port
from tests.webhooks.delivering import BODY, SECRET, deliver


@pytest.fixture
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that may go to loopback."""
    async with webhooks.open_webhook_session(allow_private=True, timeout_s=20) as session:
        yield session


@pytest.fixture
async def impatient() -> AsyncIterator[aiohttp.ClientSession]:
    """The same, waiting 0.3 s for a whole call."""
    async with webhooks.open_webhook_session(allow_private=True, timeout_s=0.3) as session:
        yield session


async def test_what_goes_over_the_wire_is_signed_and_named(
    far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    outcome = await deliver(open_session, f"{far_end.url}/hooks?tenant=7")
    (call,) = far_end.calls
    assert outcome.error is None
    assert (call.method, call.path, call.body) == ("POST", "/hooks", BODY)
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("Replyline-Webhooks/")
    assert call.headers["webhook-id"] == "evt_1"
    assert Webhook(SECRET).verify(call.body, dict(call.headers)) == msgspec.json.decode(BODY)


@pytest.mark.parametrize(
    ("say", "kind", "error", "reason"),
    [
        (Say(200, b"ok"), "2xx", type(None), None),
        (Say(204), "2xx", type(None), None),
        (Say(302, headers={"Location": "/elsewhere"}), "3xx", Temporary, "redirect"),
        (Say(307, headers={"Location": "/elsewhere"}), "3xx", Temporary, "redirect"),
        (Say(400), "4xx", Temporary, "http_400"),
        (Say(401), "4xx", Temporary, "http_401"),
        (Say(404), "4xx", Temporary, "http_404"),
        (Say(410), "4xx", Permanent, "endpoint_gone"),
        (Say(429), "4xx", Temporary, "http_429"),
        (Say(429, headers={"Retry-After": "30"}), "4xx", RateLimited, "endpoint_asks_to_wait"),
        (Say(503, headers={"Retry-After": "30"}), "5xx", RateLimited, "endpoint_asks_to_wait"),
        (Say(500), "5xx", Temporary, "http_500"),
        (Say(503), "5xx", Temporary, "http_503"),
    ],
    ids=lambda value: f"{value.status}-{dict(value.headers)}" if isinstance(value, Say) else None,
)
async def test_every_answer_has_its_meaning(
    *,
    say: Say,
    kind: str,
    error: type[JobError | None],
    reason: str | None,
    far_end: FarEnd,
    open_session: aiohttp.ClientSession,
) -> None:
    far_end.then = [say]
    outcome = await deliver(open_session, far_end.url)
    assert type(outcome.error) is error
    assert getattr(outcome.error, "reason", None) == reason
    assert (outcome.status_code, outcome.kind) == (say.status, kind)
    assert outcome.duration_ms >= 0
    assert len(far_end.calls) == 1


@pytest.mark.parametrize(
    ("asked", "after_s"), [("30", 30.0), ("0", 5.0), ("-1", 5.0), ("999999", 3600.0), ("inf", 3600.0)]
)
async def test_a_wait_that_an_endpoint_asks_for_is_kept_within_bounds(
    asked: str, after_s: float, far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    far_end.then = [Say(429, headers={"Retry-After": asked})]
    error = (await deliver(open_session, far_end.url)).error
    assert isinstance(error, RateLimited)
    assert error.after == after_s


async def test_a_wait_until_a_date_is_understood(far_end: FarEnd, open_session: aiohttp.ClientSession) -> None:
    far_end.then = [Say(503, headers={"Retry-After": email.utils.formatdate(time.time() + 120, usegmt=True)})]
    error = (await deliver(open_session, far_end.url)).error
    assert isinstance(error, RateLimited)
    assert 100 < error.after <= 120


async def test_a_wait_until_a_date_is_counted_by_the_clock_that_set_it(
    far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    """Failed before: two machines whose clocks are a day apart waited an hour, the longest there is, or not at all."""
    answered, until_ = (email.utils.formatdate(time.time() + ahead_s, usegmt=True) for ahead_s in (86_400, 86_460))
    far_end.then = [Say(503, headers={"Date": answered, "Retry-After": until_})]
    error = (await deliver(open_session, far_end.url)).error
    assert isinstance(error, RateLimited)
    assert error.after == 60


@pytest.mark.parametrize("asked", ["", "soon", "nan", "Wed, 99 Oct 2015 07:28:00 GMT"])
async def test_a_wait_that_cannot_be_read_is_a_failure_like_any_other(
    asked: str, far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    far_end.then = [Say(429, headers={"Retry-After": asked})]
    assert isinstance((await deliver(open_session, far_end.url)).error, Temporary)


async def test_an_endpoint_that_does_not_answer_in_time_is_tried_again(
    far_end: FarEnd, impatient: aiohttp.ClientSession
) -> None:
    far_end.then = [Hang()]
    outcome = await deliver(impatient, far_end.url)
    assert isinstance(outcome.error, Temporary)
    assert (outcome.kind, outcome.status_code) == ("timeout", None)
    assert outcome.duration_ms >= 250


async def test_an_endpoint_that_drops_the_connection_is_tried_again(
    far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    far_end.then = [Cut()]
    outcome = await deliver(open_session, far_end.url)
    assert isinstance(outcome.error, Temporary)
    assert outcome.kind == "connection"


async def test_an_endpoint_that_is_not_there_is_tried_again(open_session: aiohttp.ClientSession) -> None:
    async with closed_port() as url:
        outcome = await deliver(open_session, url)
    assert isinstance(outcome.error, Temporary)
    assert (outcome.kind, outcome.status_code) == ("connection", None)


async def test_the_beginning_of_the_answer_is_kept_and_no_more(
    far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    far_end.then = [Say(500, "Fehler: ü\x00 ".encode() + b"x" * 5_000_000)]
    head = (await deliver(open_session, far_end.url)).response_head
    assert head is not None
    assert head.startswith("Fehler: ü x")
    assert len(head) == 500


async def test_a_compressed_answer_is_not_unfolded(far_end: FarEnd, open_session: aiohttp.ClientSession) -> None:
    bomb = gzip.compress(b"\x00" * 10_000_000)
    far_end.then = [Say(200, bomb, {"Content-Encoding": "gzip"})]
    outcome = await deliver(open_session, far_end.url)
    assert outcome.error is None
    assert len(outcome.response_head or "") <= 500
    assert far_end.calls[0].headers["accept-encoding"] == "identity"


async def test_a_status_counts_although_its_body_never_comes(far_end: FarEnd, impatient: aiohttp.ClientSession) -> None:
    far_end.then = [Say(200, b"", {"Content-Length": "1000"})]
    outcome = await deliver(impatient, far_end.url)
    assert (outcome.error, outcome.status_code) == (None, 200)
    assert (outcome.response_head or "").startswith("[the body did not arrive")


async def test_each_attempt_is_signed_afresh_under_the_same_id(
    far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    for _ in range(2):
        await deliver(open_session, far_end.url)
    assert {call.headers["webhook-id"] for call in far_end.calls} == {"evt_1"}
    for call in far_end.calls:
        assert abs(int(call.headers["webhook-timestamp"]) - time.time()) < 60
        assert Webhook(SECRET).verify(call.body, dict(call.headers))


async def test_a_cookie_that_one_endpoint_sets_is_never_sent(
    far_end: FarEnd, open_session: aiohttp.ClientSession
) -> None:
    far_end.then = [Say(200, headers={"Set-Cookie": "session=1; Path=/"})]
    for _ in range(2):
        await deliver(open_session, far_end.url)
    assert [call.headers.get("cookie") for call in far_end.calls] == [None, None]
