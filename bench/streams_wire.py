"""What the bench and the process with the pages say to each other, a line of JSON at a time."""

from typing import TypeAlias

import msgspec


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Make so many visitors with a session each; their pages are numbered from 0."""

    url: str
    site_key: str
    count: int


class Open(msgspec.Struct, frozen=True, tag=True):
    """Open the streams of these pages; `deaf` ones read nothing until they are told to."""

    pages: list[int]
    deaf: bool = False


class Hear(msgspec.Struct, frozen=True, tag=True):
    """These pages read on."""

    pages: list[int]


class Close(msgspec.Struct, frozen=True, tag=True):
    """Close the streams of these pages."""

    pages: list[int]


class Cut(msgspec.Struct, frozen=True, tag=True):
    """Cut each of these pages off at some moment of so many seconds, and with that chance at each message: before the page has
    it or just after. They are back at once, from the last place they have."""

    pages: list[int]
    within_s: float
    chance: float


class Count(msgspec.Struct, frozen=True, tag=True):
    """How many messages have come, on all pages together."""


class Collect(msgspec.Struct, frozen=True, tag=True):
    """All messages that have come so far, and the pieces since the last time."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A message as it came; `at` is of the clock that all processes of a machine share (`time.monotonic`)."""

    place: int
    text: str
    at: float


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A piece of an answer as it came; `whole` where it stands for all before it too."""

    stream: str
    index: int
    text: str
    whole: bool
    at: float


class Seen(msgspec.Struct, frozen=True):
    """What one page has seen, and when it was cut off: from, until."""

    messages: list[Message]
    pieces: list[Piece]
    away: list[tuple[float, float]]
    broken: int
    """How often its stream ended though nobody cut it."""


class Counted(msgspec.Struct, frozen=True, tag=True):
    """The answer to most commands."""

    messages: int
    open: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The answer to a command that could not be carried out."""

    why: str
    open: int


Command: TypeAlias = Begin | Open | Hear | Close | Cut | Count | Collect
