"""What the far end of a channel says of its account, and of what its people want: kept, and told to the customer once."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from replyline.ids import new_id
from replyline.notices import Notice, Preference
from replyline.store.database import Connection
from replyline.store.moves.announce import Announcement, announce
from replyline.store.moves.health import Unhealthy, heal, mark_unhealthy
from replyline.store.outbox import Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class NoticedAccount:
    """The channel that is spoken of, and how soon at least it is asked again if it is down, in seconds."""

    channel_id: uuid.UUID
    customer_id: uuid.UUID
    probe_first_s: float


_NEW = """
INSERT INTO channel_notices (channel_id, digest)
SELECT $1, digest FROM unnest($2::bytea[]) AS new (digest) ON CONFLICT DO NOTHING RETURNING digest
"""
_QUALITY = "UPDATE channels SET quality = $3::jsonb, updated_at = now() WHERE id = $1 AND customer_id = $2"
_REASON = "SELECT health_reason FROM channels WHERE id = $1 AND customer_id = $2 FOR UPDATE"
_SUBJECT = """
SELECT c.name, c.kind, c.chatbot_id, u.priority::int AS priority FROM channels c JOIN customers u ON u.id = c.customer_id
WHERE c.id = $1 AND c.customer_id = $2
"""

_CONTACT = """
SELECT contact_id FROM contact_identities i JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY AS r (kind, value, ord)
  ON i.kind = r.kind AND i.value = r.value
WHERE i.channel_id = $1 AND i.customer_id = $4 ORDER BY r.ord LIMIT 1
"""
_NEW_CONTACT = "INSERT INTO contacts (id, customer_id, channel_id) VALUES ($1, $2, $3)"
_NEW_IDENTITIES = """
INSERT INTO contact_identities (channel_id, kind, value, customer_id, contact_id)
SELECT $1, kind, value, $4, $5 FROM unnest($2::text[], $3::text[]) AS new (kind, value)
ON CONFLICT (channel_id, kind, value) DO NOTHING RETURNING contact_id
"""
_UNUSED_CONTACT = "DELETE FROM contacts WHERE id = $1"
# Callbacks overtake each other: the latest wish counts, and a repeated one changes nothing.
_PREFER = """
UPDATE contacts SET marketing_opted_out = $3, marketing_changed_at = to_timestamp($4), updated_at = now()
WHERE id = $1 AND customer_id = $2 AND (marketing_changed_at IS NULL OR marketing_changed_at < to_timestamp($4))
RETURNING marketing_changed_at
"""

_REFUSED = """
WITH refused AS (
    SELECT v.contact_id, max(coalesce(r.at, now())) AS at
    FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS r (message_id, customer_id, at)
    JOIN messages m ON m.id = r.message_id AND m.customer_id = r.customer_id
    JOIN conversations v ON v.id = m.conversation_id
    GROUP BY 1
), locked AS MATERIALIZED (
    SELECT c.id, refused.at FROM contacts c JOIN refused ON refused.contact_id = c.id
    WHERE NOT c.marketing_opted_out AND (c.marketing_changed_at IS NULL OR c.marketing_changed_at < refused.at)
    ORDER BY c.id FOR NO KEY UPDATE OF c
)
UPDATE contacts c SET marketing_opted_out = true, marketing_changed_at = locked.at, updated_at = now()
FROM locked WHERE c.id = locked.id
RETURNING c.id, c.customer_id, c.channel_id, c.marketing_changed_at,
    ARRAY(SELECT ARRAY[i.kind, i.value] FROM contact_identities i
          WHERE i.contact_id = c.id AND i.kind IN ('wa_id', 'bsuid') ORDER BY i.kind, i.created_at DESC) AS identities
"""

OPTED_OUT = "opted_out"
"""The reason of a message that was refused because its person stopped marketing messages (Meta's error 131050)."""


@dataclass(frozen=True, slots=True)
class RefusedMarketing:
    """A message of ours that its person does not want; `at` is when the channel said so, None for now."""

    message_id: uuid.UUID
    customer_id: uuid.UUID
    at: datetime | None = None


async def take_notices(
    connection: Connection, account: NoticedAccount, notices: Sequence[Notice], outbox: Outbox
) -> list[Notice]:
    """Keep and announce the notices of a channel that are new, with what they mean for its health; those, in their order."""
    channel_id, customer_id = account.channel_id, account.customer_id
    records = await connection.fetch(_NEW, channel_id, list({notice.digest for notice in notices}))
    digests = {record["digest"] for record in records}
    new = list({notice.digest: notice for notice in notices if notice.digest in digests}.values())
    for notice in new:
        if notice.event == "channel.quality_changed":
            shown = {**notice.data, "noticed_at": datetime.now(UTC).isoformat()}
            await connection.execute(_QUALITY, channel_id, customer_id, msgspec.json.encode(shown).decode())
    if new:
        said = [(notice.event, dict(notice.data)) for notice in new]
        await _announce(connection, channel_id, customer_id, said, outbox)
    for notice in new:
        await _act(connection, account, notice, outbox)
    return new


async def _act(connection: Connection, account: NoticedAccount, notice: Notice, outbox: Outbox) -> None:
    if notice.down is not None:
        probe_after_s = max(notice.down_for_s, account.probe_first_s)
        sick = Unhealthy(account.channel_id, account.customer_id, notice.down, notice.detail, probe_after_s)
        await mark_unhealthy(connection, sick, outbox)
    elif notice.lifts:
        reason = await connection.fetchval(_REASON, account.channel_id, account.customer_id)
        if reason in notice.lifts:
            await heal(connection, account.channel_id, customer_id=account.customer_id, outbox=outbox)


async def take_preference(
    connection: Connection, channel_id: uuid.UUID, wish: Preference, *, customer_id: uuid.UUID, outbox: Outbox
) -> bool:
    """Keep what a person wants on their contact, which is made if it is not known; False where a later wish is known."""
    contact_id = await _contact(connection, channel_id, wish, customer_id)
    at = wish.at if wish.at is not None else datetime.now(UTC).timestamp()
    changed_at = await connection.fetchval(_PREFER, contact_id, customer_id, wish.opted_out, at)
    if changed_at is None:
        return False
    names: dict[str, str] = {identity.kind: identity.value for identity in wish.identities}
    data = _preferred(contact_id, names, changed_at, opted_out=wish.opted_out)
    await _announce(connection, channel_id, customer_id, [("contact.updated", data)], outbox)
    return True


async def opt_out(connection: Connection, refused: Sequence[RefusedMarketing], outbox: Outbox) -> None:
    """Note on the contacts of these messages that they stopped marketing, unless that or a later wish is known.

    It locks contacts, so it comes before conversations and messages are locked, as elsewhere.
    """
    if not refused:
        return
    records = await connection.fetch(
        _REFUSED,
        [one.message_id for one in refused],
        [one.customer_id for one in refused],
        [one.at for one in refused],
    )
    for record in records:
        data = _preferred(record["id"], dict(record["identities"]), record["marketing_changed_at"], opted_out=True)
        said = [("contact.updated", data)]
        await _announce(connection, record["channel_id"], record["customer_id"], said, outbox)


def _preferred(
    contact_id: uuid.UUID, names: Mapping[str, str], changed_at: datetime, *, opted_out: bool
) -> dict[str, object]:
    return {
        "contact_id": str(contact_id),
        "wa_id": names.get("wa_id"),
        "user_id": names.get("bsuid"),
        "marketing_opted_out": opted_out,
        "changed_at": changed_at.isoformat(),
    }


async def _contact(
    connection: Connection, channel_id: uuid.UUID, wish: Preference, customer_id: uuid.UUID
) -> uuid.UUID:
    kinds = [identity.kind for identity in wish.identities]
    values = [identity.value for identity in wish.identities]
    found: uuid.UUID | None = await connection.fetchval(_CONTACT, channel_id, kinds, values, customer_id)
    if found is not None:
        return found
    contact_id = new_id()
    await connection.execute(_NEW_CONTACT, contact_id, customer_id, channel_id)
    if await connection.fetch(_NEW_IDENTITIES, channel_id, kinds, values, customer_id, contact_id):
        return contact_id
    # Their first message came in this moment, and made the contact.
    await connection.execute(_UNUSED_CONTACT, contact_id)
    found = await connection.fetchval(_CONTACT, channel_id, kinds, values, customer_id)
    if found is None:
        raise LookupError("an identity that was taken has no contact of this customer")
    return found


async def _announce(
    connection: Connection,
    channel_id: uuid.UUID,
    customer_id: uuid.UUID,
    said: Sequence[tuple[str, dict[str, object]]],
    outbox: Outbox,
) -> None:
    subject = await connection.fetchrow(_SUBJECT, channel_id, customer_id)
    if subject is None:
        return
    channel = {
        "channel_id": str(channel_id),
        "channel": subject["kind"],
        "channel_name": subject["name"],
        "chatbot_id": str(subject["chatbot_id"]),
    }
    announcements = [
        Announcement(
            type=event,
            customer_id=customer_id,
            priority=subject["priority"],
            message_id=None,
            trace_id=new_id(),
            data={**channel, **data},
        )
        for event, data in said
    ]
    await insert_jobs(connection, await announce(connection, announcements), outbox)
