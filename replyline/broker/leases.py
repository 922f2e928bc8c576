"""Keeping the jobs that a worker holds, and setting free those that a vanished one held."""

import time
from collections.abc import Collection

import msgpack

from replyline.broker.connection import Connection
from replyline.broker.keys import Keys
from replyline.broker.scripts import EXTEND_LOCKS, MOVE_STALLED
from replyline.broker.wire import Reply, pack

_STALLED = ("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")


async def renew(connection: Connection, keys: Keys, token: str, job_ids: list[str], lock_s: float) -> list[str]:
    """Renew the locks of all `job_ids` in one call; returns those that are no longer ours."""
    command = EXTEND_LOCKS.call(
        keys["stalled"],
        keys.prefix,
        msgpack.packb([token] * len(job_ids)),
        msgpack.packb(job_ids),
        round(lock_s * 1000),
    )
    return _ids(await connection.run(command))


async def free_stalled(connection: Connection, keys: Keys, *, max_stalled: int, every_s: float) -> list[str]:
    """Let jobs of vanished workers wait again, and return them; of all workers one looks each `every_s` seconds."""
    now_ms = time.time_ns() // 1_000_000
    command = MOVE_STALLED.call(*keys.all(*_STALLED), max_stalled, keys.prefix, now_ms, round(every_s * 1000))
    return _ids(await connection.run(command))


async def held_unknowingly(connection: Connection, keys: Keys, token: str, known: Collection[str]) -> list[str]:
    """Jobs that Redis holds for `token`, but that are not `known`: their fetch never reached us."""
    active = _ids(await connection.call("LRANGE", keys["active"], 0, -1))
    unknown = [job_id for job_id in active if job_id not in known]
    locks = await connection.run_all([pack("GET", f"{keys.job(job_id)}:lock") for job_id in unknown])
    return [job_id for job_id, lock in zip(unknown, locks, strict=True) if lock == token.encode()]


def _ids(reply: Reply) -> list[str]:
    return [entry.decode() for entry in reply if isinstance(entry, bytes)] if isinstance(reply, list) else []
