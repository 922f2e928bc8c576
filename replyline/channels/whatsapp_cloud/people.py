"""Who a Cloud callback is about: people have a phone number, a business-scoped user id, or both, and may change either.

WhatsApp Cloud API, "Business-scoped user IDs"; contracts §2.5 and §2.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from replyline.channels.contract import InboundMessage
from replyline.channels.fields import Fields
from replyline.channels.reading import items, seconds
from replyline.jobs import Identity

_MAX_NAME_CHARS = 512
# The first is what the Cloud API says, the second what the On-Premises API said.
_NEW_NUMBER = frozenset({"user_changed_number", "customer_changed_number"})


@dataclass(frozen=True, slots=True)
class Person:
    """An entry of `contacts`."""

    phone: str | None
    user_id: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Names:
    """Who a message is from (or an echo to): the name they are known by, their other names, and where an answer goes."""

    first: Identity
    others: tuple[Identity, ...]
    reply_to: str
    shown: str | None


def people_in(contacts: msgspec.Raw) -> dict[str, Person]:
    """The people of `contacts` by their phone numbers and user ids."""
    found: dict[str, Person] = {}
    for raw in items(contacts):
        contact = Fields(raw)
        profile = contact.fields("profile")
        name = profile.text("name", _MAX_NAME_CHARS) or profile.text("username", _MAX_NAME_CHARS)
        person = Person(contact.id("wa_id"), contact.id("user_id"), name)
        found |= {name: person for name in (person.phone, person.user_id) if name}
    return found


def sender_of(message: Fields, people: Mapping[str, Person]) -> Names | None:
    """Who wrote; None where the message names nobody."""
    return _names(message.id("from"), message.id("from_user_id"), people)


def receiver_of(message: Fields, people: Mapping[str, Person]) -> Names | None:
    """Whom an echo went to; None where it names nobody."""
    return _names(message.id("to"), message.id("to_user_id"), people)


def _names(phone: str | None, user_id: str | None, people: Mapping[str, Person]) -> Names | None:
    """A person who has a user id is known by it: it is always there, while the phone number comes and goes with their privacy
    settings and would make them two contacts. Either may stand in `contacts` alone.
    """
    person = people.get(user_id or "") or people.get(phone or "")
    if person is not None:
        user_id = user_id or person.user_id
    told = phone or (person.phone if person is not None else None)
    identities = [Identity("bsuid", user_id)] if user_id else []
    if told and told != user_id:
        identities.append(Identity("wa_id", told))
    if not identities:
        return None
    return Names(
        first=identities[0],
        others=tuple(identities[1:]),
        reply_to=phone or user_id or identities[0].value,
        shown=person.name if person is not None else None,
    )


def system_change(message: Fields, external_id: str) -> InboundMessage | str:
    """A person has a new number or user id: from now on they are the same contact under it.

    The callback names the old one in `from`, `from_user_id` or `system.previous_user_id`, the new one in `system.wa_id`
    (`new_wa_id` in older versions) or `system.user_id`.
    """
    system = message.fields("system")
    kind = system.text("type", 60) or "unknown"
    phone = message.id("from")
    user_id = system.id("previous_user_id") or message.id("from_user_id")
    new_phone, new_user_id = system.id("wa_id") or system.id("new_wa_id"), system.id("user_id")
    if kind in _NEW_NUMBER:
        old = _either(phone, user_id)
        new = [Identity("wa_id", new_phone)] if new_phone else []
    elif kind == "user_changed_user_id":
        old = _either(None, user_id) or _either(phone, None)
        new = [Identity("bsuid", new_user_id)] if new_user_id else []
    else:
        return f"a system message of the type {kind}"
    if new and kind in _NEW_NUMBER and new_user_id and new_user_id != user_id and user_id:
        new.append(Identity("bsuid", new_user_id))
    return _changed(external_id, old, new, message)


def user_id_update(update: Fields) -> InboundMessage | str:
    """A person's business-scoped id is another now (the field `user_id_update`)."""
    user_id = update.fields("user_id")
    previous, current = user_id.id("previous"), user_id.id("current")
    new = [Identity("bsuid", current)] if current else []
    return _changed(f"user_id:{previous}:{current}"[:512], _either(None, previous), new, update)


def _either(phone: str | None, user_id: str | None) -> Identity | None:
    if phone:
        return Identity("wa_id", phone)
    return Identity("bsuid", user_id) if user_id else None


def _changed(external_id: str, old: Identity | None, new: list[Identity], at: Fields) -> InboundMessage | str:
    if old is None or not new or old in new:
        return "an identity cannot be read"
    return InboundMessage(
        external_id=external_id,
        sender=old.value,
        identity_kind=old.kind,
        reply_to=new[0].value,
        content="[identity changed]",
        content_type="system",
        provider_timestamp=seconds(at.number("timestamp")),
        kind="identity",
        also_known_as=tuple(new),
    )
