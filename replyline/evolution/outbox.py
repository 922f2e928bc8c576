"""Telling events on: signed, in order for each session, again and again for a day (docs/qr-gateway.md, "Events")."""

import asyncio
import hashlib
import hmac
import sqlite3
import time

import aiohttp
import structlog

from replyline.evolution.memory import KEPT_S, Memory, Session, Waiting
from replyline.supervision import Supervisor

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 300.0
_REFUSED = frozenset({400, 413, 422})
_REFUSALS_UNTIL_ASIDE = 5
_LOOK_AGAIN_S = 30.0
_MEMORY_PAUSE_S = 1.0


class Outbox:
    """One session's events on their way to its webhook."""

    def __init__(
        self,
        memory: Memory,
        session: Session,
        http: aiohttp.ClientSession,
        supervisor: Supervisor,
        *,
        first_wait_s: float,
    ) -> None:
        self.session = session
        self._memory = memory
        self._http = http
        self._first_wait_s = first_wait_s
        self._news = asyncio.Event()
        self._task = supervisor.start("evolution outbox", self._run, vital=False)

    def poke(self) -> None:
        """There may be something to tell."""
        self._news.set()

    async def close(self) -> None:
        """Stop; what waits is told after the next start."""
        await self._task.stop()

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                event = await self._memory.next_event(self.session.id)
                if event is not None:
                    await self._until_told(event)
                    continue
            except sqlite3.Error:
                log.exception("evolution.memory_failed", session=self.session.id)  # a full disk, say: tried again
                await asyncio.sleep(_MEMORY_PAUSE_S)
                continue
            try:
                await asyncio.wait_for(self._news.wait(), _LOOK_AGAIN_S)
            except TimeoutError:
                continue  # looked at again, in case somebody forgot to poke

    async def _until_told(self, event: Waiting) -> None:
        wait_s = self._first_wait_s
        refusals = 0
        while time.time() - event.at < KEPT_S:
            status = await self._post(event.body)
            if 200 <= status < 300:
                await self._memory.told(event.seq)
                return
            refusals += status in _REFUSED
            if refusals >= _REFUSALS_UNTIL_ASIDE:
                log.error("evolution.event_put_aside", session=self.session.id, status=status)
                await self._memory.put_aside(event.seq)
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        log.error("evolution.event_given_up", session=self.session.id)
        await self._memory.told(event.seq)

    async def _post(self, body: bytes) -> int:
        stamp = str(int(time.time()))
        signed = hmac.new(self.session.webhook_secret.encode(), stamp.encode() + b"." + body, hashlib.sha256)
        headers = {
            "Content-Type": "application/json",
            "X-Gateway-Timestamp": stamp,
            "X-Gateway-Signature": f"v1={signed.hexdigest()}",
        }
        try:
            async with self._http.post(
                self.session.webhook_url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=10),
                allow_redirects=False,
            ) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0  # nobody there, or no address: like any answer that is not 2xx
