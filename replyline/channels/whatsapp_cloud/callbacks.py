"""Meta's callbacks: the signature, the handshake, and every entry, change, message and status of a batch (contracts §2)."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping

import msgspec

from replyline.channels.contract import (
    Callback,
    ChannelAccount,
    ForgedCallback,
    InboundMessage,
    StatusUpdate,
    UnreadableCallback,
    UnreadItem,
)
from replyline.channels.reading import UNREADABLE, is_id, items, part, seconds, text
from replyline.channels.signatures import same
from replyline.channels.whatsapp_cloud.content import Said, said_in
from replyline.channels.whatsapp_cloud.statuses import read_status
from replyline.jobs import Identity, IdentityKind

MAX_ITEMS = 1_000
"""Updates that Meta puts into one callback at most (WhatsApp Cloud API, "Webhooks": up to 1,000); what is more is left unread."""

_MAX_NAME_CHARS = 512


class _Profile(msgspec.Struct):
    name: str | None = None


class _Contact(msgspec.Struct):
    profile: _Profile | None = None
    wa_id: str | None = None
    user_id: str | None = None


class _Metadata(msgspec.Struct):
    phone_number_id: str


class _Value(msgspec.Struct):
    metadata: _Metadata
    contacts: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    statuses: msgspec.Raw = msgspec.Raw()
    errors: msgspec.Raw = msgspec.Raw()
    message_echoes: msgspec.Raw = msgspec.Raw()
    user_id_update: msgspec.Raw = msgspec.Raw()


class _Change(msgspec.Struct):
    value: msgspec.Raw
    field: str


class _Entry(msgspec.Struct):
    changes: msgspec.Raw = msgspec.Raw()


class _Envelope(msgspec.Struct):
    object: str
    entry: list[msgspec.Raw]


class _System(msgspec.Struct):
    type: str = ""
    wa_id: str | None = None
    user_id: str | None = None


class _Message(msgspec.Struct):
    id: str
    type: str
    timestamp: str | float | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    from_user_id: str | None = None
    to_user_id: str | None = None
    group_id: str | None = None
    system: _System | None = None


class _UserId(msgspec.Struct):
    previous: str
    current: str


class _UserIdUpdate(msgspec.Struct):
    user_id: _UserId
    wa_id: str | None = None
    timestamp: str | float | None = None


def verify(account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
    """Check `X-Hub-Signature-256`: HMAC-SHA256 of the raw body with the app secret (contracts §2.2).

    Raises:
        ForgedCallback: it is missing or wrong.
    """
    secret = account.secrets.get("app_secret", "")
    wanted = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    if not secret or not same(headers.get("x-hub-signature-256", ""), wanted):
        raise ForgedCallback("X-Hub-Signature-256 is missing or wrong")


def verification(account: ChannelAccount, query: Mapping[str, str]) -> str:
    """The challenge to send back when Meta verifies a callback URL (contracts §2.1).

    Raises:
        ForgedCallback: it is no subscription, or the token is not this channel's.
    """
    wanted = account.secrets.get("verify_token", "")
    given = query.get("hub.verify_token", "")
    if query.get("hub.mode") != "subscribe" or not wanted or not same(given, wanted):
        raise ForgedCallback("hub.verify_token is not this channel's")
    return query.get("hub.challenge", "")


def read(account: ChannelAccount, raw: bytes) -> Callback:
    """What a callback brings for `account`; items of other numbers are only counted.

    Raises:
        UnreadableCallback: it is not Meta's envelope.
    """
    try:
        envelope = msgspec.json.decode(raw, type=_Envelope)
    except UNREADABLE as error:
        raise UnreadableCallback(f"not a WhatsApp callback: {error}") from error
    reader = _Reader(account)
    for raw_change in _changes(envelope, reader):
        reader.take(raw_change)
    return reader.callback()


def _changes(envelope: _Envelope, reader: "_Reader") -> Iterator[msgspec.Raw]:
    for raw_entry in envelope.entry:
        entry = part(raw_entry, _Entry)
        if entry is None:
            reader.leave("an entry cannot be read", raw_entry)
            continue
        yield from items(entry.changes)


class _Reader:
    """Collects what one callback says to one account."""

    def __init__(self, account: ChannelAccount) -> None:
        self._account = account
        self._messages: list[InboundMessage] = []
        self._statuses: list[StatusUpdate] = []
        self._unread: list[UnreadItem] = []
        self._elsewhere: dict[str, int] = {}
        self._ignored = 0
        self._seen = 0

    def callback(self) -> Callback:
        return Callback(
            tuple(self._messages),
            tuple(self._statuses),
            tuple(self._unread),
            ignored=self._ignored,
            elsewhere=self._elsewhere,
        )

    def leave(self, reason: str, raw: msgspec.Raw) -> None:
        """Not understood: kept for a human."""
        self._unread.append(UnreadItem(reason, bytes(raw)))

    def take(self, raw: msgspec.Raw) -> None:
        change = part(raw, _Change)
        if change is None:
            self.leave("a change cannot be read", raw)
            return
        value = part(change.value, _Value)
        if value is None:
            self.leave(f"a change of the field {text(change.field, 60)} is not known", raw)
        elif value.metadata.phone_number_id != self._account.external_id:
            name = text(value.metadata.phone_number_id, 100)
            found = sum(len(items(part)) for part in (value.messages, value.statuses, value.message_echoes)) or 1
            self._elsewhere[name] = self._elsewhere.get(name, 0) + found
        else:
            self._take_value(change.field, value, raw)

    def _take_value(self, field: str, value: _Value, raw: msgspec.Raw) -> None:
        match field:
            case "messages":
                names = _names(value)
                for raw_message in self._bounded(value.messages):
                    self._add(_message(raw_message, names), raw_message)
                for raw_status in self._bounded(value.statuses):
                    self._add(read_status(raw_status), raw_status)
                for raw_error in self._bounded(value.errors):
                    self.leave("Meta reports an error", raw_error)
            case "smb_message_echoes":
                for raw_echo in self._bounded(value.message_echoes):
                    self._add(_echo(raw_echo), raw_echo)
            case "user_id_update":
                updates = items(value.user_id_update) or [value.user_id_update]
                for raw_update in updates:
                    self._add(_user_id_update(raw_update), raw)
            case _:
                self.leave(f"a change of the field {text(field, 60)}", raw)

    def _bounded(self, raw: msgspec.Raw) -> Iterator[msgspec.Raw]:
        for item in items(raw):
            self._seen += 1
            if self._seen > MAX_ITEMS:
                self.leave(f"more than {MAX_ITEMS} updates in one callback", item)
            else:
                yield item

    def _add(self, item: InboundMessage | StatusUpdate | str | None, raw: msgspec.Raw) -> None:
        match item:
            case InboundMessage():
                self._messages.append(item)
            case StatusUpdate():
                self._statuses.append(item)
            case None:
                self._ignored += 1
            case _:
                self.leave(item, raw)


def _names(value: _Value) -> dict[str, _Contact]:
    found: dict[str, _Contact] = {}
    for raw in items(value.contacts):
        contact = part(raw, _Contact)
        if contact is not None:
            found |= {identity: contact for identity in (contact.wa_id, contact.user_id) if identity}
    return found


def _message(raw: msgspec.Raw, contacts: Mapping[str, _Contact]) -> InboundMessage | str | None:
    """What a person did; a text says why it cannot be told, None that it is not for us (a group).

    A person who has a user id is known by it: it is always there, while the phone number comes and goes with their privacy
    settings and would make them two contacts (WhatsApp Cloud API, "Business-scoped user IDs").
    """
    message = part(raw, _Message)
    if message is None or not is_id(message.id):
        return "a message cannot be read"
    if message.group_id is not None:
        return None
    if message.type == "system":
        return _system(message)
    sender = message.from_user_id or message.from_
    reply_to = message.from_ or message.from_user_id
    if not sender or not reply_to or not is_id(sender) or not is_id(reply_to):
        return "a message names no sender"
    said = said_in(message.type, bytes(raw))
    if said is None:
        return f"a message of the type {text(message.type, 60)}"
    contact = contacts.get(sender) or contacts.get(reply_to)
    return _inbound(message, said, sender, reply_to, contact)


def _inbound(message: _Message, said: Said, sender: str, reply_to: str, contact: _Contact | None) -> InboundMessage:
    kind: IdentityKind = "bsuid" if message.from_user_id else "wa_id"
    name = contact.profile.name if contact and contact.profile else None
    return InboundMessage(
        external_id=message.id,
        sender=sender,
        identity_kind=kind,
        reply_to=reply_to,
        content=said.content,
        content_type=text(message.type, 60),
        name=text(name, _MAX_NAME_CHARS) if name else None,
        provider_timestamp=seconds(message.timestamp),
        kind=said.kind,
        also_known_as=_other_identities(sender, message.from_, contact),
        target_id=said.target_id,
        media=said.media,
    )


def _other_identities(sender: str, phone: str | None, contact: _Contact | None) -> tuple[Identity, ...]:
    """The phone number beside a user id; also the one of `contacts`, which may be the only place it stands in."""
    other = phone or (contact.wa_id if contact else None)
    return (Identity("wa_id", other),) if other and other != sender and is_id(other) else ()


def _system(message: _Message) -> InboundMessage | str:
    """A person has a new number or user id: from now on they are the same contact under it (contracts §2.5)."""
    system = message.system or _System()
    old = message.from_user_id or message.from_
    old_kind: IdentityKind = "bsuid" if message.from_user_id else "wa_id"
    new_kind: IdentityKind = "bsuid" if system.type == "user_changed_user_id" else "wa_id"
    new = system.user_id if new_kind == "bsuid" else system.wa_id
    if system.type not in {"user_changed_number", "user_changed_user_id"} or not old or not new:
        return f"a system message of the type {text(system.type, 60)}"
    if new_kind == "wa_id" and message.from_:
        old, old_kind = message.from_, "wa_id"
    return _identity(message.id, Identity(old_kind, old), Identity(new_kind, new), seconds(message.timestamp))


def _user_id_update(raw: msgspec.Raw) -> InboundMessage | str:
    """A person's business-scoped id is another now (contracts §2.7: the field `user_id_update`)."""
    found = part(raw, _UserIdUpdate) if bytes(raw) else None
    if found is None:
        return "a user_id_update cannot be read"
    previous, current = found.user_id.previous, found.user_id.current
    return _identity(
        f"user_id:{previous}:{current}",
        Identity("bsuid", previous),
        Identity("bsuid", current),
        seconds(found.timestamp),
    )


def _identity(external_id: str, old: Identity, new: Identity, at: float | None) -> InboundMessage | str:
    if not is_id(external_id) or not is_id(old.value) or not is_id(new.value) or old == new:
        return "an identity cannot be read"
    return InboundMessage(
        external_id=external_id,
        sender=old.value,
        identity_kind=old.kind,
        reply_to=new.value,
        content="[identity changed]",
        content_type="system",
        provider_timestamp=at,
        kind="identity",
        also_known_as=(new,),
    )


def _echo(raw: msgspec.Raw) -> InboundMessage | str:
    """What a human of the business wrote in the WhatsApp Business app on the same number (coexistence)."""
    message = part(raw, _Message)
    person = message and (message.to_user_id or message.to)
    said = said_in(message.type, bytes(raw)) if message is not None else None
    if message is None or said is None or not person or not is_id(person) or not is_id(message.id):
        return "an echo cannot be read"
    return InboundMessage(
        external_id=message.id,
        sender=person,
        identity_kind="bsuid" if message.to_user_id else "wa_id",
        reply_to=message.to or person,
        content=said.content,
        content_type=text(message.type, 60),
        provider_timestamp=seconds(message.timestamp),
        kind="echo",
    )
