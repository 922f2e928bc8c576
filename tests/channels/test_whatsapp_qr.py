"""WhatsApp by QR: the contract suite, and what our gateway's contract has of its own."""

import hashlib
import hmac
import time
import uuid
from typing import ClassVar

import aiohttp
import msgspec
import pytest

from replyline.channels import CHANNELS, Callback, Channel, ChannelAccount, ForgedCallback
from replyline.channels.whatsapp_qr.events import SIGNATURE_TOLERANCE_S
from replyline.errors import ChannelDown, JobError, Permanent, RateLimited, Temporary
from replyline.jobs import Identity, MediaRef
from tests.channels.contract_suite import ChannelContract, make_account, outgoing
from tests.channels.far_end import Call, Cut, FarEnd, Hang, Say
from tests.channels.media_suite import PICTURE, MediaContract

SECRETS = {"secret": "callback-secret", "gateway_token": "gateway-token"}


def account_at(url: str = "http://127.0.0.1:9") -> ChannelAccount:
    """The session `shop`, sending through the gateway at `url`."""
    return make_account("WHATSAPP_QR", "shop", config={"gateway_url": url}, secrets=SECRETS)


def event(kind: str, **data: object) -> dict[str, object]:
    """One event of the gateway."""
    return {"id": "evt_1", "type": kind, "session": "shop", "ts": 1764000000, "data": data}


def a_message(**more: object) -> dict[str, object]:
    """An event with a message; `more` changes it."""
    data: dict[str, object] = {"id": "3EB0A", "from": "5511999999999@s.whatsapp.net", "text": "Hi", "name": "Ana"}
    return event("message", **data | {"timestamp": 1764000000} | more)


def parse(what: object) -> Callback:
    """The event, read."""
    return CHANNELS["WHATSAPP_QR"].parse(account_at(), msgspec.json.encode(what))


def sign(raw: bytes, stamp: str, secret: str = SECRETS["secret"]) -> dict[str, str]:
    """The gateway's headers."""
    signature = hmac.new(secret.encode(), stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
    return {"x-gateway-timestamp": stamp, "x-gateway-signature": f"v1={signature}"}


class TestWhatsAppQr(ChannelContract, MediaContract):
    """The suite, as our gateway speaks."""

    channel: ClassVar[Channel] = CHANNELS["WHATSAPP_QR"]
    limited_after_s: ClassVar[float] = 2.5

    def account(self, url: str = "http://127.0.0.1:9") -> ChannelAccount:
        return account_at(url)

    def callback(self) -> object:
        return a_message()

    def raw_callback(self) -> bytes:
        return msgspec.json.encode(a_message())

    def signed(self, account: ChannelAccount, raw: bytes) -> dict[str, str]:
        return sign(raw, str(int(time.time())), account.secrets["secret"])

    def accepted(self) -> tuple[Say, str]:
        return Say(202, {"message_id": "m", "wa_id": "3EB0C"}), "3EB0C"

    def refused(self) -> Say:
        return gateway_error(422, "not_on_whatsapp")

    def limited(self) -> Say:
        return gateway_error(429, "paced", retry_after_ms=2500)

    def our_id_of(self, call: Call) -> str | None:
        return call.headers.get("idempotency-key")

    def bearer_of(self, account: ChannelAccount) -> str:
        return account.secrets["gateway_token"]

    def odd_code(self) -> int | str:
        return "odd"

    def hands_over(self, url: str, data: bytes) -> list[Say | Hang | Cut]:
        return [Say(200, data)]

    def gone(self) -> Say:
        return gateway_error(404, "unknown_media")

    def file_sent(self, call: Call) -> tuple[object, object, object]:
        body = call.json()
        assert body["type"] == "media"
        return body["kind"], body["link"], body["caption"]


def gateway_error(status: int, code: str, **more: object) -> Say:
    """An error answer of the gateway."""
    return Say(status, {"error": {"code": code, "message": "It failed", "retryable": False, **more}})


@pytest.mark.parametrize("age_s", [SIGNATURE_TOLERANCE_S + 60, -SIGNATURE_TOLERANCE_S - 60])
def test_a_stale_signature_is_refused(age_s: float) -> None:
    raw = msgspec.json.encode(a_message())
    with pytest.raises(ForgedCallback):
        CHANNELS["WHATSAPP_QR"].verify(account_at(), sign(raw, str(time.time() - age_s)), raw)


def test_a_callback_repeated_by_the_gateway_after_a_day_is_still_taken() -> None:
    raw = msgspec.json.encode(a_message())
    CHANNELS["WHATSAPP_QR"].verify(account_at(), sign(raw, str(int(time.time()) - 24 * 3600)), raw)
    assert len(CHANNELS["WHATSAPP_QR"].parse(account_at(), raw).messages) == 1


@pytest.mark.parametrize("stamp", ["", "nan", "inf", "now"])
def test_a_signed_time_that_is_none_is_refused(stamp: str) -> None:
    raw = msgspec.json.encode(a_message())
    with pytest.raises(ForgedCallback):
        CHANNELS["WHATSAPP_QR"].verify(account_at(), sign(raw, stamp), raw)


def test_the_signed_time_cannot_be_replaced() -> None:
    raw = msgspec.json.encode(a_message())
    old = sign(raw, str(int(time.time()) - 2 * 86_400))
    with pytest.raises(ForgedCallback):
        CHANNELS["WHATSAPP_QR"].verify(account_at(), old | {"x-gateway-timestamp": str(int(time.time()))}, raw)


@pytest.mark.parametrize(
    ("sent_from", "sender", "kind"),
    [
        ("5511999999999@s.whatsapp.net", "5511999999999", "phone"),
        ("5511999999999:12@s.whatsapp.net", "5511999999999", "phone"),
        ("+5511999999999", "5511999999999", "phone"),
        ("123456@lid", "123456", "lid"),
    ],
)
def test_a_person_is_known_without_the_device_and_answered_where_they_wrote(
    sent_from: str, sender: str, kind: str
) -> None:
    (message,) = parse(a_message(**{"from": sent_from})).messages
    assert (message.sender, message.identity_kind, message.reply_to) == (sender, kind, sent_from)
    assert (message.external_id, message.content, message.name) == ("3EB0A", "Hi", "Ana")


@pytest.mark.parametrize(
    "what",
    [
        a_message(**{"from": "120363@g.us"}),
        a_message(**{"from": "status@broadcast"}),
        a_message(**{"from": "news@newsletter"}),
        a_message(**{"from": "@lid"}),
        a_message(**{"from": "0@s.whatsapp.net"}),
        a_message(type="reaction", text="👍", target="3EB0X", from_me=True),
        a_message(type="unknown", text="", from_me=True),
        a_message(type="edit", text="better", target="3EB0X", from_me=True),
        a_message(text=""),
        a_message(text="\x00"),
        a_message(type="edit"),
        a_message(type="revoke", target=""),
    ],
    ids=lambda what: str(what["data"]),
)
def test_what_asks_for_no_answer_is_counted(what: object) -> None:
    assert parse(what) == Callback(ignored=1)


@pytest.mark.parametrize(
    "what",
    [
        a_message(id=""),
        event("something_new"),
        event("session"),
        event("status", wa_id="3EB0A", status="pending"),
        event("status", wa_id="", status="sent"),
    ],
    ids=lambda what: str(what["data"]),
)
def test_what_is_not_understood_is_kept_as_it_came(what: dict[str, object]) -> None:
    (left,) = parse(what).unread
    assert msgspec.json.decode(left.raw) == what["data"]
    assert parse(what) == Callback(unread=(left,))


@pytest.mark.parametrize(
    ("more", "kind", "content", "target"),
    [
        ({"type": "reaction", "text": "👍", "target": "3EB0X"}, "reaction", "[reaction] 👍", "3EB0X"),
        ({"type": "edit", "text": "Until 7?", "target": "3EB0X"}, "edit", "Until 7?", "3EB0X"),
        ({"type": "revoke", "text": "", "target": "3EB0X"}, "revoke", "[deleted]", "3EB0X"),
        ({"type": "unknown", "text": ""}, "unsupported", "[unsupported]", None),
        ({"type": "image", "text": "Is this fresh?"}, "message", "[image] Is this fresh?", None),
        ({"type": "sticker", "text": ""}, "message", "[sticker]", None),
        ({"from_me": True, "text": "I am on it"}, "echo", "I am on it", None),
    ],
)
def test_every_kind_of_event_is_told_apart(
    more: dict[str, object], kind: str, content: str, target: str | None
) -> None:
    (found,) = parse(a_message(**more)).messages
    assert (found.kind, found.content, found.target_id) == (kind, content, target)


def test_the_other_address_of_a_person_links_the_two() -> None:
    (found,) = parse(a_message(**{"from": "123456@lid", "alt": "5511999999999:3@s.whatsapp.net"})).messages
    assert (found.identity_kind, found.also_known_as) == ("lid", (Identity("phone", "5511999999999"),))
    (alone,) = parse(a_message(alt="120363@g.us")).messages
    assert alone.also_known_as == ()


@pytest.mark.parametrize(
    ("state", "down"),
    [
        ("open", None),
        ("connecting", None),
        ("closed", None),
        ("qr", "session_not_paired"),
        ("logged_out", "session_logged_out"),
        ("banned", "session_banned"),
    ],
)
def test_a_session_says_whether_anything_can_be_sent(state: str, down: str | None) -> None:
    report = parse(event("session", state=state, last_error={"code": "x", "message": "why"})).session
    assert report is not None
    assert (report.state, report.down, report.detail) == (state, down, "why")


def test_a_message_that_whatsapp_refused_says_why() -> None:
    error = {"code": "463", "message": "reach-out time-lock"}
    (status,) = parse(event("status", wa_id="3EB0A", status="failed", error=error)).statuses
    assert (status.error_reason, status.error_code, status.error_detail) == ("restricted", 463, "reach-out time-lock")


@pytest.mark.parametrize(
    ("said", "means"), [("sent", "SENT"), ("delivered", "DELIVERED"), ("read", "READ"), ("failed", "FAILED")]
)
def test_a_status_names_our_message_and_the_channels(said: str, means: str) -> None:
    ours = uuid.uuid4()
    callback = parse(event("status", wa_id="3EB0A", status=said, message_id=str(ours), timestamp=1764000001))
    (status,) = callback.statuses
    assert (status.external_id, status.message_id, status.status) == ("3EB0A", ours, means)
    assert status.at.timestamp() == 1764000001


def test_a_status_of_a_message_typed_on_the_phone_names_only_the_channels_id() -> None:
    (status,) = parse(event("status", wa_id="3EB0A", status="read", message_id="typed")).statuses
    assert status.message_id is None


async def test_a_send_is_what_the_gateway_expects(http: aiohttp.ClientSession, far_end: FarEnd) -> None:
    far_end.then = [TestWhatsAppQr().accepted()[0]]
    text = outgoing("123456@lid")
    await CHANNELS["WHATSAPP_QR"].send(account_at(far_end.url), text, http)
    (call,) = far_end.calls
    assert (call.method, call.path) == ("POST", "/v1/sessions/shop/messages")
    assert call.headers["authorization"] == "Bearer gateway-token"
    assert call.json() == {
        "to": "123456@lid",
        "type": "text",
        "text": text.text,
        "typing_ms": 1500 + 40 * len(text.text),
    }


async def test_a_repeat_that_the_gateway_recognises_is_accepted(http: aiohttp.ClientSession, far_end: FarEnd) -> None:
    far_end.then = [Say(202, {"message_id": "m", "wa_id": "3EB0C"}), Say(200, {"message_id": "m", "wa_id": "3EB0C"})]
    text = outgoing()
    first = await CHANNELS["WHATSAPP_QR"].send(account_at(far_end.url), text, http)
    assert await CHANNELS["WHATSAPP_QR"].send(account_at(far_end.url), text, http) == first
    assert len({call.headers["idempotency-key"] for call in far_end.calls}) == 1


@pytest.mark.parametrize(
    ("say", "kind", "reason"),
    [
        (gateway_error(404, "unknown_session"), ChannelDown, "session_unknown"),
        (gateway_error(404, "not_found"), Permanent, "not_found"),
        (gateway_error(410, "logged_out"), ChannelDown, "session_logged_out"),
        (gateway_error(410, "banned"), ChannelDown, "session_banned"),
        (gateway_error(421, "not_owner", retryable=True, retry_after_ms=500), RateLimited, "not_owner"),
        (gateway_error(422, "key_reused"), Permanent, "key_reused"),
        (gateway_error(429, "capped", retryable=True, retry_after_ms=9000), RateLimited, "capped"),
        (gateway_error(409, "not_connected", retryable=True, retry_after_ms=3000), RateLimited, "not_connected"),
        (gateway_error(409, "in_flight", retryable=True), RateLimited, "in_flight"),
        (gateway_error(423, "restricted", retryable=True), Permanent, "restricted"),
        (gateway_error(401, "unauthorized"), ChannelDown, "gateway_unauthorized"),
        (gateway_error(500, "internal", retryable=True), Temporary, "internal"),
        (Say(504, b"<html>"), Temporary, "http_504"),
        (Say(429, b""), RateLimited, "http_429"),
        (Say(408, b""), Temporary, "http_408"),
        (Say(400, b"\xff"), Permanent, "http_400"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_every_refusal_of_the_gateway_has_its_fate(
    say: Say, kind: type[JobError], reason: str, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [say]
    with pytest.raises(JobError) as raised:
        await CHANNELS["WHATSAPP_QR"].send(account_at(far_end.url), outgoing(), http)
    assert type(raised.value) is kind
    assert raised.value.reason == reason


async def test_a_file_is_asked_for_by_its_id_and_one_without_a_hash_is_taken_as_it_comes(
    http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [Say(200, PICTURE)]
    ref = MediaRef(kind="document", provider_id="3EB0/F")
    chunks = [chunk async for chunk in CHANNELS["WHATSAPP_QR"].fetch_media(account_at(far_end.url), ref, http)]
    assert b"".join(chunks) == PICTURE
    assert [call.path for call in far_end.calls] == ["/v1/sessions/shop/media/3EB0/F"]
