"""Webhooks: signatures that others can check, addresses that are refused, and what every answer of an endpoint means."""

import email.utils
import gzip
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from standardwebhooks import Webhook, WebhookVerificationError

from replyline import webhooks
from replyline.channels.fields import Fields
from replyline.channels.whatsapp_cloud.account import notice_in
from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.jobs import Identity
from replyline.notices import Preference
from replyline.statuses import StatusUpdate
from replyline.store.database import Database
from replyline.store.moves.notices import NoticedAccount, take_notices, take_preference
from replyline.store.moves.statuses import ReportedStatus
from replyline.store.outbox import Outbox
from replyline.webhooks import EVENTS, RefusedAddress, VettedResolver, check_url, new_secret, sample, sign
from tests.channels.far_end import Cut, FarEnd, Hang, Say, closed_port
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene

SECRET = new_secret()
BODY = '{"type":"message.received","data":{"content":"Grüße 👋"}}'.encode()

# Every way to name loopback, a private network or a metadata service that a URL parser or a resolver understands.
_INSIDE = """
127.0.0.1 127.9.9.9 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 169.254.169.254 192.0.2.1 198.18.0.1
224.0.0.1 240.0.0.1 255.255.255.255 [::1] [::] [fe80::1] [fc00::1] [fec0::1] [fd00:ec2::254] [ff02::1]
[2001:db8::1] [::ffff:127.0.0.1] [::ffff:a9fe:a9fe] [::ffff:0:127.0.0.1] [::127.0.0.1] [64:ff9b::7f00:1]
[64:ff9b:1::a00:1] [2002:7f00:1::] [5f00::1] １２７.０.０.１ ①②⑦.0.0.1 127。0。0。1 localhost
"""
INSIDE = _INSIDE.split()


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    """A customer's endpoint."""
    async with FarEnd() as server:
        yield server


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


@pytest.fixture
async def vetted_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session of production."""
    async with webhooks.open_webhook_session(allow_private=False, timeout_s=2) as session:
        yield session


async def deliver(session: aiohttp.ClientSession, url: str, *, allow_private: bool = True) -> webhooks.Outcome:
    """One attempt with the event `evt_1`."""
    return await webhooks.deliver(
        session, url=url, secret=SECRET, event_id="evt_1", body=BODY, allow_private=allow_private
    )


def test_a_signature_is_verified_by_the_standard_webhooks_library() -> None:
    headers = sign(SECRET, "evt_1", int(time.time()), BODY)
    assert Webhook(SECRET).verify(BODY, headers) == msgspec.json.decode(BODY)


def test_a_signature_does_not_hold_for_another_body_id_time_or_secret() -> None:
    now = int(time.time())
    headers = sign(SECRET, "evt_1", now, BODY)
    forged = [
        (BODY + b" ", headers, SECRET),
        (BODY, headers | {"webhook-id": "evt_2"}, SECRET),
        (BODY, headers | {"webhook-timestamp": str(now + 1)}, SECRET),
        (BODY, headers, new_secret()),
    ]
    for body, told, secret in forged:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, told)


def test_the_code_in_the_documentation_verifies_what_we_sign() -> None:
    page = (Path(__file__).parents[1] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def verify" in block]
    names: dict[str, Callable[[str, dict[str, str], bytes], None]] = {}
    exec(code, names)  # noqa: S102  our own page, as a reader would paste it
    headers = sign(SECRET, "evt_1", int(time.time()), BODY)
    names["verify"](SECRET, headers, BODY)
    for body, stamp in ((BODY + b" ", int(time.time())), (BODY, int(time.time()) - 301)):
        with pytest.raises(ValueError, match="not from Replyline"):
            names["verify"](SECRET, sign(SECRET, "evt_1", stamp, BODY), body)


def test_a_secret_is_new_each_time_and_has_24_random_bytes() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(secret.startswith("whsec_") and len(secret) == len("whsec_") + 32 for secret in made)


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
    "url", ["https://example.com", "https://example.com:8443/hooks?a=b", "https://8.8.8.8/", "https://[2606:4700::1]/"]
)
def test_an_endpoint_on_the_internet_is_fine(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com/", "https://"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "https://"),
        ("", "https://"),
        ("https://", "host"),
        ("https:///hooks", "host"),
        ("https://user@example.com/", "user or password"),
        ("https://:password@example.com/", "user or password"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "read"),
        ("https://example.com:port/", "read"),
        ("https://[::1/", "read"),
        ("https://127.1/", "ambiguous"),
        ("https://2130706433/", "ambiguous"),
        ("https://127.0.0.1./", "ambiguous"),
        ("https://017700000001/", "ambiguous"),
        ("https://0x7f.1/", "ambiguous"),
    ],
)
def test_a_url_that_can_never_work_is_refused_with_the_reason(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_url(url, allow_private=False)


@pytest.mark.parametrize("host", [*INSIDE, "LOCALHOST."])
def test_a_url_that_leads_inside_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"private or local|ambiguous"):
        check_url(f"https://{host}/", allow_private=False)


@settings(deadline=None, database=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_for_a_url_is_taken_or_refused(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            check_url(url, allow_private=False)
        except ValueError as refused:
            message = str(refused)
        else:
            message = "taken"
        assert message


def test_where_private_addresses_are_allowed_plain_http_is_too() -> None:
    check_url("http://127.0.0.1:8080/hooks", allow_private=True)
    with pytest.raises(ValueError, match="user or password"):
        check_url("http://user@127.0.0.1:8080/", allow_private=True)


@pytest.mark.parametrize("host", INSIDE)
async def test_a_call_that_skipped_the_check_still_never_connects_inside(
    host: str, far_end: FarEnd, vetted_session: aiohttp.ClientSession
) -> None:
    port = far_end.url.rpartition(":")[2]
    with pytest.raises(aiohttp.ClientError) as raised:
        await vetted_session.post(f"http://{host}:{port}/")
    assert isinstance(raised.value, aiohttp.InvalidURL) or isinstance(raised.value.__cause__, RefusedAddress)
    assert far_end.calls == []


async def test_a_name_that_resolves_inside_is_refused_when_it_is_delivered_to(
    vetted_session: aiohttp.ClientSession,
) -> None:
    url = "https://0x7f000001/hooks"  # a name to every URL parser, 127.0.0.1 to every resolver
    check_url(url, allow_private=False)
    outcome = await deliver(vetted_session, url, allow_private=False)
    assert isinstance(outcome.error, Permanent)
    assert (outcome.error.reason, outcome.kind, outcome.status_code) == ("refused_address", "refused_address", None)


async def test_an_address_on_the_internet_passes_the_resolver() -> None:
    resolver = VettedResolver()
    found = await resolver.resolve("8.8.8.8", 443)
    await resolver.close()
    assert {result["host"] for result in found} == {"8.8.8.8"}


async def test_a_refused_url_is_an_outcome_without_a_call(
    far_end: FarEnd, vetted_session: aiohttp.ClientSession
) -> None:
    outcome = await deliver(vetted_session, far_end.url, allow_private=False)
    assert isinstance(outcome.error, Permanent)
    assert outcome.error.reason == "refused_address"
    assert far_end.calls == []


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


def test_every_event_has_a_meaning_and_a_sample_of_its_own_type() -> None:
    for name, meaning in EVENTS.items():
        assert meaning
        assert sample(name)["type"] == name
    with pytest.raises(KeyError):
        sample("message.forgotten")


async def test_the_samples_have_the_fields_that_the_pipeline_writes(database: Database) -> None:
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id)
    await scene.say("q1", "a1")
    await scene.route()
    await scene.send("wamid.1")
    for status in ("DELIVERED", "READ"):
        await scene.moves.apply_status(_reported(scene, "wamid.1", status))
    await scene.say("q2", "a2")
    await scene.route()
    await scene.fail_send()
    await scene.fall_ill("token_invalid")
    await scene.get_well()
    await _noticed(scene)
    rows = await scene.fetch("SELECT type, payload::text AS payload FROM webhook_events ORDER BY id")
    written = {row["type"]: msgspec.json.decode(row["payload"]) for row in rows}
    assert set(written) == set(EVENTS)
    for name, event in written.items():
        assert _shape(event) == _shape(sample(name)), name


async def _noticed(scene: Scene) -> None:
    """Meta says everything of the account that it may say."""
    business, value = msgspec.json.encode({"id": "1", "time": 1}), Raw(b'{"event": "REJECTED"}')
    fields = ("phone_number_quality_update", "message_template_status_update", "account_update")
    notices = [notice_in(field, Fields(business), value, fallback_template=None) for field in fields]
    wish = Preference((Identity("wa_id", "1650"),), opted_out=True, at=1764000000.0)
    account = NoticedAccount(scene.channel.id, scene.customer.id, probe_first_s=60)
    outbox = Outbox()
    async with scene.database.transaction() as connection:
        assert len(await take_notices(connection, account, [one for one in notices if one], outbox)) == len(fields)
        await take_preference(connection, scene.channel.id, wish, customer_id=scene.customer.id, outbox=outbox)


def _reported(scene: Scene, external_id: str, status: Literal["DELIVERED", "READ"]) -> ReportedStatus:
    update = StatusUpdate(external_id, status, datetime.now(UTC))
    return ReportedStatus(scene.channel.id, scene.customer.id, update)


def _shape(event: dict[str, object]) -> dict[str, object]:
    """The names in an event and the status it tells of."""
    data = event["data"]
    assert isinstance(data, dict)
    return {
        "top": sorted(event),
        "data": sorted(data),
        "status": data.get("status"),
        "direction": data.get("direction"),
    }
