"""What Meta says of a WhatsApp Business Account: its quality, templates, restrictions and bans; and what people want.

WhatsApp Business Platform, "Webhooks": account_update, account_alerts, account_review_update, business_capability_update,
message_template_*_update, phone_number_name_update, phone_number_quality_update, security, template_category_update and
user_preferences.
"""

import hashlib
import time

import msgspec

from replyline.channels.fields import Fields, plain
from replyline.channels.reading import part, seconds, text
from replyline.jobs import Identity
from replyline.notices import Notice, Preference

_MAX_INFO_BYTES = 8_192
_LONGEST_PAUSE_S = 86_400.0
_TEMPLATE_CHANGES = {
    "message_template_status_update": "status",
    "message_template_quality_update": "quality",
    "message_template_components_update": "components",
    "template_category_update": "category",
}
_ACCOUNT_FIELDS = frozenset(
    {
        "account_alerts",
        "account_review_update",
        "account_update",
        "business_capability_update",
        "business_username_update",
        "business_username_updates",
        "phone_number_name_update",
        "security",
    }
)
_ENDS = {"ACCOUNT_DELETED": "account_deleted", "ACCOUNT_OFFBOARDED": "account_offboarded"}
# A restriction of messages that the business begins concerns templates; answers to people still go out.
_STOPS_ANSWERS = "RESTRICTED_CUSTOMER_INITIATED_MESSAGING"


def account_of(entry: Fields, value: Fields) -> str | None:
    """The WhatsApp Business Account that a change is about; of a partner's entry, the one it names."""
    return value.fields("waba_info").id("waba_id") or entry.id("id")


def is_of_number(value: Fields, number: str | None) -> bool:
    """Whether a change is about the phone number `number`, or names none; None is any number."""
    named = value.text("display_phone_number", 60) or value.text("phone_number", 60)
    return number is None or named is None or _digits(named) == _digits(number)


def notice_in(field: str, entry: Fields, raw_value: msgspec.Raw, *, fallback_template: str | None) -> Notice | None:
    """What a change tells of the account; None for one that nothing here acts on."""
    value = Fields(raw_value)
    # Meta writes when it happened into the entry: the same thing may well happen twice.
    digest = hashlib.sha256(f"{entry.text('time')}:{field}:".encode() + bytes(raw_value)).digest()
    if field == "phone_number_quality_update":
        return _quality(value, digest)
    if field in _TEMPLATE_CHANGES:
        return _template(_TEMPLATE_CHANGES[field], value, digest, fallback_template)
    return _account(field, value, raw_value, digest) if field in _ACCOUNT_FIELDS else None


def preference_in(found: Fields, people: Fields) -> Preference | None:
    """What a person wants; None where it names nobody, or is about something other than marketing messages."""
    value = (found.text("value", 60) or "").lower()
    if found.text("category", 60) != "marketing_messages" or value not in {"stop", "resume"}:
        return None
    names = (("bsuid", found.id("user_id") or people.id("user_id")), ("wa_id", found.id("wa_id") or people.id("wa_id")))
    identities = tuple(Identity(kind, name) for kind, name in names if name)  # type: ignore[arg-type]  # the two above
    return Preference(identities, value == "stop", seconds(found.number("timestamp"))) if identities else None


def _quality(value: Fields, digest: bytes) -> Notice:
    data = {
        "event": value.text("event", 60),
        "limit": value.text("current_limit", 60),
        "old_limit": value.text("old_limit", 60),
        "phone_number": value.text("display_phone_number", 60),
    }
    return Notice("channel.quality_changed", data, digest)


def _template(change: str, value: Fields, digest: bytes, fallback_template: str | None) -> Notice:
    name = value.text("message_template_name")
    new_quality = value.text("new_quality_score", 60)
    if change == "status" and new_quality and value.text("event") is None:
        change = "quality"
    data = {
        "change": change,
        "status": value.text("event", 60),
        "quality": new_quality,
        "category": value.text("new_category", 60) or value.text("message_template_category", 60),
        "template_id": value.text("message_template_id", 100),
        "template_name": name,
        "language": value.text("message_template_language", 60),
        "reason": _reason(value),
        "is_fallback": name is not None and name == fallback_template,
    }
    return Notice("channel.template_status_changed", data, digest)


def _reason(value: Fields) -> str | None:
    reason = value.text("reason")
    said = value.fields("rejection_info").text("reason", 1000) or value.fields("other_info").text("description", 1000)
    words = ": ".join(part for part in (reason if reason != "NONE" else None, said) if part)
    return words or None


def _account(field: str, value: Fields, raw_value: msgspec.Raw, digest: bytes) -> Notice:
    event = value.text("event", 100) or value.text("decision", 100) or value.text("status", 100)
    info = plain(part(raw_value, object)) if len(bytes(raw_value)) <= _MAX_INFO_BYTES else None
    data = {"change": field, "event": event, "info": info if isinstance(info, dict) else None}
    notice = Notice("channel.account_changed", data, digest)
    return _with_health(notice, event or "", value) if field == "account_update" else notice


def _with_health(notice: Notice, event: str, value: Fields) -> Notice:
    """What an account_update means for sending."""
    ban = value.fields("ban_info").text("waba_ban_state", 60)
    if event in _ENDS:
        return _down(notice, _ENDS[event], f"Meta says {event}")
    if event == "DISABLED_UPDATE" and ban == "DISABLE":
        return _down(
            notice, "account_disabled", f"Meta disabled the account: {value.fields('ban_info').text('waba_ban_date')}"
        )
    if event == "ACCOUNT_RESTRICTION":
        return _restricted(notice, value)
    if event == "ACCOUNT_RECONNECTED":
        return _lifting(notice, "account_offboarded")
    if event == "DISABLED_UPDATE" and ban == "REINSTATE":
        return _lifting(notice, "account_disabled", "account_restricted")
    return notice


def _restricted(notice: Notice, value: Fields) -> Notice:
    """A list without the restriction of answers, or with one that is over, lifts it."""
    now = time.time()
    for restriction in value.each("restriction_info", 20):
        kind = restriction.text("restriction_type", 100)
        until = seconds(restriction.number("expiration"))
        if kind == _STOPS_ANSWERS and (until is None or until > now):
            pause_s = 0.0 if until is None else min(until - now, _LONGEST_PAUSE_S)
            return _down(notice, "account_restricted", f"Meta restricts the account: {kind}", pause_s)
    return _lifting(notice, "account_restricted")


def _down(notice: Notice, reason: str, detail: str, pause_s: float = 0.0) -> Notice:
    return Notice(notice.event, notice.data, notice.digest, reason, text(detail, 1000), pause_s)


def _lifting(notice: Notice, *reasons: str) -> Notice:
    return Notice(notice.event, notice.data, notice.digest, lifts=frozenset(reasons))


def _digits(number: str) -> str:
    return "".join(digit for digit in number if digit.isdigit())
