"""A connection to Redis that comes back: it reconnects by itself, and says at once when there is none."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence

import structlog

from replyline.broker.clock import RedisClock
from replyline.broker.connecting import LoginRefused, Namespace, WrongDeployment, connect, reply_of
from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.endpoint import Endpoint
from replyline.broker.scripts import SCRIPTS, in_full
from replyline.broker.wire import Answer, Reply, ScriptMissing, Wire, Word, pack
from replyline.supervision import BackgroundTask, Supervisor

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
_ASK_TIME_EVERY_S = 15.0
# A connection that is lost sooner than this has not shown that the server works: the next try waits, and is not logged.
_STEADY_S = 1.0


class Backoff:
    """How long to wait before the next try to connect: longer each time, up to about a second."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait, and longer the next time."""
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It went well: the next wait is short."""
        self._pause_s = _FIRST_PAUSE_S


class Connection:
    """One multiplexed connection: what is sent within one turn of the event loop leaves in one write."""

    def __init__(
        self, endpoint: Endpoint, namespace: Namespace, supervisor: Supervisor, *, reply_timeout_s: float
    ) -> None:
        self.endpoint = endpoint
        self.namespace = namespace
        self.clock = RedisClock()
        self.failure: BrokerUnavailable | None = None
        """Why there is no connection, while there is none."""
        self._supervisor = supervisor
        self._reply_timeout_s = reply_timeout_s
        self._wire: Wire | None = None
        self._ready = asyncio.Event()
        self._task: BackgroundTask | None = None

    async def open(self, wait_s: float) -> None:
        """Begin connecting, and wait up to `wait_s` seconds for the first connection; none is no error."""
        self._task = self._supervisor.start("redis connection", self._keep_connected)
        try:
            await asyncio.wait_for(self._ready.wait(), wait_s)
        except TimeoutError:
            log.warning("redis.away", endpoint=str(self.endpoint))

    async def close(self) -> None:
        """Close for good; what is pending fails."""
        if self._task is not None:
            await self._task.stop()
        if self._wire is not None:
            await self._wire.close("closed")
            self._wire = None
        self._ready.clear()

    async def change_to(self, namespace: Namespace) -> None:
        """Go on with other keys, on a new connection; what is pending fails."""
        self.namespace = namespace
        self._ready.clear()
        if self._wire is not None:
            await self._wire.close("begun anew for our deployment")

    @property
    def connected(self) -> bool:
        """Whether commands can be sent now."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Wait for a connection, however long that takes."""
        await self._ready.wait()

    async def call(self, *words: Word) -> Reply:
        """One command. Raises BrokerUnavailable or CommandRefused."""
        return await self.run(pack(*words))

    async def run(self, command: bytes) -> Reply:
        """One packed command.

        Raises:
            BrokerUnavailable: not connected, or the connection was lost: whether the command was carried out is not known.
            CommandRefused: Redis answered with an error.
        """
        try:
            return await self._live().send(command)
        except ScriptMissing:  # somebody flushed the scripts: it was not run
            await self._load_scripts()
        try:
            return await self._live().send(command)
        except ScriptMissing:  # and flushes them all the time
            return await self._live().send(in_full(command))

    async def run_all(self, commands: Sequence[bytes]) -> list[Answer]:
        """Several packed commands in one write, with all their answers in order; one refused command is its answer.

        Raises:
            BrokerUnavailable: see `run`; then none of the answers is known.
        """
        if not commands:
            return []
        answers = await self._live().send_group(b"".join(commands), len(commands))
        if missing := _missing(answers):
            await self._load_scripts()
            await self._again(answers, {index: commands[index] for index in missing})
            if missing := _missing(answers):  # somebody flushes them all the time
                await self._again(answers, {index: in_full(commands[index]) for index in missing})
        return answers

    async def _again(self, answers: list[Answer], commands: Mapping[int, bytes]) -> None:
        again = await self._live().send_group(b"".join(commands.values()), len(commands))
        for index, answer in zip(commands, again, strict=True):
            answers[index] = answer

    def _live(self) -> Wire:
        if self._wire is None or not self._ready.is_set():
            raise BrokerUnavailable(str(self.failure or f"not connected to {self.endpoint}"))
        return self._wire

    async def _load_scripts(self) -> None:
        await self._live().send_group(_LOAD_SCRIPTS, len(SCRIPTS))

    async def _keep_connected(self) -> None:
        backoff = Backoff()
        said: str | None = None
        self._ready.clear()
        if self._wire is not None:  # left by a failure of this task
            await self._wire.close("started again")
        while True:
            try:
                wire = await self._connect()
            except BrokerUnavailable as error:
                if said is None or type(error) is not type(self.failure):
                    (log.error if isinstance(error, LoginRefused | WrongDeployment) else log.warning)(
                        "redis.away", error=str(error)
                    )
                    said = str(error)
                self.failure = error
                await backoff.pause()
                continue
            connected_at = time.monotonic()
            self.failure = None
            self._ready.set()
            reason = await self._until_lost(wire)
            self._ready.clear()
            self.failure = BrokerUnavailable(f"the connection to {self.endpoint} was lost: {reason}")
            steady = time.monotonic() - connected_at > _STEADY_S
            if steady or said != reason:  # one that takes us and drops us at once, as a replica does, is worth one line
                log.warning("redis.lost", reason=reason)
            said = reason
            if steady:
                backoff.reset()
            else:
                await backoff.pause()

    async def _connect(self) -> Wire:
        setup = [*(pack("SCRIPT", "LOAD", script.text) for script in SCRIPTS), pack("INFO", "memory")]
        wire, answers = await connect(self.endpoint, self.namespace, setup, reply_timeout_s=self._reply_timeout_s)
        for answer in answers[:-1]:
            if isinstance(answer, BrokerUnavailable | CommandRefused):
                await wire.close("the scripts could not be loaded")
                raise BrokerUnavailable(f"Redis at {self.endpoint} does not take our scripts: {answer}") from answer
        _warn_of_eviction(reply_of(answers[-1]))
        await self._ask_time(wire)
        self._wire = wire
        return wire

    async def _until_lost(self, wire: Wire) -> str:
        while not wire.lost.done():
            await asyncio.wait([wire.lost], timeout=_ASK_TIME_EVERY_S)
            if not wire.lost.done():
                await self._ask_time(wire)
        return wire.lost.result()

    async def _ask_time(self, wire: Wire) -> None:
        asked_at = time.monotonic()
        try:
            self.clock.learn(await wire.send(pack("TIME")), asked_at, time.monotonic())
        except (BrokerUnavailable, CommandRefused) as error:  # the connection's end is seen elsewhere
            log.debug("redis.time_not_told", error=str(error))


_LOAD_SCRIPTS = b"".join(pack("SCRIPT", "LOAD", script.text) for script in SCRIPTS)


def _missing(answers: Sequence[Answer]) -> list[int]:
    return [index for index, answer in enumerate(answers) if isinstance(answer, ScriptMissing)]


def _warn_of_eviction(info: Reply) -> None:
    """BullMQ's documentation, "Going to production": maxmemory-policy must be noeviction, or Redis drops jobs at will."""
    for line in info.decode(errors="replace").splitlines() if isinstance(info, bytes) else ():
        name, _, policy = line.partition(":")
        if name == "maxmemory_policy" and policy != "noeviction":
            log.warning("redis.evicts", maxmemory_policy=policy, wanted="noeviction")
