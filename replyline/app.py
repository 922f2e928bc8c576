"""The composition root: every part of Replyline, made once, joined here and nowhere else."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import structlog

from replyline import metrics, webhooks
from replyline.broker import Broker, BrokerUnavailable, CommandRefused, Told, WrongDeployment
from replyline.channels import ChannelAccount
from replyline.files import Files
from replyline.health import Health
from replyline.http_sessions import open_call_session, open_gateway_files_session, open_media_session
from replyline.ids import new_id
from replyline.jobs import ANY_JOB, DEAD_LETTER, ChannelKind, IncomingMessageJob
from replyline.joining import Joining, known_deployment
from replyline.key_holders import KeyHolders
from replyline.late_usage import LateUsage
from replyline.live import LiveEvent, encode_event, owned
from replyline.lookups import Lookups
from replyline.produced import Produced
from replyline.providers import Provider, open_provider
from replyline.publisher import Publisher
from replyline.redaction import redact
from replyline.settings import Settings, SettingsError, open_vault
from replyline.store.database import Database
from replyline.store.deployment import deployment_id
from replyline.store.moves import Moves
from replyline.store.moves.accept import Accepted, Wanted, accepted_as, address, in_conversation, wanted_by
from replyline.store.moves.dead_letters import DeadLetter, discard, replay
from replyline.store.moves.health import Unhealthy, heal, mark_unhealthy
from replyline.store.moves.seen import Seen, see
from replyline.store.moves.speak import Owner, Speak, Spoken, set_owner, speak
from replyline.store.outbox import Enqueue, Outbox, insert_jobs
from replyline.store.reads import Reads
from replyline.store.recently import Changes
from replyline.supervision import Supervisor
from replyline.vault import Vault

log = structlog.get_logger(__name__)

_TELL_AT_MOST_S = 0.5


class App:
    """Everything a process works with. Made by `open_app`."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        vault: Vault,
        broker: Broker,
        publisher: Publisher,
        supervisor: Supervisor,
        health: Health,
        joining: Joining,
        http: aiohttp.ClientSession,
        webhook_http: aiohttp.ClientSession,
        media_http: aiohttp.ClientSession,
        gateway_files_http: aiohttp.ClientSession,
    ) -> None:
        self.settings = settings
        self.database = database
        self.vault = vault
        self.broker = broker
        self.publisher = publisher
        self.supervisor = supervisor
        self.health = health
        self.joining = joining
        self.http = http
        self.webhook_http = webhook_http
        self.media_http = media_http
        self.gateway_files_http = gateway_files_http
        self.files = Files(settings.media_place)
        self.moves = Moves(database, publisher.publish)
        self.late_usage = LateUsage(database, supervisor)
        self.reads = Reads(database)
        self.changes = Changes()
        self.key_holders = KeyHolders(database, supervisor, self.changes)
        self._providers: dict[str, Provider] = {}
        self._opening_provider = asyncio.Lock()
        self._lookups = Lookups(settings, database, vault, self.changes)

    async def account(self, channel_id: uuid.UUID) -> ChannelAccount | None:
        """The connected account, as it is or was at most 5 seconds ago; disabled ones too; None if it does not exist."""
        return await self._lookups.account(channel_id)

    async def account_by_key(self, channel_key: str) -> ChannelAccount | None:
        """The account that a callback URL names, at most 5 seconds old; None if it does not exist or is disabled."""
        return await self._lookups.account_by_key(channel_key)

    async def account_named(self, kind: ChannelKind, external_id: str) -> ChannelAccount | None:
        """The enabled account that a callback names by its external id, at most 5 seconds old; whoever's it is."""
        return await self._lookups.account_named(kind, external_id)

    async def accounts_of_business(self, business_id: str) -> list[ChannelAccount]:
        """The enabled accounts that belong to a WhatsApp Business Account; whoever's they are."""
        return await self._lookups.accounts_of_business(business_id)

    async def account_for_send(self, channel_id: uuid.UUID) -> ChannelAccount | None:
        """Like `account`, but an unhealthy one is read anew: it may work again, or this may be the send that tests it."""
        account = await self.account(channel_id)
        if account is None or account.healthy:
            return account
        self.forget_account(channel_id)
        return await self.account(channel_id)

    def forget_account(self, channel_id: uuid.UUID) -> None:
        """Read it anew next time."""
        self._lookups.forget_account(channel_id)

    async def channel_down(
        self, account: ChannelAccount, reason: str, detail: str, *, retry_after_s: float = 0.0
    ) -> None:
        """The account as a whole cannot send: note it, tell its customer, and look again later."""
        probe_after_s = max(retry_after_s, self.settings.probe_first_s)
        channel = Unhealthy(account.id, account.customer_id, reason, redact(detail)[:1000], probe_after_s)
        outbox = Outbox()
        async with self.database.transaction() as connection:
            newly = await mark_unhealthy(connection, channel, outbox)
        self.publisher.publish(outbox)
        self.forget_account(account.id)
        if newly:
            log.error("channel.unhealthy", channel_id=str(account.id), channel=account.kind, reason=reason)

    async def channel_healed(self, account: ChannelAccount) -> bool:
        """The account can send again: what it held goes on. False if it was healthy already."""
        return await self.heal_channel(account.id, customer_id=account.customer_id)

    async def heal_channel(self, channel_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
        """Let an unhealthy channel of the customer go on; False if there is no such channel."""
        outbox = Outbox()
        async with self.database.transaction() as connection:
            healed = await heal(connection, channel_id, customer_id=customer_id, outbox=outbox)
        self.publisher.publish(outbox)
        self.forget_account(channel_id)
        if healed:
            log.info("channel.healthy", channel_id=str(channel_id))
        return healed

    async def priority_of(self, customer_id: uuid.UUID) -> int:
        """The priority (1, 3 or 5) that the customer's plan buys, at most 5 seconds old; the lowest for a customer unknown."""
        return await self._lookups.priority_of(customer_id)

    async def provider(self, name: str) -> Provider:
        """The provider of that name, opened on first use; in a thread, because an SDK may take seconds to import.

        Raises:
            Permanent: there is no such provider, or its package is not installed.
        """
        if name not in self._providers:
            # The first turns come together: each would make a provider of its own, and all but one would leak.
            async with self._opening_provider:
                if name not in self._providers:
                    opened = await asyncio.to_thread(open_provider, name, self.settings.provider_timeout_s)
                    self._providers[name] = opened
        return self._providers[name]

    async def accept(self, job: IncomingMessageJob, *, customer_id: uuid.UUID | None = None) -> Accepted:
        """Keep a message that came in; with `customer_id`, only for a chatbot of that customer.

        Raises:
            Permanent: no channel, or no single one, fits.
            StoreUnavailable: the message is not kept.
        """
        return await self._accept(job, wanted_by(job, customer_id=customer_id))

    async def accept_produced(self, produced: Produced, *, customer_id: uuid.UUID | None = None) -> Accepted:
        """The same for a message that names its chatbot or conversation as its producer does.

        Raises:
            Permanent, StoreUnavailable: see `accept`.
        """
        wanted = wanted_by(produced.message, customer_id=customer_id, chatbot=produced.chatbot)
        return await self._accept(produced.message, wanted, conversation=produced.conversation)

    async def _accept(self, job: IncomingMessageJob, wanted: Wanted, *, conversation: str | None = None) -> Accepted:
        row = address(job, wanted, await self._lookups.places(wanted))
        if conversation is not None:
            async with self.database.connection() as connection:
                row = await in_conversation(connection, row, conversation)
        return await self.moves.accept(row)

    async def accepted_as(self, key: str, *, customer_id: uuid.UUID) -> uuid.UUID | None:
        """Our id of the message that was accepted under that dedupe key; None where none was."""
        async with self.database.connection() as connection:
            return await accepted_as(connection, key, customer_id=customer_id)

    async def enqueue(self, job: ANY_JOB) -> uuid.UUID:
        """Add a job to its queue and return its id; it is safe in Postgres when this returns.

        Raises:
            Permanent: an incoming message that no channel fits.
            ValueError: any other job that does not name its customer.
            StoreUnavailable: nothing was enqueued.
        """
        if isinstance(job, IncomingMessageJob):
            return (await self.accept(job, customer_id=job.customer_id)).job_id
        if job.customer_id is None:
            raise ValueError(f"a {job.queue} job must name its customer")
        row = Enqueue(job, await self.priority_of(job.customer_id), job.trace_id or new_id())
        outbox = Outbox()
        async with self.database.transaction() as connection:
            await insert_jobs(connection, [row], outbox)
        self.publisher.publish(outbox)
        return row.id

    async def speak(self, said: Speak) -> Spoken | None:
        """Say something in a conversation as a human of the business; None where the customer has no such one.

        Raises:
            UnknownQuote: the message to be quoted is not one of the conversation.
        """
        outbox = Outbox()
        async with self.database.transaction() as connection:
            spoken = await speak(connection, said, outbox)
        self.publisher.publish(outbox)
        return spoken

    async def set_owner(self, conversation_id: uuid.UUID, *, customer_id: uuid.UUID, owner: Owner) -> bool:
        """Give a conversation to the bot, a human or nobody; False where the customer has no such one."""
        async with self.database.transaction() as connection:
            changed = await set_owner(connection, conversation_id, customer_id=customer_id, owner=owner)
        if changed:
            await self.tell(conversation_id, *owned(owner))
        return changed

    async def see(self, seen: Seen) -> int:
        """An open page has our messages, or its visitor has read them; returns how many that was new of."""
        outbox = Outbox()
        async with self.database.transaction() as connection:
            lifted = await see(connection, seen, outbox)
        self.publisher.publish(outbox)
        return lifted

    async def tell(self, conversation_id: uuid.UUID, *events: LiveEvent) -> None:
        """Let open pages of the conversation know something that is nowhere kept; nobody may listen, or hear it."""
        try:
            async with asyncio.timeout(_TELL_AT_MOST_S):
                await self.broker.live.tell([Told(str(conversation_id), encode_event(event)) for event in events])
        except (BrokerUnavailable, CommandRefused, TimeoutError) as error:
            log.debug("live.untold", conversation_id=str(conversation_id), error=str(error))

    async def replay(self, job_id: uuid.UUID, *, customer_id: uuid.UUID | None) -> DeadLetter:
        """Make a dead letter a waiting job again; without `customer_id`, any customer's.

        Raises:
            NotReplayable: see `store.moves.dead_letters.replay`.
        """
        outbox = Outbox()
        async with self.database.transaction() as connection:
            dead = await replay(connection, job_id, customer_id=customer_id, outbox=outbox)
        self.publisher.publish(outbox)
        await self._take_notice_down(dead)
        return dead

    async def discard(self, job_id: uuid.UUID, *, customer_id: uuid.UUID | None) -> DeadLetter:
        """Delete a dead letter for good.

        Raises:
            NotReplayable: there is no such dead letter of this customer.
        """
        async with self.database.transaction() as connection:
            dead = await discard(connection, job_id, customer_id=customer_id)
        await self._take_notice_down(dead)
        return dead

    async def _take_notice_down(self, dead: DeadLetter) -> None:
        """Remove what BullMQ's tools are shown; it is only a notice, so Redis being away does not undo the act."""
        try:
            await self.broker.remove(DEAD_LETTER, f"{dead.id}-{dead.generation}")
        except (BrokerUnavailable, CommandRefused):
            metrics.stale_notices_total.inc()

    async def close_providers(self) -> None:
        """Let go of the providers' connections."""
        for provider in self._providers.values():
            await provider.close()


@asynccontextmanager
async def open_app(settings: Settings, *, or_later: bool = False) -> AsyncIterator[App]:
    """Open everything that `settings` names; closed in the opposite order, what waits to be published first.

    Redis may be away: the door works without it, and workers wait for it. With `or_later` Postgres may be away as well: what
    needs it raises StoreUnavailable until it is there.

    Raises:
        SettingsError: a URL of the environment is missing, a value is malformed, or the Redis is another deployment's.
        StoreUnavailable: Postgres does not answer.
    """
    redis_url = settings.external_redis_url
    if not redis_url or not settings.database_url:
        raise SettingsError(
            "REDIS_URL (or REDIS_HOST) and DATABASE_URL must name running servers; "
            "`replyline start` brings its own and starts everything"
        )
    vault = open_vault(settings)
    supervisor = Supervisor()
    async with AsyncExitStack() as stack:
        try:
            database = Database(
                settings.database_url,
                pool_size=settings.database_pool,
                transactions=settings.database_transactions,
                through_pooler=settings.database_pooler,
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None
        await database.open(or_later=or_later)
        stack.push_async_callback(database.close)
        deployment = await (known_deployment if or_later else deployment_id)(database)
        try:
            broker = Broker(redis_url, prefix=settings.prefix, deployment=deployment, supervisor=supervisor)
        except ValueError as error:
            raise SettingsError(f"REDIS_URL: {error}") from None
        await broker.open()
        stack.push_async_callback(broker.close)
        if isinstance(broker.failure, WrongDeployment):
            raise SettingsError(str(broker.failure))
        publisher = Publisher(broker, settings.spec, supervisor)
        joining = Joining(database, broker, publisher, supervisor)
        (joining.join_later if or_later and deployment is None else joining.join_at_once)()
        stack.push_async_callback(publisher.close)
        health = Health(
            database,
            broker,
            publisher,
            supervisor,
            patience_s=settings.not_ready_after_s,
            external_queues=settings.external,
            external_late_s=settings.external_late_s,
        )
        stack.push_async_callback(health.close)
        http = await stack.enter_async_context(open_call_session(settings))
        media_http = await stack.enter_async_context(open_media_session(settings))
        gateway_files_http = await stack.enter_async_context(open_gateway_files_session(settings))
        vetted = webhooks.open_webhook_session(
            allow_private=settings.webhook_allow_private, timeout_s=settings.webhook_timeout_s
        )
        webhook_http = await stack.enter_async_context(vetted)
        app = App(
            settings,
            database=database,
            vault=vault,
            broker=broker,
            publisher=publisher,
            supervisor=supervisor,
            health=health,
            joining=joining,
            http=http,
            webhook_http=webhook_http,
            media_http=media_http,
            gateway_files_http=gateway_files_http,
        )
        app.late_usage.start()
        stack.push_async_callback(app.late_usage.close)
        stack.push_async_callback(app.key_holders.close)
        stack.push_async_callback(app.close_providers)
        yield app
