"""Joining Redis when Postgres is away at first: it alone says which deployment this is, and whose queues we may touch."""

import asyncio

import structlog

from replyline.broker import Broker
from replyline.publisher import Publisher
from replyline.store.database import Database, StoreUnavailable
from replyline.store.deployment import deployment_id
from replyline.supervision import Supervisor

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0


class Joining:
    """Publishes nothing, and lets workers wait, until the deployment is known."""

    def __init__(self, database: Database, broker: Broker, publisher: Publisher, supervisor: Supervisor) -> None:
        self._database = database
        self._broker = broker
        self._publisher = publisher
        self._supervisor = supervisor
        self._joined = asyncio.Event()

    def join_at_once(self) -> None:
        """The broker knows the deployment already."""
        self._publisher.start()
        self._joined.set()

    def join_later(self) -> None:
        """Ask Postgres until it answers and is migrated."""
        self._supervisor.start("joining", self._join, vital=False)

    async def joined(self) -> None:
        """Wait for it."""
        await self._joined.wait()

    async def _join(self) -> None:
        while not self._joined.is_set():
            deployment = await known_deployment(self._database)
            if deployment is None:
                await asyncio.sleep(_LOOK_EVERY_S)
                continue
            await self._broker.belong_to(deployment)
            self.join_at_once()
            log.info("postgres.back")
        await asyncio.Event().wait()


async def known_deployment(database: Database) -> str | None:
    """The deployment's id; None while Postgres is away or not migrated."""
    try:
        return await deployment_id(database)
    except StoreUnavailable:
        return None
