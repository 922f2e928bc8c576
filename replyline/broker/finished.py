"""Watching a queue whose jobs somebody else works: how they ended, and whether Redis can have forgotten any."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.keys import Keys, keys_of
from replyline.broker.scripts import CLEAN
from replyline.broker.wire import Answer, Reply, pack

_FIELDS = ("returnvalue", "failedReason", "stacktrace", "atm", "processedOn", "pb")
_EVENTS_AT_ONCE = 500
_CLEANED_AT_ONCE = 1000
_ENDED = frozenset({"completed", "failed"})


@dataclass(frozen=True, slots=True)
class Finished:
    """What whoever worked a job has left in it."""

    returned: bytes
    """JSON; empty if nothing was returned, or the job was removed meanwhile."""
    failed_reason: str
    stack: str
    """Of the last attempt."""
    attempts: int
    started_ms: int
    """When its last attempt began, milliseconds since 1970; 0 if that is not known."""
    worker: str


class _Memory(msgspec.Struct):
    """Kept in Redis, so that it goes when what Redis knows goes."""

    run_id: str
    since_ms: int


_stacks = msgspec.json.Decoder(list[str])


class Watch:
    """What others did with the jobs of queues. Every call raises BrokerUnavailable while Redis is away."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def newest_event(self, queue: str) -> str:
        """The id of the newest event of the queue, after which `ended_since` goes on."""
        reply = await self._connection.call("XREVRANGE", self._of(queue)["events"], "+", "-", "COUNT", 1)
        entries = reply if isinstance(reply, list) else []
        return _text(entries[0][0]) if entries and isinstance(entries[0], list) else "0-0"

    async def ended_since(self, queue: str, event_id: str) -> tuple[list[str], str, bool]:
        """The jobs that ended after an event, the id of the last event read, and whether there may be more.

        BullMQ keeps about the newest 10,000 events of a queue: who is behind by more misses some.
        """
        stream = self._of(queue)["events"]
        reply = await self._connection.call("XREAD", "COUNT", _EVENTS_AT_ONCE, "STREAMS", stream, event_id)
        entries = reply[0][1] if isinstance(reply, list) and isinstance(reply[0], list) else []
        ended: list[str] = []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, list) and isinstance(entry[1], list):
                event_id = _text(entry[0])
                fields = dict(zip(map(_text, entry[1][::2]), map(_text, entry[1][1::2]), strict=True))
                if fields.get("event") in _ENDED:
                    ended.append(fields.get("jobId", ""))
        return ended, event_id, isinstance(entries, list) and len(entries) == _EVENTS_AT_ONCE

    async def finished(self, queue: str, job_ids: Sequence[str]) -> list[Finished]:
        """What was left in each of these jobs."""
        keys = self._of(queue)
        answers = await self._connection.run_all([pack("HMGET", keys.job(job_id), *_FIELDS) for job_id in job_ids])
        return [_finished(answer) for answer in answers]

    async def waiting(self, queue: str, *, limit: int) -> list[str]:
        """The ids of jobs that no worker has: of each kind of list (plain, prioritized, delayed) the `limit` that come first."""
        keys = self._of(queue)
        lists = [pack("LRANGE", keys[name], -limit, -1) for name in ("wait", "paused")]
        sets = [pack("ZRANGE", keys[name], 0, limit - 1) for name in ("prioritized", "delayed")]
        found: list[str] = []
        for answer in await self._connection.run_all([*lists, *sets]):
            if isinstance(answer, BrokerUnavailable | CommandRefused):
                raise answer
            found += [_text(entry) for entry in answer] if isinstance(answer, list) else []
        return found

    async def remembers_since(self) -> int | None:
        """Since when, milliseconds since 1970, this Redis has forgotten nothing; None if that cannot be known.

        A Redis that was emptied, restarted, or taken over by a replica may have forgotten what it had acknowledged, so its memory
        begins anew. None is for users that may not ask INFO.
        """
        try:
            info = await self._connection.call("INFO", "server")
        except CommandRefused:
            return None
        run_id = _run_id(_text(info))
        key = f"{self._prefix}:replyline:memory"
        kept = await self._connection.call("GET", key)
        memory = _memory(kept)
        if memory is None or memory.run_id != run_id:
            memory = _Memory(run_id, self._connection.clock.now_ms())
            await self._connection.call("SET", key, msgspec.json.encode(memory))
        return memory.since_ms

    async def clean(self, queue: str, state: str, *, keep_s: float) -> None:
        """Remove jobs that ended in that state (`completed` or `failed`) more than `keep_s` seconds ago."""
        keys = self._of(queue)
        before_ms = self._connection.clock.now_ms() - round(keep_s * 1000)
        names = keys.all(state, "events", "repeat")
        if await self._connection.call("ZCOUNT", keys[state], "-inf", before_ms):
            await self._connection.run(CLEAN.call(*names, keys.prefix, before_ms, _CLEANED_AT_ONCE, state))

    def _of(self, queue: str) -> Keys:
        return keys_of(self._prefix, queue)


def _finished(answer: Answer) -> Finished:
    if isinstance(answer, BrokerUnavailable | CommandRefused):
        raise answer
    values = answer if isinstance(answer, list) else [None] * len(_FIELDS)
    returned, reason, stacks, attempts, started, worker = values
    return Finished(
        returned if isinstance(returned, bytes) else b"",
        _text(reason),
        _last_stack(_text(stacks)),
        _number(attempts),
        _number(started),
        _text(worker),
    )


def _last_stack(stacks: str) -> str:
    try:
        return _stacks.decode(stacks)[-1] if stacks else ""
    except (msgspec.MsgspecError, IndexError):  # somebody else wrote it: the reason is what counts
        return ""


def _memory(kept: Reply) -> _Memory | None:
    try:
        return msgspec.json.decode(kept, type=_Memory) if isinstance(kept, bytes) else None
    except msgspec.MsgspecError:  # not ours: what it stands for cannot be relied on either
        return None


def _run_id(info: str) -> str:
    lines = dict(line.partition(":")[::2] for line in info.splitlines())
    return lines.get("run_id", "")


def _text(value: Reply) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _number(value: Reply) -> int:
    text = _text(value)
    return int(text) if text.isdecimal() else 0
