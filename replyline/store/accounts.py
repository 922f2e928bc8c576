"""Channels by what callbacks call their accounts: the number (or session) itself, or the business account that it belongs to."""

from collections.abc import Sequence

from replyline.jobs import ChannelKind
from replyline.store.channels import Channel, from_record
from replyline.store.database import Database

_MOST_OF_A_BUSINESS = 20

_BY_NAME = "SELECT * FROM channels WHERE kind = $1 AND external_id = $2"
_OF_BUSINESS = """
SELECT * FROM channels WHERE kind = 'WHATSAPP_CLOUD' AND config ->> 'waba_id' = $1 AND enabled ORDER BY id LIMIT $2
"""


async def named(db: Database, kind: ChannelKind, external_id: str) -> Channel | None:
    """The channel of an account that a callback names, whoever's it is."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_BY_NAME, kind, external_id)
    return None if record is None else from_record(record)


async def of_business(db: Database, business_id: str) -> Sequence[Channel]:
    """The enabled channels that are configured with this `waba_id`, whoever's they are; 20 at most."""
    async with db.connection() as connection:
        return [
            from_record(record) for record in await connection.fetch(_OF_BUSINESS, business_id, _MOST_OF_A_BUSINESS)
        ]
