"""The jobs a worker holds, read from what a script returned, and the commands that end them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgpack
import msgspec

from replyline.broker.contract import ActiveJob, Completed, Failed, Postpone, Retry
from replyline.broker.keys import Keys
from replyline.broker.publishing import Kept, keep_jobs
from replyline.broker.scripts import ADD_LOG, MOVE_BACK, MOVE_TO_ACTIVE, MOVE_TO_DELAYED, MOVE_TO_FINISHED
from replyline.broker.wire import Reply, bulk

_TO_ACTIVE = (
    "wait",
    "active",
    "prioritized",
    "events",
    "stalled",
    "limiter",
    "delayed",
    "paused",
    "meta",
    "pc",
    "marker",
)
_TO_FINISHED = _TO_ACTIVE[:10]
_TO_DELAYED = ("marker", "active", "prioritized", "delayed")
_TO_DELAYED_THEN = ("events", "meta", "stalled", "wait", "limiter", "pc")
_BACK = ("active", "wait", "stalled", "paused", "meta", "limiter", "prioritized", "marker", "events")

# The whole history is in Postgres; BullMQ's tools are shown the newest.
_STACKS_SHOWN = 10
_LOG_LINES_KEPT = 20
# One number a minute for completed and failed jobs each: BullMQ's MetricsTime.TWO_WEEKS.
_METRICS_MINUTES = 14 * 24 * 60


class _Options(msgspec.Struct):
    """What a producer may have said about the end of its job; all other options are none of the worker's business."""

    attempts: float = 1
    removeOnComplete: bool | int | dict[str, int] | None = None
    removeOnFail: bool | int | dict[str, int] | None = None


_options_decoder = msgspec.json.Decoder(_Options)
_stacks_decoder = msgspec.json.Decoder(list[str])


@dataclass(frozen=True, slots=True)
class Held:
    """A job that this worker holds, with what is needed to end it."""

    job: ActiveJob
    options: bytes
    stacks: bytes


@dataclass(frozen=True, slots=True)
class Nothing:
    """No job was to be had: limited for `limited_ms`, or the next delayed one is due at `next_ms`; 0 is neither."""

    limited_ms: int = 0
    next_ms: int = 0


def read_fetch(queue: str, reply: Reply) -> Held | Nothing:
    """What `moveToActive`, or a finish that fetches, returned."""
    if not isinstance(reply, list) or len(reply) != 4:
        return Nothing()
    fields, job_id, limited, following = reply
    if isinstance(fields, list) and isinstance(job_id, bytes):
        return _held(queue, job_id.decode(), dict(zip(fields[::2], fields[1::2], strict=True)))
    return Nothing(
        limited_ms=limited if isinstance(limited, int) else 0, next_ms=following if isinstance(following, int) else 0
    )


def _held(queue: str, job_id: str, fields: "Mapping[Reply, Reply]") -> Held:
    deferred = fields.get(b"defa")
    return Held(
        ActiveJob(
            queue=queue,
            id=job_id,
            name=_text(fields.get(b"name")),
            data=_bytes(fields.get(b"data")),
            priority=_number(fields.get(b"priority")),
            timestamp_ms=_number(fields.get(b"timestamp")),
            processed_ms=_number(fields.get(b"processedOn")),
            starts=_number(fields.get(b"ats")),
            attempts_made=_number(fields.get(b"atm")),
            stalled=_number(fields.get(b"stc")),
            # A failed attempt sets the reason with the number of attempts, and only BullMQ's scripts for Retry remove it.
            retried=b"failedReason" not in fields and (b"atm" in fields or b"stacktrace" in fields),
            scheduler=_text(fields.get(b"rjk")) or None,
            deferred_failure=None if deferred is None else _text(deferred),
        ),
        options=_bytes(fields.get(b"opts")),
        stacks=_bytes(fields.get(b"stacktrace")),
    )


def _bytes(value: Reply) -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(value: Reply) -> str:
    return _bytes(value).decode(errors="replace")


def _number(value: Reply) -> int:
    text = _bytes(value)
    return int(float(text)) if text else 0


class Ender:
    """Makes the commands of one worker that fetch and end jobs; what does not change from job to job is packed once.

    `now_ms` is Redis' time: with the worker's own, jobs would be due when its clock says so.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        token: str,
        name: str,
        lock_ms: int,
        rate_limit: tuple[int, float] | None,
        keep_completed: Kept,
        keep_failed: Kept,
        now_ms: Callable[[], int],
    ) -> None:
        self._keys = keys
        self._now_ms = now_ms
        self._token = token
        self._lock: dict[str, object] = {"token": token, "lockDuration": lock_ms, "name": name}
        if rate_limit is not None:
            self._lock["limiter"] = {"max": rate_limit[0], "duration": round(rate_limit[1] * 1000)}
        self._packed_lock = bulk(msgpack.packb(self._lock))
        self._keep = {"completed": keep_completed, "failed": keep_failed}
        self._prefix = bulk(keys.prefix.encode())
        self._fetch_head = MOVE_TO_ACTIVE.head(11 + 3) + _bulks(*keys.all(*_TO_ACTIVE), keys.prefix)
        finished = MOVE_TO_FINISHED.head(14 + 9) + _bulks(*keys.all(*_TO_FINISHED))
        self._finish_heads = {target: finished + _bulks(keys[target]) for target in ("completed", "failed")}
        self._finish_middles = {
            target: _bulks(f"{keys.prefix}metrics:{target}", keys["marker"]) for target in ("completed", "failed")
        }
        self._delay_head = MOVE_TO_DELAYED.head(11 + 9) + _bulks(*keys.all(*_TO_DELAYED))
        self._delay_middle = _bulks(*keys.all(*_TO_DELAYED_THEN), keys.prefix)
        self._finish_options = lru_cache(maxsize=256)(self._pack_finish_options)

    def fetch(self) -> bytes:
        """Take the next job, promoting what is due."""
        return b"".join((self._fetch_head, self._stamp(), self._packed_lock))

    def take(self) -> bytes:
        """The arguments of the same, for a call that does something else before."""
        return b"".join((self._prefix, self._stamp(), self._packed_lock))

    def end(self, held: Held, outcome: Completed | Retry | Postpone | Failed, *, fetch_next: bool) -> bytes:
        """End a job as its handler said."""
        match outcome:
            case Completed(result):
                return self._finish(
                    held, "completed", field=b"returnvalue", value=result, fields=b"", fetch_next=fetch_next
                )
            case Failed(reason, stack, _):
                fields = _updated(held, reason, stack) if stack else b""
                return self._finish(
                    held, "failed", field=b"failedReason", value=reason.encode(), fields=fields, fetch_next=fetch_next
                )
            case Retry(after_ms, reason, stack, _):
                return self._delay(held, after_ms, b"0", _updated(held, reason, stack), fetch_next)
            case Postpone(after_ms, _):
                return self._delay(held, after_ms, b"1", b"", fetch_next)

    def note(self, job_id: str, line: str) -> bytes:
        """Write a line into the job's log, which keeps the newest."""
        key = self._keys.job(job_id)
        return ADD_LOG.call(key, f"{key}:logs", job_id, line, _LOG_LINES_KEPT)

    def hand_back(self, job_id: str) -> bytes:
        """Put a job that was not finished back to where it is taken from next."""
        return MOVE_BACK.call(*self._keys.all(*_BACK), job_id, self._token, self._keys.job(job_id))

    def _finish(self, held: Held, target: str, *, field: bytes, value: bytes, fields: bytes, fetch_next: bool) -> bytes:
        job_id = held.job.id.encode()
        return b"".join(
            (
                self._finish_heads[target],
                bulk(self._keys.prefix.encode() + job_id),
                self._finish_middles[target],
                bulk(job_id),
                self._stamp(),
                bulk(field),
                bulk(value),
                bulk(target.encode()),
                bulk(b"1" if fetch_next else b""),
                self._prefix,
                self._finish_options(target, held.options),
                bulk(fields),
            )
        )

    def _delay(self, held: Held, after_ms: int, skip_attempt: bytes, fields: bytes, fetch_next: bool) -> bytes:
        job_id = held.job.id.encode()
        return b"".join(
            (
                self._delay_head,
                bulk(self._keys.prefix.encode() + job_id),
                self._delay_middle,
                self._stamp(),
                bulk(job_id),
                bulk(self._token.encode()),
                bulk(str(after_ms).encode()),
                bulk(skip_attempt),
                bulk(fields),
                bulk(b"1" if fetch_next else b"0"),
                self._packed_lock,
            )
        )

    def _stamp(self) -> bytes:
        return bulk(b"%d" % self._now_ms())

    def _pack_finish_options(self, target: str, options: bytes) -> bytes:
        try:
            said = _options_decoder.decode(options)
        except msgspec.MsgspecError:  # a foreign producer's options are not worth losing the job's end over
            said = _Options()
        keep = said.removeOnComplete if target == "completed" else said.removeOnFail
        packed = msgpack.packb(
            {
                **self._lock,
                "keepJobs": _keep_jobs(keep, self._keep[target]),
                "attempts": int(said.attempts),
                "attemptsMade": 0,
                "maxMetricsSize": _METRICS_MINUTES,
                "fpof": False,
                "cpof": False,
                "idof": False,
                "rdof": False,
            }
        )
        return bulk(packed)


def _keep_jobs(said: bool | int | dict[str, int] | None, default: Kept) -> dict[str, int]:
    match said:
        case None:
            return keep_jobs(*default)
        case True:
            return {"count": 0}
        case False:
            return {"count": -1}
        case dict():
            return said
        case _:
            return {"count": said}


def _updated(held: Held, reason: str, stack: str) -> bytes:
    """The fields that BullMQ's tools show of a failure."""
    try:
        stacks = _stacks_decoder.decode(held.stacks) if held.stacks else []
    except msgspec.MsgspecError:  # written by something else; what we know is worth more
        stacks = []
    shown = [*stacks, stack or reason][-_STACKS_SHOWN:]
    packed: bytes = msgpack.packb(["failedReason", reason, "stacktrace", msgspec.json.encode(shown).decode()])
    return packed


def _bulks(*words: str) -> bytes:
    return b"".join(bulk(word.encode()) for word in words)
