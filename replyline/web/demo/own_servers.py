"""What the demo breaks of its own: a worker process of this `replyline start`, and all that its embedded Redis holds."""

import asyncio

from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.web.demo.phones import Demo
from replyline.web.problems import Problem

_KILLED_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05


async def kill_worker(app: App, demo: Demo) -> None:
    """Have `replyline start` end one worker process with SIGKILL; it starts another by itself.

    Raises:
        Problem: 409, the Redis is not the demo's own; 503, `replyline start` did not do it within 10 seconds.
    """
    _check_own(demo)
    request = app.settings.kill_request_file
    request.touch(mode=0o600)
    try:
        async with asyncio.timeout(_KILLED_WITHIN_S):
            while request.exists():  # noqa: ASYNC110  another process removes it, no event tells
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise Problem(503, "start_away", "`replyline start` killed no worker: none runs, or it hangs") from None
    finally:
        request.unlink(missing_ok=True)


async def wipe_redis(app: App, demo: Demo) -> None:
    """FLUSHALL of the embedded Redis.

    Raises:
        Problem: 409, the Redis is not the demo's own; 503, it does not answer or refuses.
    """
    _check_own(demo)
    try:
        await app.broker.command("FLUSHALL")
    except (BrokerUnavailable, CommandRefused) as error:
        raise Problem(503, "redis_away", f"Redis was not emptied: {error}") from error


def _check_own(demo: Demo) -> None:
    """Others may work with a Redis that the environment names, and their data may be in it."""
    if not demo.own_redis:
        raise Problem(
            409,
            "not_embedded",
            "this is done to the demo's own embedded servers only: start the demo without REDIS_URL and REDIS_HOST",
        )
