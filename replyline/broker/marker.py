"""Waiting for a queue's marker: the one blocking call of a worker, on a connection of its own."""

import asyncio
import contextlib

from replyline.broker.connecting import connect
from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.keys import Keys
from replyline.broker.wire import Reply, Wire, pack

_ASK_FOR_S = 2.0
_ANSWER_GRACE_S = 10.0
_RELEASE_S = 1.0


class MarkerWait:
    """BZPOPMIN on the marker of one queue.

    Our own timer ends a wait, not Redis': a server with nothing to do looks at its blocked clients only ten times a second. The
    call then stays open, and the next wait goes on with it.
    """

    def __init__(self, connection: Connection, keys: Keys, *, worker: str) -> None:
        self._connection = connection
        self._name = keys.worker_client(worker)
        self._marker = keys["marker"]
        self._wire: Wire | None = None
        self._client_id = 0
        self._call: asyncio.Future[Reply] | None = None

    async def wait(self, seconds: float) -> float | None:
        """The score of the marker, or None when there was none for `seconds`.

        0 says that a job can be taken; more is when (milliseconds since 1970) the next delayed one is due.

        Raises:
            BrokerUnavailable: the connection could not be made, or was lost; a marker may have been taken with it.
        """
        if self._call is None:
            self._call = (await self._connected()).send(pack("BZPOPMIN", self._marker, _ASK_FOR_S))
        call = self._call
        await asyncio.wait([call], timeout=max(seconds, 0))
        return self._score() if self._call is call and call.done() else None  # else `release` has answered it

    async def release(self) -> None:
        """Let go of the marker, so that other workers see it: end an open call, and give back what it took at the last moment."""
        call = self._call
        if call is None or self._wire is None:
            return
        try:
            async with asyncio.timeout(_RELEASE_S):
                await self._connection.call("CLIENT", "UNBLOCK", self._client_id)
                await asyncio.wait([call])
            taken = self._score()
            if taken is not None:
                await self.put_back(taken)
        except (BrokerUnavailable, CommandRefused, TimeoutError):
            await self.close()  # not there to be asked nicely

    async def put_back(self, score: float) -> None:
        """Set the marker: 0 that a job can be taken, more when the next delayed one is due."""
        await self._connection.call("ZADD", self._marker, int(score), "1" if score else "0")

    async def close(self) -> None:
        """Drop the connection."""
        wire, self._wire, call, self._call = self._wire, None, self._call, None
        if call is not None:
            call.cancel()
        if wire is not None:
            await wire.close("closed")

    async def _connected(self) -> Wire:
        if self._wire is None or self._wire.lost.done():
            self._wire, answers = await connect(
                self._connection.endpoint,
                self._connection.namespace,
                [pack("CLIENT", "ID")],
                reply_timeout_s=_ASK_FOR_S + _ANSWER_GRACE_S,
            )
            self._client_id = answers[0] if isinstance(answers[0], int) else 0
            with contextlib.suppress(CommandRefused):  # it only says who we are: a Redis user may not be allowed to
                await self._wire.send(pack("CLIENT", "SETNAME", self._name))
        return self._wire

    def _score(self) -> float | None:
        call, self._call = self._call, None
        if call is None:
            return None
        try:
            reply = call.result()
        except CommandRefused as error:
            raise BrokerUnavailable(str(error)) from error
        if not isinstance(reply, list) or len(reply) != 3 or not isinstance(reply[2], bytes):
            return None
        return float(reply[2])
