"""Hearing what is told about conversations: one pub/sub connection a process, which comes back with all it listened to."""

import asyncio
from collections.abc import Callable

import structlog

from replyline.broker.connecting import Namespace, connect
from replyline.broker.connection import Backoff
from replyline.broker.contract import BrokerUnavailable
from replyline.broker.endpoint import Endpoint
from replyline.broker.live import LiveNames, Told, Unreadable, Written, read_message
from replyline.broker.pushing import PushWire
from replyline.supervision import BackgroundTask, Supervisor

log = structlog.get_logger(__name__)

_OPEN_WAIT_S = 1.0
_LOGIN_WITHIN_S = 10.0
_CHANNELS_AT_ONCE = 1000
_LOG_EVERY = 1000


class Listening:
    """The conversations that this process listens to; what is wanted is compared with what Redis has confirmed.

    About a channel one command at a time is under way, so an answer is never taken for that of a later command, and there is
    never more to send than there are channels.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        supervisor: Supervisor,
        namespace: Namespace,
        names: LiveNames,
        *,
        hear: Callable[[Told | Written], None],
        missed: Callable[[], None],
        ping_every_s: float,
        confirm_within_s: float,
    ) -> None:
        """See `Broker.listening`."""
        self._endpoint = endpoint
        self._supervisor = supervisor
        self._namespace = namespace
        self._names = names
        self._hear = hear
        self._missed = missed
        self._ping_every_s = ping_every_s
        self._confirm_within_s = confirm_within_s
        self._wanted: dict[bytes, str] = {}
        self._subscribed: set[bytes] = set()
        self._asked: set[bytes] = set()
        self._due: set[bytes] = set()
        self._to_renew: set[bytes] | None = None
        self._confirmations: dict[bytes, asyncio.Event] = {}
        self._wire: PushWire | None = None
        self._task: BackgroundTask | None = None
        self._renewed = asyncio.Event()
        self._was_connected = False
        self._may_have_missed = False
        self._sending_is_due = False
        self.ignored = 0
        """How many messages were no messages of ours, or made `hear` raise."""

    async def open(self) -> None:
        """Begin connecting and wait about a second for it; that Redis is away is no error."""
        self._task = self._supervisor.start("redis listening", self._keep_connected)
        try:
            await asyncio.wait_for(self._renewed.wait(), _OPEN_WAIT_S)
        except TimeoutError:
            log.warning("listening.away", endpoint=str(self._endpoint))

    async def close(self) -> None:
        """Close for good; who waits in `watching` is told."""
        task, self._task = self._task, None
        if task is not None:
            await task.stop()
        if self._wire is not None:
            self._wire.abort("closed")
            await self._wire.lost
        self._wanted.clear()
        self._forget()
        for channel in list(self._confirmations):
            self._wake(channel)

    @property
    def connected(self) -> bool:
        """Whether all is heard now: connected, and what was watched at that time is subscribed again."""
        return self._renewed.is_set()

    def watch(self, conversation: str) -> None:
        """Hear what is told about it, from about now on (`watching` says when), also after every reconnect."""
        channel = self._names.channel(conversation)
        if channel not in self._wanted:
            self._wanted[channel] = conversation
            self._compare(channel)

    def unwatch(self, conversation: str) -> None:
        """Hear nothing of it any more, from now on."""
        channel = self._names.channel(conversation)
        if self._wanted.pop(channel, None) is not None:
            self._compare(channel)
            self._wake(channel)
            if self._to_renew is not None:
                self._to_renew.discard(channel)
                asyncio.get_running_loop().call_soon(self._has_renewed)  # may call `missed`: not from within this call

    async def watching(self, conversation: str) -> None:
        """Return once Redis has confirmed: what is told from then on is heard, what was before can be read.

        Raises:
            BrokerUnavailable: not within `confirm_within_s`; or it is not watched (any more).
        """
        channel = self._names.channel(conversation)
        try:
            async with asyncio.timeout(self._confirm_within_s):
                while not self._is_heard(channel):
                    if channel not in self._wanted:
                        raise BrokerUnavailable("the conversation is not watched")
                    await self._confirmations.setdefault(channel, asyncio.Event()).wait()
        except TimeoutError as error:
            raise BrokerUnavailable(f"{self._endpoint} has not confirmed a subscription") from error

    def _is_heard(self, channel: bytes) -> bool:
        return channel in self._subscribed and channel in self._wanted and channel not in self._asked

    def _wake(self, channel: bytes) -> None:
        if (event := self._confirmations.pop(channel, None)) is not None:
            event.set()

    def _compare(self, channel: bytes) -> None:
        """Send what is needed for it, together with all else of this turn of the event loop."""
        self._due.add(channel)
        if not self._sending_is_due:
            self._sending_is_due = True
            asyncio.get_running_loop().call_soon(self._send_due)

    def _send_due(self) -> None:
        self._sending_is_due = False
        wire = self._wire
        if wire is None:
            self._due.clear()  # all that is wanted is renewed on the next connection
            return
        while self._due and wire.is_writable:
            batch = [self._due.pop() for _ in range(min(len(self._due), _CHANNELS_AT_ONCE))]
            self._send(wire, [channel for channel in batch if channel not in self._asked])

    def _send(self, wire: PushWire, channels: list[bytes]) -> None:
        on = [channel for channel in channels if channel in self._wanted and channel not in self._subscribed]
        off = [channel for channel in channels if channel in self._subscribed and channel not in self._wanted]
        self._asked.update(on, off)
        if on:
            wire.subscribe(on)
        if off:
            wire.unsubscribe(off)

    # What the wire tells.

    def message(self, channel: bytes, payload: bytes) -> None:
        """Hand it on; a message that is none, or a listener that fails, stops nothing."""
        conversation = self._wanted.get(channel)
        if conversation is None:
            return  # on its way when it was unwatched
        try:
            self._hear(read_message(conversation, payload))
        except Exception as error:  # of one message: the connection's others are not to go with it
            self._ignore(conversation, error)

    def settled(self, channel: bytes, *, subscribed: bool) -> None:
        """Note it; where something else is wanted by now, ask for that."""
        self._asked.discard(channel)
        (self._subscribed.add if subscribed else self._subscribed.discard)(channel)
        if (channel in self._wanted) != subscribed:
            self._compare(channel)
        elif subscribed:
            self._wake(channel)
            if self._to_renew is not None:
                self._to_renew.discard(channel)
                self._has_renewed()

    def writable(self) -> None:
        """Send the rest."""
        self._send_due()

    def _ignore(self, conversation: str, error: Exception) -> None:
        self.ignored += 1
        if self.ignored % _LOG_EVERY != 1:  # who floods a channel does not flood the log
            return
        if isinstance(error, Unreadable):
            log.warning("listening.unreadable", conversation=conversation, error=str(error), ignored=self.ignored)
        else:
            log.error("listening.hear_failed", conversation=conversation, ignored=self.ignored, exc_info=error)

    # Connecting, again and again.

    async def _keep_connected(self) -> None:
        backoff, said = Backoff(), False
        if self._wire is not None:  # left by a failure of this task
            self._wire.abort("started again")
            self._forget()
        while True:
            try:
                self._wire = await self._connect()
            except BrokerUnavailable as error:
                reason = str(error)
            else:
                self._renew()
                reason = await asyncio.shield(self._wire.lost)
                if self._renewed.is_set():
                    backoff.reset()
                    said = False
                self._forget()
            if not said:
                log.warning("listening.lost", reason=reason)
                said = True
            await backoff.pause()

    async def _connect(self) -> PushWire:
        wire, _ = await connect(self._endpoint, self._namespace, (), reply_timeout_s=_LOGIN_WITHIN_S)
        listening = PushWire(self, ping_every_s=self._ping_every_s)
        wire.hand_over(listening)
        return listening

    def _renew(self) -> None:
        self._due = set(self._wanted)
        self._to_renew = set(self._wanted)
        self._may_have_missed = self._was_connected or bool(self._wanted)
        self._send_due()
        self._has_renewed()

    def _has_renewed(self) -> None:
        if self._to_renew is None or self._to_renew:
            return
        self._to_renew = None
        self._renewed.set()
        if self._may_have_missed:
            log.info("listening.back", endpoint=str(self._endpoint), conversations=len(self._wanted))
            try:
                self._missed()
            except Exception:  # the owner's affair: what is pushed from now on is heard all the same
                log.exception("listening.missed_failed")
        self._was_connected = True

    def _forget(self) -> None:
        """Of a lost connection nothing holds on the next one."""
        self._wire = None
        self._to_renew = None
        self._renewed.clear()
        for of_the_connection in (self._subscribed, self._asked, self._due):
            of_the_connection.clear()
