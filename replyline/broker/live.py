"""What happens in conversations right now, told by workers to whoever looks. Best effort: Postgres is the authority."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable
from replyline.broker.keys import short
from replyline.broker.scripts import (
    LIVE_APPEND,
    LIVE_BEGIN,
    LIVE_END,
    LIVE_ENTER,
    LIVE_LEAVE,
    LIVE_SO_FAR,
    LIVE_WATCHED,
)
from replyline.broker.wire import pack

MOST_BYTES = 65_536
"""Of what is told at once, of the text of one answer, and of what a ticket stands for."""
_MESSAGE_BYTES = MOST_BYTES + 4096
_WRITING_TTL_MS = 120_000
_BATCH = 1000
_ANY_NUMBER = -1


@dataclass(frozen=True, slots=True)
class Told:
    """Something happened; `what` is opaque, up to MOST_BYTES."""

    conversation: str
    what: bytes

    def __post_init__(self) -> None:
        if len(self.what) > MOST_BYTES:
            raise ValueError(f"too much to tell at once: {len(self.what)} bytes")


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of the answer that is being written."""

    conversation: str
    stream: str
    """The id of the answer."""
    index: int
    """Counts up from 0 within a stream."""
    text: str


@dataclass(frozen=True, slots=True)
class SoFar:
    """The answer that is being written, as far as it is: the pieces before `next_index`, joined."""

    stream: str
    next_index: int
    text: str


class Live:
    """Telling, and who looks. Every call raises BrokerUnavailable while Redis is away, and CommandRefused where it may not."""

    def __init__(self, connection: Connection, names: "LiveNames") -> None:
        self._connection = connection
        self._names = names

    async def tell(self, rows: Sequence[Told]) -> None:
        """Tell what happened to whoever listens now, in this order, in one write."""
        packed = [pack("PUBLISH", self._names.channel(row.conversation), _encode(_Told(row.what))) for row in rows]
        await self._run_all(packed)

    async def begin(self, conversation: str, stream: str) -> None:
        """A stream begins to be written, and takes over: nothing is taken from an earlier one of the conversation any more.

        A stream's id is used once: pieces of the same id that were heard before would hide the new ones. What is not written
        on for 120 s is forgotten.
        """
        await self._connection.run(LIVE_BEGIN.call(*self._writing(conversation), stream, _WRITING_TTL_MS))

    async def append(self, conversation: str, stream: str, text: str) -> bool:
        """Write on, and tell it; False where another stream has taken over, none is written, or it grew over MOST_BYTES.

        After BrokerUnavailable the piece may be written or not: go on with a new stream, else the text could have a gap.
        """
        piece = text.encode(errors="replace")  # a model's half of a surrogate pair is no text
        channel = self._names.channel(conversation)
        command = LIVE_APPEND.call(*self._writing(conversation), stream, piece, MOST_BYTES, _WRITING_TTL_MS, channel)
        return await self._connection.run(command) == 1

    async def end(self, conversation: str, stream: str) -> None:
        """Forget what was written, where it is this stream that is written."""
        await self._connection.run(LIVE_END.call(*self._writing(conversation), stream))

    async def so_far(self, conversation: str) -> SoFar | None:
        """What is being written. Who listens first and then asks has, by the index, every piece once."""
        answer = await self._connection.run(LIVE_SO_FAR.call(*self._writing(conversation)))
        match answer:
            case None:
                return None
            case [bytes() as stream, int() as next_index, bytes() as text]:
                return SoFar(stream.decode(errors="replace"), next_index, text.decode(errors="replace"))
            case _:
                raise BrokerUnavailable(f"unexpected state of a stream: {answer!r:.100}")

    async def enter(self, conversation: str, reader: str, *, most: int, ttl_s: float) -> bool:
        """Look at a conversation for `ttl_s` seconds, to be renewed; False where `most` others look already."""
        command = LIVE_ENTER.call(self._names.key(conversation, "readers"), reader, _ms(ttl_s), max(0, most))
        return await self._connection.run(command) == 1

    async def renew(self, rows: Sequence[tuple[str, str]], *, ttl_s: float) -> None:
        """These (conversation, reader) look on, for `ttl_s` seconds from now; also those whom Redis has lost meanwhile."""
        ttl_ms = _ms(ttl_s)
        for start in range(0, len(rows), _BATCH):  # between two batches others have their turn
            batch = rows[start : start + _BATCH]
            await self._run_all(
                [LIVE_ENTER.call(self._names.key(where, "readers"), who, ttl_ms, _ANY_NUMBER) for where, who in batch]
            )

    async def leave(self, conversation: str, reader: str, *, linger_s: float) -> None:
        """Look no more; the conversation counts as watched for `linger_s` seconds longer, as a page may reconnect."""
        linger_ms = _ms(linger_s) if linger_s > 0 else 0
        await self._connection.run(LIVE_LEAVE.call(*self._watching(conversation), reader, linger_ms))

    async def is_watched(self, conversation: str) -> bool:
        """Whether anybody looks, or left and lingers."""
        return await self._connection.run(LIVE_WATCHED.call(*self._watching(conversation))) == 1

    async def keep_ticket(self, ticket: str, value: bytes, *, ttl_s: float) -> None:
        """Keep up to MOST_BYTES for whoever brings the ticket within `ttl_s` seconds. Raises ValueError for more."""
        if len(value) > MOST_BYTES:
            raise ValueError(f"too much for a ticket: {len(value)} bytes")
        await self._connection.call("SET", self._names.ticket(ticket), value, "PX", _ms(ttl_s))

    async def take_ticket(self, ticket: str) -> bytes | None:
        """What was kept, given once; None for a ticket that was taken, is too old or never was.

        After BrokerUnavailable it may be taken or not.
        """
        value = await self._connection.call("GETDEL", self._names.ticket(ticket))
        return value if isinstance(value, bytes) else None

    def _writing(self, conversation: str) -> tuple[str, str]:
        return self._names.key(conversation, "writing"), self._names.key(conversation, "text")

    def _watching(self, conversation: str) -> tuple[str, str]:
        return self._names.key(conversation, "readers"), self._names.key(conversation, "lingers")

    async def _run_all(self, commands: Sequence[bytes]) -> None:
        for answer in await self._connection.run_all(commands):
            if isinstance(answer, Exception):
                raise answer


@dataclass(frozen=True, slots=True)
class LiveNames:
    """The keys and channels; all of one conversation are in one slot of a Redis Cluster: the braces are its hash tag."""

    prefix: str
    database: int
    """Channels know no databases, so their names do: two on one server must not hear one another."""

    def key(self, conversation: str, name: str) -> str:
        """A key of the conversation."""
        return f"{self.prefix}:replyline:live:{{{short(conversation)}}}:{name}"

    def channel(self, conversation: str) -> bytes:
        """Where its news are published."""
        return self.key(conversation, f"news:{self.database}").encode()

    def ticket(self, ticket: str) -> str:
        """Its digest, so that who may look into Redis has no ticket yet."""
        digest = hashlib.sha256(ticket.encode(errors="surrogatepass")).hexdigest()
        return f"{self.prefix}:replyline:live:{{{digest}}}:ticket"


class Unreadable(Exception):
    """What came on a channel is not one of our messages."""


def read_message(conversation: str, payload: bytes) -> Told | Written:
    """What was published on the channel of a conversation. Raises Unreadable."""
    if len(payload) > _MESSAGE_BYTES:
        raise Unreadable(f"{len(payload)} bytes")
    try:
        message = _decoder.decode(payload)
        if isinstance(message, _Told):
            return Told(conversation, message.what)
        return Written(conversation, message.stream, message.index, message.text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error


class _Told(msgspec.Struct, array_like=True, tag="t", frozen=True):
    what: bytes


class _Written(msgspec.Struct, array_like=True, tag="w", frozen=True):
    """As liveAppend.lua packs it."""

    stream: str
    index: Annotated[int, msgspec.Meta(ge=0)]
    text: str


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Told | _Written)


def _ms(seconds: float) -> int:
    if not seconds > 0:
        raise ValueError(f"a time to live must be above 0 s: {seconds}")
    return max(1, round(seconds * 1000))
