"""What an open page is told beside the messages themselves: events that nobody keeps, in the widget's words (contracts §4.2)."""

from typing import TypeAlias

import msgspec

Value: TypeAlias = str | int | bool


class LiveEvent(msgspec.Struct, frozen=True):
    """One event without a place in the log: who misses it has missed nothing that counts."""

    event: str
    data: dict[str, Value]


CLOSED = LiveEvent("conversation.closed", {})


def owned(owner: str) -> tuple[LiveEvent, ...]:
    """Who answers from now on: `BOT`, `HUMAN` or `NONE`; for nobody also in the older word, for pages that know only that."""
    event = LiveEvent("conversation.owner", {"owner": owner})
    return (event, CLOSED) if owner == "NONE" else (event,)


def typing(author: str, *, on: bool) -> LiveEvent:
    """Somebody (`user`, `assistant`, `agent`) writes, or no longer."""
    return LiveEvent("typing", {"on": on, "author": author})


def processing(message_id: str) -> LiveEvent:
    """The visitor's message is being answered."""
    return LiveEvent("message.status", {"id": message_id, "status": "processing"})


def seen(up_to: int, status: str) -> LiveEvent:
    """The visitor's page has what we sent up to that place (`delivered`), or they read it (`read`)."""
    return LiveEvent("message.status", {"up_to": up_to, "status": status})


def withdrawn(message_id: str, code: str) -> LiveEvent:
    """What was being written under this id will not come."""
    return LiveEvent("message.failed", {"id": message_id, "code": code, "text": ""})


_decoder = msgspec.json.Decoder(LiveEvent)


def encode_event(event: LiveEvent) -> bytes:
    """As it travels between our processes."""
    return msgspec.json.encode(event)


def decode_event(raw: bytes) -> LiveEvent | None:
    """The event, or None if it is not of a known kind (a newer version's, say)."""
    try:
        return _decoder.decode(raw)
    except msgspec.MsgspecError:
        return None
