"""Meta's callbacks: the signature, the handshake, and every entry, change, message and status of a batch (contracts §2)."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

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
from replyline.channels.fields import Fields
from replyline.channels.reading import UNREADABLE, items, part, seconds, text
from replyline.channels.signatures import same
from replyline.channels.whatsapp_cloud.account import account_of, is_of_number, notice_in, preference_in
from replyline.channels.whatsapp_cloud.content import Said, said_in
from replyline.channels.whatsapp_cloud.people import (
    Names,
    Person,
    people_in,
    receiver_of,
    sender_of,
    system_change,
    user_id_update,
)
from replyline.channels.whatsapp_cloud.statuses import read_status
from replyline.jobs import IncomingKind
from replyline.notices import Notice, Preference

MAX_ITEMS = 1_000
"""Updates that Meta puts into one callback at most (WhatsApp Cloud API, "Webhooks": up to 1,000); what is more is left unread."""

# What a human of the business does on the telephone. Their reactions are no message, and change nothing.
_ECHOES: Mapping[IncomingKind, IncomingKind] = {
    "message": "echo",
    "edit": "echo_edit",
    "revoke": "echo_revoke",
}


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
    user_preferences: msgspec.Raw = msgspec.Raw()


class _Envelope(msgspec.Struct):
    entry: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class _HalfRead:
    """A message of which there is more than was understood: it is taken in, and kept as it came for a human too."""

    message: InboundMessage
    reason: str


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
    for entry, raw_change in _changes(envelope, reader):
        reader.take(entry, raw_change)
    return reader.callback()


def _changes(envelope: _Envelope, reader: "_Reader") -> Iterator[tuple[Fields, msgspec.Raw]]:
    for raw_entry in envelope.entry:
        entry = Fields(raw_entry)
        if not entry:
            reader.leave("an entry cannot be read", raw_entry, own=False)
        for raw_change in items(entry.raw("changes")):
            yield entry, raw_change


class _Reader:
    """Collects what one callback says to one account."""

    def __init__(self, account: ChannelAccount) -> None:
        self._account = account
        self._messages: list[InboundMessage] = []
        self._statuses: list[StatusUpdate] = []
        self._unread: list[UnreadItem] = []
        self._notices: list[Notice] = []
        self._preferences: list[Preference] = []
        self._businesses: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._ignored = 0
        self._seen = 0

    def callback(self) -> Callback:
        return Callback(
            tuple(self._messages),
            tuple(self._statuses),
            tuple(self._unread),
            notices=tuple(self._notices),
            preferences=tuple(self._preferences),
            ignored=self._ignored,
            businesses=self._businesses,
            elsewhere=self._elsewhere,
        )

    def leave(self, reason: str, raw: msgspec.Raw, *, own: bool = True) -> None:
        """Not understood: kept for a human."""
        self._unread.append(UnreadItem(reason, bytes(raw), own))

    def take(self, entry: Fields, raw: msgspec.Raw) -> None:
        change = Fields(raw)
        if not change:
            self.leave("a change cannot be read", raw, own=False)
            return
        field, value = change.text("field", 60) or "", part(change.raw("value"), _Value)
        if value is None:
            self._take_business(field, change.raw("value"), entry, raw)
        elif value.metadata.phone_number_id != self._account.external_id:
            name = text(value.metadata.phone_number_id, 100)
            found = sum(len(items(part)) for part in (value.messages, value.statuses, value.message_echoes)) or 1
            self._elsewhere[name] = self._elsewhere.get(name, 0) + found
        else:
            self._take_value(field, value, raw)

    def _take_business(self, field: str, raw_value: msgspec.Raw, entry: Fields, raw: msgspec.Raw) -> None:
        """A change that names no number is its business account's: of another, or where ours is not known, it tells us nothing.

        One callback URL may serve several customers of one application, and none may read what is said of another.
        """
        value, ours = Fields(raw_value), self._account.config.get("waba_id")
        business = account_of(entry, value)
        if business is not None:
            self._businesses[business] = self._businesses.get(business, 0) + 1
        if ours is None or business != ours or not is_of_number(value, self._account.config.get("phone_number")):
            self._ignored += business in {None, ours} or ours is None
            return
        fallback = self._account.config.get("fallback_template")
        notice = notice_in(field, entry, raw_value, fallback_template=fallback)
        if notice is None:
            self.leave(f"a change of the field {field}", raw)
        else:
            self._notices.append(notice)

    def _take_preferences(self, value: _Value, raw: msgspec.Raw) -> None:
        people = items(value.contacts)
        person = Fields(people[0]) if len(people) == 1 else Fields()
        for raw_preference in self._bounded(value.user_preferences):
            preference = preference_in(Fields(raw_preference), person)
            if preference is None:
                self.leave("a user_preferences that is not known", raw)
            else:
                self._preferences.append(preference)

    def _take_value(self, field: str, value: _Value, raw: msgspec.Raw) -> None:
        match field:
            case "messages":
                people = people_in(value.contacts)
                for raw_message in self._bounded(value.messages):
                    self._add(_message(raw_message, people), raw_message)
                for raw_status in self._bounded(value.statuses):
                    self._add(read_status(raw_status), raw_status)
                for raw_error in self._bounded(value.errors):
                    self.leave("Meta reports an error", raw_error)
            case "smb_message_echoes":
                people = people_in(value.contacts)
                for raw_echo in self._bounded(value.message_echoes):
                    self._add(_echo(raw_echo, people), raw_echo)
            case "user_id_update":
                updates = items(value.user_id_update) or [value.user_id_update]
                for raw_update in updates:
                    self._add(user_id_update(Fields(raw_update)), raw)
            case "user_preferences":
                self._take_preferences(value, raw)
            case _:
                self.leave(f"a change of the field {field}", raw)

    def _bounded(self, raw: msgspec.Raw) -> Iterator[msgspec.Raw]:
        for item in items(raw):
            self._seen += 1
            if self._seen > MAX_ITEMS:
                self.leave(f"more than {MAX_ITEMS} updates in one callback", item)
            else:
                yield item

    def _add(self, item: InboundMessage | StatusUpdate | _HalfRead | str | None, raw: msgspec.Raw) -> None:
        match item:
            case InboundMessage():
                self._messages.append(item)
            case _HalfRead(message, reason):
                self._messages.append(message)
                self.leave(reason, raw)
            case StatusUpdate():
                self._statuses.append(item)
            case None:
                self._ignored += 1
            case _:
                self.leave(item, raw)


def _message(raw: msgspec.Raw, people: Mapping[str, Person]) -> InboundMessage | _HalfRead | str | None:
    """What a person did; a text says why it cannot be told, None that it is not for us (a group)."""
    message = Fields(raw)
    external_id = message.id("id")
    if external_id is None:
        return "a message cannot be read"
    if message.text("group_id") is not None:
        return None
    kind = message.text("type", 60) or ""
    if kind == "system":
        return system_change(message, external_id)
    names = sender_of(message, people)
    if names is None:
        return "a message names no sender"
    said = said_in(message)
    if said is None:
        return f"a message of the type {kind}"
    return _found(external_id, kind, said, names, message)


def _found(external_id: str, kind: str, said: Said, names: Names, message: Fields) -> InboundMessage | _HalfRead:
    found = InboundMessage(
        external_id=external_id,
        sender=names.first.value,
        identity_kind=names.first.kind,
        reply_to=names.reply_to,
        content=said.content,
        content_type=kind or "unknown",
        name=names.shown,
        provider_timestamp=seconds(message.number("timestamp")),
        kind=said.kind,
        also_known_as=names.others,
        target_id=said.target_id,
        media=said.media,
        body=said.body,
    )
    return found if said.unread is None else _HalfRead(found, said.unread)


def _echo(raw: msgspec.Raw, people: Mapping[str, Person]) -> InboundMessage | str:
    """What a human of the business wrote in the WhatsApp Business app on the same number (coexistence), or changed of it."""
    message = Fields(raw)
    external_id, names, said = message.id("id"), receiver_of(message, people), said_in(message)
    kind = message.text("type", 60) or "unknown"
    if external_id is None or names is None:
        return "an echo cannot be read"
    if said is None or said.unread is not None or said.kind not in _ECHOES:
        return f"an echo of the type {kind}"
    found = _found(external_id, kind, replace(said, kind=_ECHOES[said.kind], unread=None), names, message)
    return found.message if isinstance(found, _HalfRead) else found
