"""Reading what others wrote: JSON that may be anything, and texts and ids that Postgres must be able to keep."""

import uuid
from typing import TypeVar

import msgspec

Part = TypeVar("Part")

# msgspec raises the last two as they are: for bytes that are not UTF-8, and for JSON nested deeper than the stack.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_MAX_TEXT_CHARS = 65_536
_MAX_ID_CHARS = 512


def part(raw: bytes | msgspec.Raw, kind: type[Part]) -> Part | None:
    """`raw` as `kind`, or None: one bad item must not hide its neighbours."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE:
        return None


def items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The items of a list that may be missing, null or no list at all."""
    return part(raw, list[msgspec.Raw]) or [] if bytes(raw) else []


def text(words: str, max_chars: int = _MAX_TEXT_CHARS) -> str:
    """`words` as they can be kept: Postgres has no NUL in a text, and no message is longer than `max_chars` characters."""
    return words.replace("\x00", "")[:max_chars]


_LATEST_S = 4_102_444_800.0  # the year 2100: anything later is not a time


def seconds(stamp: str | float | None) -> float | None:
    """Unix seconds, which may be written as text; None where they are no time."""
    try:
        value = float(stamp) if stamp else None
    except ValueError:
        return None
    return value if value is not None and 0 < value < _LATEST_S else None


def our_id(value: str | None) -> uuid.UUID | None:
    """Our message id, given back to us; None where it is missing or another program's."""
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        return None


def is_id(value: str) -> bool:
    """Whether `value` can be kept as an id; a cut or repaired id would be another's."""
    return 0 < len(value) <= _MAX_ID_CHARS and "\x00" not in value
