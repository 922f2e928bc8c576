"""Job schedulers of BullMQ (`queue.upsertJobScheduler`): whoever takes the job of one iteration adds the job of the next.

BullMQ's own worker does the same (`Worker.nextJobFromJobData` and `JobScheduler.upsertJobScheduler` of BullMQ for Node 6.7). The
script adds the next iteration only if the job is the scheduler's newest, and the id of an iteration's job is made of its time:
calling it twice, or from a worker that takes the job again after another was lost, adds nothing twice.
"""

import asyncio

import msgpack
import msgspec
import structlog

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.cron import PatternRefused, next_due_ms
from replyline.broker.held import Held
from replyline.broker.keys import Keys
from replyline.broker.scripts import UPDATE_JOB_SCHEDULER
from replyline.broker.wire import pack

log = structlog.get_logger(__name__)

_AWAY_PAUSE_S = 0.05
_KEYS = ("repeat", "delayed", "wait", "paused", "meta", "prioritized", "marker", "id", "events", "pc")


class ScheduleRefused(Exception):
    """The next iteration cannot be found as BullMQ for Node would find it; the message says why."""


class Repeat(msgspec.Struct, rename="camel"):
    """The option `repeat` of an iteration's job; times are in milliseconds since 1970."""

    every: float | None = None
    pattern: str | None = None
    tz: str | None = None
    limit: float | None = None
    count: float = 0
    """Which iteration this one is, counted from 1."""
    offset: float | None = None
    start_date: float | None = None
    end_date: float | None = None


class _Options(msgspec.Struct, rename="camel"):
    repeat: Repeat
    prev_millis: float = 0


_options_decoder = msgspec.json.Decoder(_Options)
_any_decoder = msgspec.json.Decoder(dict[str, object])


class Scheduling:
    """Keeps the job schedulers of one queue going."""

    def __init__(self, connection: Connection, keys: Keys, *, allowed: bool) -> None:
        self._connection = connection
        self._keys = keys
        self._allowed = allowed

    async def go_on(self, held: Held) -> None:
        """Add the iteration after that of the job, before the job is done; waits while Redis is away.

        What cannot go on is logged, and the job is done all the same.
        """
        scheduler, job_id = held.job.scheduler, held.job.id
        if scheduler is None:
            return
        try:
            if not self._allowed:
                raise ScheduleRefused("jobs of this queue are Replyline's own")
            while True:
                try:
                    await self._add_next(scheduler, job_id, held.options)
                    return
                except BrokerUnavailable:
                    await asyncio.sleep(_AWAY_PAUSE_S)
                    await self._connection.ready()
        except (ScheduleRefused, CommandRefused) as error:
            log.error(
                "worker.scheduler_stopped",
                queue=self._keys.queue,
                scheduler=scheduler,
                job=job_id,
                error=str(error),
            )

    async def _add_next(self, scheduler: str, job_id: str, options: bytes) -> None:
        due, kept = await self._connection.run_all(
            [
                pack("ZSCORE", self._keys["repeat"], scheduler),
                pack("HMGET", f"{self._keys['repeat']}:{scheduler}", "ic", "data"),
            ]
        )
        for answer in (due, kept):
            if isinstance(answer, BrokerUnavailable | CommandRefused):
                raise answer
        if due is None:  # it was removed meanwhile
            return
        # What BullMQ 5 calls a repeatable job (`add` with `repeat`) keeps neither: its next job would have no data.
        if not isinstance(kept, list) or not any(value is not None for value in kept):
            raise ScheduleRefused("it is a repeatable job of BullMQ 5 (`add` with `repeat`), not a job scheduler")
        now_ms = self._connection.clock.now_ms()
        command = advance(self._keys, scheduler, job_id, options, now_ms=now_ms)
        if command is not None:
            await self._connection.run(command)


def advance(keys: Keys, scheduler: str, job_id: str, options: bytes, *, now_ms: int) -> bytes | None:
    """The command that adds the iteration after that of the job; None if that was the last one.

    Raises:
        ScheduleRefused: see there.
    """
    try:
        said, raw = _options_decoder.decode(options), _any_decoder.decode(options)
    except msgspec.MsgspecError as error:
        raise ScheduleRefused(f"its options cannot be read: {error}") from error
    repeat, count = said.repeat, int(said.repeat.count) + 1
    if repeat.limit is not None and count > repeat.limit:
        return None
    if repeat.end_date and now_ms > repeat.end_date:
        return None
    base_ms = max(now_ms, int(said.prev_millis))
    next_ms = base_ms if repeat.every else _next_ms(repeat, base_ms)  # the script counts `every` itself
    told = raw["repeat"]
    # `immediately` is about the first iteration, which is past.
    kept = {name: value for name, value in told.items() if name != "immediately"} if isinstance(told, dict) else {}
    merged = raw | {
        "delay": 0,  # the script's own, as is `jobId`
        "timestamp": now_ms,
        "prevMillis": next_ms,
        "repeatJobKey": scheduler,
        "repeat": kept | {"count": count},
    }
    return UPDATE_JOB_SCHEDULER.call(
        *keys.all(*_KEYS),
        keys.job(job_id),
        keys["active"],
        next_ms,
        scheduler,
        "{}",  # unused: the template is in the scheduler
        msgpack.packb(merged),
        now_ms,
        keys.prefix,
        job_id,
    )


def _next_ms(repeat: Repeat, after_ms: int) -> int:
    if not repeat.pattern:
        raise ScheduleRefused("it has neither `every` nor `pattern`")
    try:
        return next_due_ms(repeat.pattern, repeat.tz, max(after_ms, int(repeat.start_date or 0)))
    except PatternRefused as error:
        raise ScheduleRefused(str(error)) from error
