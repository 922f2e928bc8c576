"""How often a visitor, an address and a site may do what: a brake on abuse, so with Redis away it is off."""

import asyncio
import uuid
from collections.abc import Sequence

from fastapi import Request

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, Bucket, CommandRefused, Refused
from replyline.settings import CountLimit
from replyline.store import usage
from replyline.store.channels import Channel
from replyline.store.recently import Recently
from replyline.store.visitors import Visitor
from replyline.web.networks import Address, address_of, owner_network, wider_networks
from replyline.web.problems import Problem

_BURST_A_VISITOR = 5
_REFRESHES = CountLimit(30, 60.0)
_TICKETS = CountLimit(30, 60.0)
_UPLOADS = CountLimit(10, 60.0)
_UPLOADS_A_DAY = CountLimit(100, 86_400.0)
_UPLOADS_OF_ADDRESS = CountLimit(300, 86_400.0)
_LARGEST_BURST = 1_000_000  # of a bucket
_NEWCOMERS = CountLimit(3, 3600.0)
_SIGNS = CountLimit(60, 60.0)
_READS = CountLimit(120, 60.0)
_CAP_LOOKED_AT_S = 15.0
_MOST_BEGUN = 10_000
_ANSWERS_WITHIN_S = 0.5


class WidgetLimits:
    """The limits of one process' requests; what they count is in Redis, so all processes count together."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._begun: dict[uuid.UUID, None] = {}
        self._months: Recently[uuid.UUID, usage.ThisMonth] = Recently(ttl_s=_CAP_LOOKED_AT_S)

    async def new_visitor(self, site: Channel, request: Request) -> None:
        """Somebody unknown opens a widget.

        Raises:
            Problem: 429, too many from their address or for this site.
        """
        settings = self._app.settings
        of_address = self._of_address(request, "visitors", settings.widget_visitors_per_address)
        limit = settings.widget_visitors_per_site
        if limit is None or limit.count == 1:
            await self._take(site.id, [*of_address, *_bucket("visitors", limit)])
            return
        reserve = limit.count // 2
        newcomer = [
            *of_address,
            *self._of_newcomer(request),
            *_bucket("newcomers", CountLimit(reserve, limit.seconds)),
        ]
        if await self._refused(site.id, newcomer) is not None:
            common = CountLimit(limit.count - reserve, limit.seconds)
            await self._take(site.id, [*of_address, *_bucket("visitors", common)])

    async def refresh(self, visitor: Visitor) -> None:
        """A known visitor begins another session. Raises Problem: 429."""
        await self._take(visitor.channel_id, _bucket(f"refresh:{visitor.id}", _REFRESHES))

    async def message(self, site: Channel, visitor: Visitor, request: Request) -> None:
        """A visitor writes.

        Raises:
            Problem: 429, too often, or the site's month is full.
        """
        settings = self._app.settings
        buckets = [
            Bucket(f"burst:{visitor.id}", 1.0, _BURST_A_VISITOR),
            *_bucket(f"messages:{visitor.id}", settings.widget_messages_per_visitor),
            *self._of_address(request, "messages", settings.widget_messages_per_address),
        ]
        conversation_id = visitor.conversation_id
        begins = not visitor.begun and conversation_id not in self._begun
        if begins:
            buckets += self._of_address(request, "conversations", settings.widget_conversations_per_address)
        await self._take(site.id, buckets)
        if begins:
            self._begun[conversation_id] = None
            while len(self._begun) > _MOST_BEGUN:
                self._begun.pop(next(iter(self._begun)))
        await self._month(site)

    async def ticket(self, visitor: Visitor) -> None:
        """A page asks for a ticket. Raises Problem: 429."""
        await self._take(visitor.channel_id, _bucket(f"tickets:{visitor.id}", _TICKETS))

    async def upload(self, visitor: Visitor, request: Request) -> None:
        """A visitor sends a file. Raises Problem: 429."""
        await self._take(
            visitor.channel_id,
            [
                *_bucket(f"uploads:{visitor.id}", _UPLOADS),
                *_bucket(f"uploads a day:{visitor.id}", _UPLOADS_A_DAY),
                *self._of_address(request, "uploads", _UPLOADS_OF_ADDRESS),
            ],
        )

    async def sign(self, visitor: Visitor) -> None:
        """A page tells of typing or reading. Raises Problem: 429."""
        await self._take(visitor.channel_id, _bucket(f"signs:{visitor.id}", _SIGNS))

    async def read(self, visitor: Visitor) -> None:
        """A page reads the history. Raises Problem: 429."""
        await self._take(visitor.channel_id, _bucket(f"reads:{visitor.id}", _READS))

    async def _month(self, site: Channel) -> None:
        most = int(site.config.get("messages_per_month", "0"))
        if not most:
            return

        async def read() -> usage.ThisMonth:
            return await usage.received_this_month(
                self._app.database, customer_id=site.customer_id, channel_kind="WIDGET"
            )

        month = await self._months.get(site.customer_id, read)
        if month is not None and month.received >= most:
            raise _too_often("monthly_limit", "the site's messages of this month are used up", month.ends_in_s)

    def _of_address(self, request: Request, what: str, limit: CountLimit | None) -> Sequence[Bucket]:
        """None for this machine itself: that is a proxy which `trusted_proxies` does not name, or somebody trying it out."""
        address = self._address(request)
        if address is None or limit is None:
            return ()
        # One may have any number of addresses out of one network of IPv6.
        wider = [
            bucket
            for network, worth in wider_networks(address)
            for bucket in _bucket(
                f"{what}:{network}", CountLimit(min(limit.count * worth, _LARGEST_BURST), limit.seconds)
            )
        ]
        return [*_bucket(f"{what}:{address}", limit), *wider]

    def _of_newcomer(self, request: Request) -> Sequence[Bucket]:
        """Half of a site's limit is for networks of which few have come: no flood out of one network can use that up."""
        address = self._address(request)
        return () if address is None else _bucket(f"newcomers:{owner_network(address)}", _NEWCOMERS)

    def _address(self, request: Request) -> Address | None:
        address = address_of(request, self._app.settings.trusted_networks)
        return None if address is None or address.is_loopback else address

    async def _take(self, site_id: uuid.UUID, buckets: Sequence[Bucket]) -> None:
        refused = await self._refused(site_id, buckets)
        if refused is not None:
            raise _too_often("rate_limited", "too often: try again later", refused.after_s)

    async def _refused(self, site_id: uuid.UUID, buckets: Sequence[Bucket]) -> Refused | None:
        """What refuses it; None where a token of each was taken, and where Redis is away."""
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                return await self._app.broker.throttle.take(str(site_id), buckets) if buckets else None
        except (BrokerUnavailable, CommandRefused, TimeoutError):
            return None


def _bucket(name: str, limit: CountLimit | None) -> Sequence[Bucket]:
    return () if limit is None else (Bucket(name, limit.seconds / limit.count, limit.count),)


def _too_often(code: str, detail: str, after_s: float) -> Problem:
    metrics.widget_refusals_total.labels("rate_limited").inc()
    return Problem(429, code, detail, retry_after_s=max(0.001, after_s))


async def limits_of(request: Request) -> WidgetLimits:
    """The WidgetLimits of this process."""
    limits: WidgetLimits = request.app.state.widget_limits
    return limits
