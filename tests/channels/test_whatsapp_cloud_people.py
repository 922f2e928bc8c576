"""Who a Cloud callback is about, however it says so: numbers and user ids that come, go and change."""

import msgspec
import pytest

from replyline.channels import CHANNELS, InboundMessage
from replyline.jobs import Identity
from tests.channels.graph import TEXT, account_at, change, envelope, read

HIDDEN = {name: value for name, value in TEXT.items() if name != "from"}


def one(message: dict[str, object], contacts: object = None) -> InboundMessage:
    (found,) = read(change(messages=[message], contacts=contacts))
    return found


def test_a_user_id_that_stands_in_contacts_alone_is_the_persons() -> None:
    contacts = [{"wa_id": "16505551234", "user_id": "US.1349", "profile": {"name": "Ana"}}]
    found = one(TEXT, contacts=contacts)
    assert (found.sender, found.identity_kind, found.reply_to) == ("US.1349", "bsuid", "16505551234")
    assert found.also_known_as == (Identity("wa_id", "16505551234"),)


def test_a_contact_of_somebody_else_names_nobody() -> None:
    found = one(TEXT, contacts=[{"wa_id": "1999", "user_id": "US.9"}])
    assert (found.sender, found.also_known_as) == ("16505551234", ())


@pytest.mark.parametrize("name", ["wa_id", "new_wa_id"])
@pytest.mark.parametrize("kind", ["user_changed_number", "customer_changed_number"])
def test_a_new_number_is_read_from_either_field(name: str, kind: str) -> None:
    found = one({**TEXT, "type": "system", "system": {"type": kind, name: "1777", "body": "A changed"}})
    assert (found.kind, found.sender, found.identity_kind, found.reply_to) == (
        "identity",
        "16505551234",
        "wa_id",
        "1777",
    )
    assert found.also_known_as == (Identity("wa_id", "1777"),)


def test_a_rotated_user_id_without_a_sender_names_the_old_one_itself() -> None:
    system = {"type": "user_changed_user_id", "previous_user_id": "US.1", "user_id": "US.2"}
    found = one({**HIDDEN, "type": "system", "system": system})
    assert (found.sender, found.identity_kind, found.also_known_as) == ("US.1", "bsuid", (Identity("bsuid", "US.2"),))


def test_a_new_number_brings_its_new_user_id_along() -> None:
    system = {"type": "user_changed_number", "previous_user_id": "US.1", "user_id": "US.2", "wa_id": "1777"}
    found = one({**HIDDEN, "type": "system", "system": system})
    assert (found.sender, found.reply_to) == ("US.1", "1777")
    assert found.also_known_as == (Identity("wa_id", "1777"), Identity("bsuid", "US.2"))


@pytest.mark.parametrize(
    "system",
    [
        {"type": "user_changed_user_id", "user_id": "US.2"},
        {"type": "user_changed_user_id", "previous_user_id": "US.2", "user_id": "US.2"},
        {"type": "user_changed_number", "previous_user_id": "US.1"},
        {"type": "customer_identity_changed"},
        None,
    ],
)
def test_a_change_that_names_not_both_is_kept_for_a_human(system: object) -> None:
    raw = msgspec.json.encode(envelope(change(messages=[{**HIDDEN, "type": "system", "system": system}])))
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
    assert (callback.messages, len(callback.unread)) == ((), 1)


ECHO: dict[str, object] = {"from": "15550783881", "to": "16505551234", "id": "wamid.E", "timestamp": "1764000000"}


@pytest.mark.parametrize(
    ("what", "kind", "target"),
    [
        ({"type": "text", "text": {"body": "Hi"}}, "echo", None),
        (
            {"type": "edit", "edit": {"original_message_id": "wamid.D", "message": {"type": "text", "text": {"body": "Hi"}}}},
            "echo_edit",
            "wamid.D",
        ),
        ({"type": "revoke", "revoke": {"original_message_id": "wamid.D"}}, "echo_revoke", "wamid.D"),
    ],
)  # fmt: skip
def test_what_a_human_does_in_the_business_app_is_told_apart(
    what: dict[str, object], kind: str, target: str | None
) -> None:
    (found,) = read(change(field="smb_message_echoes", message_echoes=[ECHO | what]))
    assert (found.kind, found.target_id, found.sender) == (kind, target, "16505551234")


@pytest.mark.parametrize("what", ["reaction", "poll", "edit"])
def test_an_echo_that_is_no_message_does_not_silence_the_bot(what: str) -> None:
    echo = ECHO | {"type": what, what: {"message_id": "wamid.D", "emoji": "👍"}}
    raw = msgspec.json.encode(envelope(change(field="smb_message_echoes", message_echoes=[echo])))
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
    assert (callback.messages, len(callback.unread)) == ((), 1)
