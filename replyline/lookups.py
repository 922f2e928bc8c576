"""What is looked up for each message: accounts, channels by their chatbot, priorities; at most 5 seconds old."""

import uuid

from replyline.channels import ChannelAccount
from replyline.jobs import ChannelKind
from replyline.settings import Settings
from replyline.store import accounts, customers
from replyline.store import channels as channel_records
from replyline.store.database import Database
from replyline.store.moves.accept import Place, Wanted, find_places
from replyline.store.recently import Changes, Recently
from replyline.vault import Vault

_LOWEST = 5


class Lookups:
    """Remembers what it found for 5 seconds, what it did not find for 1 second, and nothing beyond a change of this process."""

    def __init__(self, settings: Settings, database: Database, vault: Vault, changes: Changes) -> None:
        self._settings = settings
        self._database = database
        self._vault = vault
        self._accounts: Recently[uuid.UUID, ChannelAccount] = Recently(changes=changes)
        self._accounts_by_key: Recently[str, ChannelAccount] = Recently(changes=changes)
        self._accounts_by_name: Recently[tuple[ChannelKind, str], ChannelAccount] = Recently(changes=changes)
        self._priorities: Recently[uuid.UUID, int] = Recently(changes=changes)
        self._places: Recently[Wanted, tuple[Place, ...]] = Recently(changes=changes)

    async def account(self, channel_id: uuid.UUID) -> ChannelAccount | None:
        """The connected account; a disabled one too; None if it does not exist."""

        async def read() -> ChannelAccount | None:
            row = await channel_records.find(self._database, channel_id)
            return None if row is None else self._account(row)

        return await self._accounts.get(channel_id, read)

    async def account_by_key(self, channel_key: str) -> ChannelAccount | None:
        """The account that a callback URL names; None if it does not exist or is disabled."""

        async def read() -> ChannelAccount | None:
            row = await channel_records.find_by_key(self._database, channel_key)
            return None if row is None or not row.enabled else self._account(row)

        return await self._accounts_by_key.get(channel_key, read)

    async def account_named(self, kind: ChannelKind, external_id: str) -> ChannelAccount | None:
        """The enabled account that a callback names by its external id; whoever's it is."""

        async def read() -> ChannelAccount | None:
            row = await accounts.named(self._database, kind, external_id)
            return None if row is None or not row.enabled else self._account(row)

        return await self._accounts_by_name.get((kind, external_id), read)

    async def accounts_of_business(self, business_id: str) -> list[ChannelAccount]:
        """The enabled accounts that belong to a WhatsApp Business Account, as they are now; whoever's they are."""
        return [self._account(row) for row in await accounts.of_business(self._database, business_id)]

    def forget_account(self, channel_id: uuid.UUID) -> None:
        """Read it anew next time."""
        self._accounts.forget(channel_id)

    async def priority_of(self, customer_id: uuid.UUID) -> int:
        """The priority (1, 3 or 5) that the customer's plan buys; the lowest for a customer unknown."""

        async def read() -> int | None:
            customer = await customers.get(self._database, customer_id=customer_id)
            return None if customer is None else customer.priority

        return await self._priorities.get(customer_id, read) or _LOWEST

    async def places(self, wanted: Wanted) -> tuple[Place, ...]:
        """The enabled channels that a message may mean; two if there are more."""

        async def read() -> tuple[Place, ...] | None:
            async with self._database.connection() as connection:
                return await find_places(connection, wanted) or None

        return await self._places.get(wanted, read) or ()

    def _account(self, row: channel_records.Channel) -> ChannelAccount:
        defaults = self._settings.graph_defaults if row.kind == "WHATSAPP_CLOUD" else {}
        return ChannelAccount(
            id=row.id,
            customer_id=row.customer_id,
            chatbot_id=row.chatbot_id,
            kind=row.kind,
            channel_key=row.channel_key,
            external_id=row.external_id,
            config={**defaults, **row.config},
            secrets=row.open_secrets(self._vault),
            healthy=row.health == "HEALTHY",
            health_reason=row.health_reason,
            trial_job_id=row.trial_job_id,
        )
