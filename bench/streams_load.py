"""Load on the streams: messages by the pipeline's own moves, pieces of answers, and a count of what came of them."""

import asyncio
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import quantiles

from bench.streams_stage import Stage
from bench.streams_wire import Piece, Seen
from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.store.moves import Moves
from replyline.store.moves.accept import Accept
from replyline.store.moves.inbound_lane import Receive
from replyline.store.moves.receive import Received
from replyline.store.moves.work import Run
from replyline.store.outbox import Outbox

INTERVAL_S = 0.05
"""Between two pieces of an answer, as workers tell them at most."""
TRAIN = 3
"""Messages that one conversation gets one right after the other, so that there is an order to keep."""
_BIG = "x" * 8000
_OF_ONE_ANSWER = 7  # big ones: one answer has at most 64 KiB


@dataclass(frozen=True)
class Delays:
    """Seconds from the commit (or the call) to the page."""

    p50: float
    p99: float
    most: float


@dataclass
class Faults:
    """What must not be: all of it 0."""

    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    pieces: int = 0
    """Answers of which a page that reads had something not, or twice."""
    broken: int = 0
    """Streams that ended though nobody cut them."""

    def __bool__(self) -> bool:
        return any((self.lost, self.doubled, self.disordered, self.pieces, self.broken))


@dataclass
class Driver:
    """Writes, and remembers when each thing was committed."""

    stage: Stage
    identities: Sequence[str]
    conversations: Sequence[uuid.UUID]
    wrote: dict[int, list[str]] = field(default_factory=dict)
    """For each page its messages, in the order they were committed."""
    late: list[float] = field(default_factory=list)
    """By how many seconds it was late itself: how busy the machine is."""

    def __post_init__(self) -> None:
        self._moves = Moves(self.stage.app.database, self._publish)
        self._grown_at: dict[uuid.UUID, float] = {}
        self._locks = [asyncio.Lock() for _ in self.identities]
        self.count = 0

    @classmethod
    async def of(cls, stage: Stage, conversations: Sequence[str]) -> "Driver":
        """A driver of these pages."""
        async with stage.app.database.connection() as connection:
            rows = await connection.fetch("SELECT conversation_id, identity FROM visitors")
        identities = {str(row["conversation_id"]): row["identity"] for row in rows}
        return cls(stage, [identities[one] for one in conversations], [uuid.UUID(one) for one in conversations])

    async def _until(self, due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.late.append(time.monotonic() - due)

    def _publish(self, outbox: Outbox) -> None:
        """The publisher's, with a look at the clock: the transaction has committed this moment."""
        self._grown_at.update(dict.fromkeys(outbox.grown, time.monotonic()))
        self.stage.app.publisher.publish(outbox)

    async def write(self, page: int) -> tuple[str, float]:
        """One message in the conversation of a page; its text, and when it was committed."""
        async with self._locks[page]:
            text = f"message {self.count}"
            self.count += 1
            self.wrote.setdefault(page, []).append(text)
            job = IncomingMessageJob(
                customer_id=self.stage.customer.id,
                trace_id=new_id(),
                message_id=new_id(),
                chatbot_id=self.stage.channel.chatbot_id,
                channel_id=self.stage.channel.id,
                channel="WIDGET",
                external_user_id=self.identities[page],
                identity_kind="visitor",
                conversation_id=self.conversations[page],
                content=text,
            )
            accepted = await self._moves.accept(Accept(job, self.stage.customer.priority, None))
            run = Run(accepted.job_id, datetime.now(UTC), "bench")
            received = await self._moves.receive(Receive(run, job))
            if received is not Received.SAVED:
                raise RuntimeError(f"{text}: {received}")
            return text, self._grown_at[self.conversations[page]]

    async def write_steadily(self, pages: Sequence[int], a_second: float, seconds: float) -> dict[str, float]:
        """Trains of messages at random pages, begun on time whether those before are through or not; when each committed."""
        committed: dict[str, float] = {}

        async def train(page: int) -> None:
            for _ in range(TRAIN):
                text, at = await self.write(page)
                committed[text] = at

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(a_second * seconds / TRAIN)):
                await self._until(started + number * TRAIN / a_second)
                group.create_task(train(random.choice(pages)))
        return committed

    async def stream(self, pages: Sequence[int], seconds: float) -> dict[str, list[float]]:
        """An answer at each of these pages, a piece each INTERVAL_S; when each piece was told."""
        told: dict[str, list[float]] = {}
        live = self.stage.app.broker.live

        async def answer(page: int) -> None:
            conversation, stream = str(self.conversations[page]), str(uuid.uuid4())
            told[stream] = []
            await asyncio.sleep(random.uniform(0, INTERVAL_S))
            await live.begin(conversation, stream)
            started = time.monotonic()
            for number in range(int(seconds / INTERVAL_S)):
                await self._until(started + number * INTERVAL_S)
                told[stream].append(time.monotonic())
                if not await live.append(conversation, stream, f" {number}"):
                    raise RuntimeError("an answer was taken over")
            await live.end(conversation, stream)

        await asyncio.gather(*(answer(page) for page in pages))
        return told

    async def pour(self, pages: Sequence[int], seconds: float) -> int:
        """Big pieces at each of these pages, one each INTERVAL_S; how many bytes at each."""
        live = self.stage.app.broker.live
        count = int(seconds / INTERVAL_S)

        async def answers(page: int) -> None:
            conversation, stream = str(self.conversations[page]), ""
            await asyncio.sleep(random.uniform(0, INTERVAL_S))
            started = time.monotonic()
            for number in range(count):
                if number % _OF_ONE_ANSWER == 0:
                    stream = str(uuid.uuid4())
                    await live.begin(conversation, stream)
                await self._until(started + number * INTERVAL_S)
                await live.append(conversation, stream, _BIG)
            await live.end(conversation, stream)

        await asyncio.gather(*(answers(page) for page in pages))
        return count * len(_BIG)


def delays_of_messages(seen: Sequence[Seen], committed: Mapping[str, float]) -> tuple[Delays, Delays | None]:
    """Of messages at pages that were there all the time, and of those that came over a cut."""
    steady: list[float] = []
    cut: list[float] = []
    for page in seen:
        for message in page.messages:
            if (at := committed.get(message.text)) is not None:
                was_away = any(begun < message.at and at < ended for begun, ended in page.away)
                (cut if was_away else steady).append(message.at - at)
    return delays(steady), delays(cut) if len(cut) > 1 else None


def delays_of_pieces(seen: Sequence[Seen], told: Mapping[str, Sequence[float]]) -> Delays:
    """Of the pieces that came as such."""
    return delays(
        [
            piece.at - told[piece.stream][piece.index]
            for page in seen
            for piece in page.pieces
            if piece.stream in told and not piece.whole
        ]
    )


def delays(samples: Sequence[float]) -> Delays:
    """What is said of them."""
    cuts = quantiles(samples, n=100, method="inclusive")
    return Delays(cuts[49], cuts[98], max(samples))


def count_messages(seen: Sequence[Seen], wrote: Mapping[int, Sequence[str]], faults: Faults) -> None:
    """Every message once and in order, at its place."""
    for number, page in enumerate(seen):
        wanted, came = wrote.get(number, []), [message.text for message in page.messages]
        once = list(dict.fromkeys(came))
        faults.lost += len(set(wanted) - set(came))
        faults.doubled += len(came) - len(once) + len(set(came) - set(wanted))
        places = [message.place for message in page.messages]
        faults.disordered += once != [text for text in wanted if text in set(came)] or places != sorted(places)
        faults.broken += page.broken


def count_pieces(seen: Sequence[Seen], told: Mapping[str, Sequence[float]], faults: Faults) -> None:
    """Every answer from its first piece to its last, each once; a whole text stands for what is in it."""
    came: dict[str, list[Piece]] = {stream: [] for stream in told}
    for page in seen:
        for piece in page.pieces:
            if piece.stream in came:
                came[piece.stream].append(piece)
    for stream, pieces in came.items():
        following = 0
        for piece in pieces:
            if not piece.whole and piece.index != following:
                following = -1
                break
            following = piece.index + 1
        faults.pieces += following != len(told[stream])
