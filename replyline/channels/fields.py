"""Fields of a JSON object of which every part may be missing, null, or of another type than was agreed.

Each is read by itself: one that cannot be read is left out, and hides neither its neighbours nor the message that it belongs to.
"""

import math

import msgspec

from replyline.channels.reading import is_id, items, part, text

_MAX_DEPTH = 8
_MAX_ENTRIES = 200


class Fields:
    """A JSON object as it came; what is no object has no fields."""

    def __init__(self, raw: bytes | msgspec.Raw = b"") -> None:
        self._parts = part(raw, dict[str, msgspec.Raw]) or {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __contains__(self, name: str) -> bool:
        """Whether the field is there at all, even as null."""
        return name in self._parts

    def raw(self, name: str) -> msgspec.Raw:
        """The field as it came; empty where it is missing."""
        return self._parts.get(name, msgspec.Raw())

    def text(self, name: str, max_chars: int = 512) -> str | None:
        """A text that says something, cut to `max_chars` characters; a number in its place is written out."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        found = text(str(value), max_chars)
        return found if found.strip() else None

    def id(self, name: str) -> str | None:
        """An id, which may be written as a whole number; a cut one would be another's, so one that is too long is none."""
        value = self._value(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return value if isinstance(value, str) and is_id(value) else None

    def number(self, name: str) -> float | None:
        """A finite number, which may be written as text."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        try:
            found = float(value)
        except (ValueError, OverflowError):
            return None
        return found if math.isfinite(found) else None

    def flag(self, name: str) -> bool:
        """Whether the field is true."""
        return self._value(name) is True

    def fields(self, name: str) -> "Fields":
        """The object in that field."""
        return Fields(self.raw(name))

    def each(self, name: str, most: int) -> list["Fields"]:
        """The objects of the list in that field, `most` at most; an object in place of a list counts as its only item."""
        found = items(self.raw(name)) or [self.raw(name)]
        return [fields for item in found[:most] if (fields := Fields(item))]

    def texts(self, name: str, most: int, max_chars: int = 512) -> tuple[str, ...]:
        """The texts of the list in that field, `most` at most."""
        found = (part(item, str) for item in items(self.raw(name))[:most])
        return tuple(short for words in found if words and (short := text(words, max_chars)).strip())

    def _value(self, name: str) -> object:
        return part(self._parts[name], object) if name in self._parts else None


def plain(value: object, depth: int = 0) -> object:
    """JSON as Postgres can keep it: without U+0000, not too deep and not too wide."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if depth >= _MAX_DEPTH and isinstance(value, dict | list):
        return None
    if isinstance(value, dict):
        return {
            str(name).replace("\x00", ""): plain(one, depth + 1) for name, one in list(value.items())[:_MAX_ENTRIES]
        }
    if isinstance(value, list):
        return [plain(one, depth + 1) for one in value[:_MAX_ENTRIES]]
    return value
