"""WhatsApp Cloud API: the contract suite, and what Meta's callbacks have of their own."""

import hashlib
import hmac
import uuid
from typing import ClassVar

import msgspec
import pytest

from replyline.channels import CHANNELS, Channel, ChannelAccount, ForgedCallback, InboundMessage
from replyline.channels.whatsapp_cloud import verification
from replyline.jobs import Identity, MediaRef
from tests.channels.contract_suite import ChannelContract, make_account
from tests.channels.far_end import Call, Cut, Hang, Say
from tests.channels.graph import NUMBER, TEXT, accepted, account_at, change, envelope, meta_error, read, reads
from tests.channels.media_suite import MediaContract


class TestWhatsAppCloud(ChannelContract, MediaContract):
    """The suite, as Meta speaks."""

    channel: ClassVar[Channel] = CHANNELS["WHATSAPP_CLOUD"]
    limited_after_s: ClassVar[float] = 1

    def account(self, url: str = "http://127.0.0.1:9") -> ChannelAccount:
        return account_at(url)

    def callback(self) -> object:
        contacts = [{"profile": {"name": "Ana"}, "wa_id": "16505551234"}]
        status = {
            "id": "wamid.B",
            "status": "failed",
            "timestamp": "1764000001",
            "recipient_id": "16505551234",
            "biz_opaque_callback_data": str(uuid.uuid4()),
            "errors": [{"code": 131047, "title": "Re-engagement message", "message": "Re-engagement message"}],
        }
        return envelope(change(contacts=contacts, messages=[TEXT], statuses=[status]))

    def raw_callback(self) -> bytes:
        return msgspec.json.encode(envelope(change(messages=[TEXT])))

    def signed(self, account: ChannelAccount, raw: bytes) -> dict[str, str]:
        key = account.secrets["app_secret"].encode()
        return {"x-hub-signature-256": f"sha256={hmac.new(key, raw, hashlib.sha256).hexdigest()}"}

    def accepted(self) -> tuple[Say, str]:
        return accepted(), "wamid.C"

    def refused(self) -> Say:
        return meta_error(400, 131026)

    def limited(self) -> Say:
        return meta_error(400, 131056)

    def our_id_of(self, call: Call) -> str | None:
        return str(call.json().get("biz_opaque_callback_data"))

    def bearer_of(self, account: ChannelAccount) -> str:
        return account.secrets["access_token"]

    def odd_code(self) -> int | str:
        return 987654

    def hands_over(self, url: str, data: bytes) -> list[Say | Hang | Cut]:
        return [Say(200, {"url": f"{url}/file", "mime_type": "image/jpeg"}), Say(200, data)]

    def gone(self) -> Say:
        return meta_error(400, 100)

    def file_sent(self, call: Call) -> tuple[object, object, object]:
        body = call.json()
        file = msgspec.convert(body[str(body["type"])], dict[str, object])
        return body["type"], file["link"], file["caption"]


def test_the_signature_is_over_the_received_bytes_with_their_escapes() -> None:
    raw = rb'{"object":"whatsapp_business_account","entry":[],"text":"Gr\u00fc\u00dfe \ud83d\udc4b"}'
    account = account_at()
    CHANNELS["WHATSAPP_CLOUD"].verify(account, TestWhatsAppCloud().signed(account, raw), raw)
    rewritten = msgspec.json.encode(msgspec.json.decode(raw))
    assert rewritten != raw
    with pytest.raises(ForgedCallback):
        CHANNELS["WHATSAPP_CLOUD"].verify(account, TestWhatsAppCloud().signed(account, raw), rewritten)


def test_a_text_is_read_with_its_sender_time_and_name() -> None:
    contacts = [{"profile": {"name": "Ana"}, "wa_id": "16505551234"}]
    assert read(change(contacts=contacts, messages=[TEXT])) == [
        InboundMessage(
            external_id="wamid.A",
            sender="16505551234",
            identity_kind="wa_id",
            reply_to="16505551234",
            content="Are you open on Sunday?",
            content_type="text",
            name="Ana",
            provider_timestamp=1764000000.0,
        )
    ]


def test_a_person_without_a_phone_number_is_known_and_answered_by_user_id() -> None:
    message = {name: value for name, value in TEXT.items() if name != "from"} | {"from_user_id": "US.1349"}
    (found,) = read(change(contacts=[{"profile": {"name": "Ana"}, "user_id": "US.1349"}], messages=[message]))
    assert (found.sender, found.identity_kind, found.reply_to, found.name) == ("US.1349", "bsuid", "US.1349", "Ana")


def test_a_person_stays_the_same_when_the_phone_number_comes_and_goes() -> None:
    both = TEXT | {"from_user_id": "US.1349"}
    hidden = {name: value for name, value in both.items() if name != "from"}
    shown, later = read(change(messages=[both, hidden]))
    assert (shown.sender, shown.identity_kind) == (later.sender, later.identity_kind)
    assert shown.reply_to == "16505551234"


@pytest.mark.parametrize(
    ("kind", "payload", "content"),
    [
        ("button", {"payload": "YES", "text": "Yes please"}, "Yes please"),
        ("interactive", {"type": "button_reply", "button_reply": {"id": "y", "title": "Yes"}}, "Yes"),
        ("interactive", {"type": "list_reply", "list_reply": {"id": "p1", "title": "Basic"}}, "Basic"),
        ("interactive", {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent"}}, "Sent"),
        ("image", {"id": "1", "mime_type": "image/jpeg", "caption": "Is this fresh?"}, "[image] Is this fresh?"),
        ("image", {"id": "1", "mime_type": "image/jpeg"}, "[image]"),
        ("audio", {"id": "1", "mime_type": "audio/ogg", "voice": True}, "[audio]"),
        ("document", {"id": "1", "filename": "order.pdf"}, "[document] order.pdf"),
        ("sticker", {"id": "1"}, "[sticker]"),
        ("location", {"latitude": 1.5, "longitude": 2, "name": "Shop"}, "[location] Shop (1.5, 2.0)"),
        ("contacts", [{"name": {"formatted_name": "Bo"}, "phones": [{"phone": "+1 650"}]}], "[contacts] Bo +1 650"),
        ("order", {"catalog_id": "c", "text": "Two loaves"}, "[order] Two loaves"),
    ],
)
def test_every_kind_that_says_something_is_put_into_words(kind: str, payload: object, content: str) -> None:
    message = {"from": "16505551234", "id": "wamid.A", "timestamp": "1764000000", "type": kind, kind: payload}
    (found,) = read(change(messages=[message]))
    assert (found.content, found.content_type) == (content, kind)


@pytest.mark.parametrize(
    "message",
    [
        TEXT | {"type": "reaction", "reaction": {"message_id": "", "emoji": "👍"}},
        TEXT | {"type": "system", "system": {"body": "changed", "type": "user_changed_number"}},
        TEXT | {"type": "edit", "edit": {"original_message_id": "wamid.B", "message": {"type": "edit"}}},
        TEXT | {"id": ""},
        TEXT | {"id": "x" * 513},
        TEXT | {"from": None},
        {},
        None,
        7,
    ],
    ids=lambda message: str(message)[-40:],
)
def test_what_is_not_understood_is_kept_and_does_not_hide_its_neighbours(message: object) -> None:
    raw = msgspec.json.encode(envelope(change(messages=[message, TEXT]), change(messages=[TEXT])))
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
    assert [found.external_id for found in callback.messages] == ["wamid.A", "wamid.A"]
    (left,) = callback.unread
    assert msgspec.json.decode(left.raw) == message
    assert left.reason


@pytest.mark.parametrize("contacts", [None, "none", [None], [{"profile": 3}], [{"profile": {"name": 3}}], {}])
def test_contacts_that_cannot_be_read_hide_no_message(contacts: object) -> None:
    (found,) = read(change(contacts=contacts, messages=[TEXT]))
    assert found.name is None


@pytest.mark.parametrize("bad", [None, 7, {"value": None}, change(field="account_update"), {"field": "messages"}])
def test_a_change_that_cannot_be_read_hides_no_other(bad: object) -> None:
    assert [found.external_id for found in read(bad, change(messages=[TEXT]))] == ["wamid.A"]


def test_a_change_of_another_number_is_dropped_though_the_signature_is_ours() -> None:
    raw = msgspec.json.encode(envelope(change(number="999", messages=[TEXT]), change(messages=[TEXT])))
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
    assert (len(callback.messages), callback.elsewhere) == (1, {"999": 1})


def test_a_text_keeps_all_but_what_postgres_cannot_store() -> None:
    (found,) = read(change(messages=[TEXT | {"text": {"body": "a\x00b" + "ü" * 70_000}}]))
    assert found.content == "ab" + "ü" * 65_534


def test_the_handshake_is_answered_with_the_challenge() -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify-token", "hub.challenge": "1158201444"}
    assert verification(account_at(), query) == "1158201444"


@pytest.mark.parametrize(
    "wrong",
    [
        {"hub.verify_token": "other"},
        {"hub.verify_token": ""},
        {"hub.verify_token": "\udcff"},
        {"hub.mode": "unsubscribe"},
    ],
)
def test_a_handshake_that_is_not_ours_is_refused(wrong: dict[str, str]) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify-token", "hub.challenge": "1158201444"} | wrong
    with pytest.raises(ForgedCallback):
        verification(account_at(), query)


def test_a_handshake_of_a_channel_without_a_token_is_refused() -> None:
    account = make_account("WHATSAPP_CLOUD", NUMBER, config={}, secrets={})
    with pytest.raises(ForgedCallback):
        verification(account, {"hub.mode": "subscribe", "hub.verify_token": "", "hub.challenge": "1"})


def test_messages_of_a_group_are_ignored() -> None:
    raw = msgspec.json.encode(envelope(change(messages=[TEXT | {"group_id": "g1"}, TEXT])))
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
    assert (len(callback.messages), callback.ignored, callback.unread) == (1, 1, ())


@pytest.mark.parametrize(
    ("message", "kind", "content", "target"),
    [
        (
            {"type": "reaction", "reaction": {"message_id": "wamid.B", "emoji": "👍"}},
            "reaction",
            "[reaction] 👍",
            "wamid.B",
        ),
        ({"type": "reaction", "reaction": {"message_id": "wamid.B"}}, "reaction", "[no reaction]", "wamid.B"),
        ({"type": "revoke", "revoke": {"original_message_id": "wamid.B"}}, "revoke", "[deleted]", "wamid.B"),
        (
            {
                "type": "edit",
                "edit": {"original_message_id": "wamid.B", "message": {"type": "text", "text": {"body": "Until 7?"}}},
            },
            "edit",
            "Until 7?",
            "wamid.B",
        ),
        ({"type": "unsupported", "errors": [{"code": 131051}]}, "unsupported", "[unsupported]", None),
    ],
)
def test_what_is_no_message_to_answer_is_told_apart(
    message: dict[str, object], kind: str, content: str, target: str | None
) -> None:
    found = reads(message)
    assert (found.kind, found.content, found.target_id) == (kind, content, target)


def test_a_file_is_named_with_all_that_is_needed_to_fetch_it() -> None:
    image = {"id": "99", "mime_type": "image/jpeg", "sha256": "aGFzaA==", "caption": "Is this fresh?"}
    found = reads({"type": "image", "image": image})
    assert found.media == MediaRef(kind="image", provider_id="99", mime_type="image/jpeg", sha256="aGFzaA==")
    assert reads({"type": "image", "image": {"caption": "no id"}}).media is None


def test_a_payload_that_names_a_person_twice_links_the_two() -> None:
    assert reads({"from_user_id": "US.1349"}).also_known_as == (Identity("wa_id", "16505551234"),)
    hidden = {name: value for name, value in TEXT.items() if name != "from"} | {"from_user_id": "US.1349"}
    (found,) = read(change(contacts=[{"wa_id": "16505551234", "user_id": "US.1349"}], messages=[hidden]))
    assert found.also_known_as == (Identity("wa_id", "16505551234"),)


@pytest.mark.parametrize(
    ("message", "old", "new"),
    [
        (
            {"system": {"type": "user_changed_number", "wa_id": "16505559999"}},
            Identity("wa_id", "16505551234"),
            Identity("wa_id", "16505559999"),
        ),
        (
            {"from_user_id": "US.1", "system": {"type": "user_changed_user_id", "user_id": "US.2"}},
            Identity("bsuid", "US.1"),
            Identity("bsuid", "US.2"),
        ),
    ],
)
def test_a_person_with_a_new_number_or_user_id_stays_the_same(
    message: dict[str, object], old: Identity, new: Identity
) -> None:
    found = reads({"type": "system", **message})
    assert (found.kind, found.identity_kind, found.sender, found.also_known_as) == (
        "identity",
        old.kind,
        old.value,
        (new,),
    )


def test_the_field_user_id_update_renames_a_person() -> None:
    update = {"user_id": {"previous": "US.1", "current": "US.2"}, "timestamp": "1764000000"}
    (found,) = read(change(field="user_id_update", user_id_update=[update]))
    assert (found.kind, found.sender, found.also_known_as) == ("identity", "US.1", (Identity("bsuid", "US.2"),))


def test_what_a_human_wrote_in_the_business_app_is_an_echo() -> None:
    echo = {"from": "15550783881", "to": "16505551234", "id": "wamid.E", "type": "text", "text": {"body": "I am on it"}}
    (found,) = read(change(field="smb_message_echoes", message_echoes=[echo]))
    assert (found.kind, found.sender, found.content) == ("echo", "16505551234", "I am on it")


def test_an_error_that_meta_reports_out_of_band_is_kept() -> None:
    raw = msgspec.json.encode(envelope(change(errors=[{"code": 130429, "title": "Rate limit hit"}])))
    (left,) = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).unread
    assert b"130429" in left.raw


def test_more_than_a_thousand_updates_are_kept_unread_behind_the_first_thousand() -> None:
    messages = [TEXT | {"id": f"wamid.{number}"} for number in range(1003)]
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), msgspec.json.encode(envelope(change(messages=messages))))
    assert (len(callback.messages), len(callback.unread)) == (1000, 3)
