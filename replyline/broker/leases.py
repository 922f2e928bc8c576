"""Keeping the jobs that a worker holds, and setting free those that a vanished one held."""

import asyncio
from collections.abc import Collection

import msgpack
import structlog

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.keys import Keys
from replyline.broker.scripts import EXTEND_LOCKS, MOVE_STALLED
from replyline.broker.wire import Reply, pack

log = structlog.get_logger(__name__)

_STALLED = ("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")
_JOBS_NAMED = 10


class Leases:
    """The locks of one worker's jobs, and its share of the watch over everybody's."""

    def __init__(
        self, connection: Connection, keys: Keys, *, token: str, lock_s: float, stalled_every_s: float, max_stalled: int
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._token = token
        self._lock_s = lock_s
        self._stalled_every_s = stalled_every_s
        self._max_stalled = max_stalled

    async def renew_forever(self, held: Collection[str]) -> None:
        """Renew the locks of all that is in `held` (it may change meanwhile), so often that one renewal may fail."""
        while True:
            await asyncio.sleep(self._lock_s / 3)
            if not held:
                continue
            try:
                lost = await self._renew(list(held))
            except (BrokerUnavailable, CommandRefused) as error:
                log.warning("worker.locks_not_renewed", queue=self._keys.queue, error=str(error))
                continue
            self._warn_of("worker.locks_lost", [job_id for job_id in lost if job_id in held])

    async def watch_forever(self) -> None:
        """Let jobs of vanished workers wait again; of all workers one looks each `stalled_every_s` seconds."""
        while True:
            await self._connection.ready()
            try:
                self._warn_of("worker.stalled", await self._free_stalled())
            except (BrokerUnavailable, CommandRefused) as error:
                log.warning("worker.stalled_not_checked", queue=self._keys.queue, error=str(error))
            await asyncio.sleep(self._stalled_every_s)

    async def ours(self, known: Collection[str] = ()) -> list[str]:
        """The jobs that Redis holds for this worker, newest first, without the `known`.

        Raises:
            BrokerUnavailable: Redis is away.
        """
        active = _ids(await self._connection.call("LRANGE", self._keys["active"], 0, -1))
        unknown = [job_id for job_id in active if job_id not in known]
        locks = await self._connection.run_all([pack("GET", f"{self._keys.job(job_id)}:lock") for job_id in unknown])
        return [job_id for job_id, lock in zip(unknown, locks, strict=True) if lock == self._token.encode()]

    async def _renew(self, job_ids: list[str]) -> list[str]:
        command = EXTEND_LOCKS.call(
            self._keys["stalled"],
            self._keys.prefix,
            msgpack.packb([self._token] * len(job_ids)),
            msgpack.packb(job_ids),
            round(self._lock_s * 1000),
        )
        return _ids(await self._connection.run(command))

    async def _free_stalled(self) -> list[str]:
        command = MOVE_STALLED.call(
            *self._keys.all(*_STALLED),
            self._max_stalled,
            self._keys.prefix,
            self._connection.clock.now_ms(),
            round(self._stalled_every_s * 1000),
        )
        return _ids(await self._connection.run(command))

    def _warn_of(self, event: str, job_ids: list[str]) -> None:
        if job_ids:
            log.warning(event, queue=self._keys.queue, count=len(job_ids), jobs=job_ids[:_JOBS_NAMED])


def _ids(reply: Reply) -> list[str]:
    return [entry.decode() for entry in reply if isinstance(entry, bytes)] if isinstance(reply, list) else []
