"""What Meta's Graph says: an account of ours, callbacks about it, and answers to calls."""

import msgspec

from replyline.channels import CHANNELS, ChannelAccount, InboundMessage
from tests.channels.contract_suite import make_account
from tests.channels.far_end import Say

NUMBER = "106540352242922"
SECRETS = {"app_secret": "app-secret", "verify_token": "verify-token", "access_token": "EAAG-access-token"}
TEXT: dict[str, object] = {
    "from": "16505551234",
    "id": "wamid.A",
    "timestamp": "1764000000",
    "type": "text",
    "text": {"body": "Are you open on Sunday?"},
}


def account_at(url: str = "http://127.0.0.1:9") -> ChannelAccount:
    """The account NUMBER, sending to `url`."""
    return make_account("WHATSAPP_CLOUD", NUMBER, config={"graph_base": url, "graph_version": "v25.0"}, secrets=SECRETS)


def change(*, number: str = NUMBER, field: str = "messages", **value: object) -> dict[str, object]:
    """One change of a callback."""
    metadata = {"display_phone_number": "15550783881", "phone_number_id": number}
    return {"field": field, "value": {"messaging_product": "whatsapp", "metadata": metadata, **value}}


def envelope(*changes: object) -> dict[str, object]:
    """A callback with each change in an entry of its own."""
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "102290129340398", "changes": [each]} for each in changes],
    }


def read(*changes: object) -> list[InboundMessage]:
    """The messages that a callback with these changes brings."""
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), msgspec.json.encode(envelope(*changes)))
    return list(callback.messages)


def meta_error(status: int, code: int, **more: object) -> Say:
    """An error answer of Graph."""
    return Say(status, {"error": {"message": f"(#{code}) It failed", "type": "OAuthException", "code": code, **more}})


def reads(message: dict[str, object]) -> InboundMessage:
    """What one element of `messages` amounts to."""
    (found,) = read(change(messages=[TEXT | message]))
    return found


def accepted() -> Say:
    """The answer to a message that was taken, as wamid.C."""
    contacts = [{"input": "+16505551234", "wa_id": "16505551234"}]
    return Say(200, {"messaging_product": "whatsapp", "contacts": contacts, "messages": [{"id": "wamid.C"}]})
