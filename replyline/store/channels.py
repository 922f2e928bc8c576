"""Channels: connected accounts, what each kind needs to work, and their secrets, which go in and never come out."""

import secrets as tokens
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Literal, TypedDict

import asyncpg
import msgspec

from replyline.ids import new_id
from replyline.jobs import ChannelKind
from replyline.store.channel_forms import (
    ChannelRefused,
    ChannelTaken,
    check_complete,
    check_external_id,
    check_names,
)
from replyline.store.database import Connection, Database
from replyline.store.emptying import delete_in_batches
from replyline.vault import Vault


@dataclass(frozen=True, slots=True)
class Channel:
    """One connected account. `external_id` is the phone_number_id (Cloud), the session (QR) or the site key (widget)."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    kind: ChannelKind
    name: str
    channel_key: str
    external_id: str
    config: dict[str, str]
    secrets_sealed: str | None = field(repr=False)
    enabled: bool
    health: Literal["HEALTHY", "UNHEALTHY"]
    health_reason: str | None
    health_detail: str | None
    unhealthy_since: datetime | None
    probe_at: datetime | None
    """When an unhealthy channel is checked next."""
    trial_job_id: uuid.UUID | None
    session: str | None
    """What the QR gateway last said of the session, as JSON; `quality` is what Meta last said of the number."""
    quality: dict[str, object] | None
    created_at: datetime
    updated_at: datetime

    @property
    def has_secrets(self) -> bool:
        """Whether any secret was set."""
        return self.secrets_sealed is not None

    def open_secrets(self, vault: Vault) -> dict[str, str]:
        """The secrets in clear.

        Raises:
            UnreadableSecret: they were sealed with a key that this deployment does not have.
        """
        if self.secrets_sealed is None:
            return {}
        return msgspec.json.decode(vault.open(self.secrets_sealed).encode(), type=dict[str, str])


_FIELDS = tuple(column.name for column in dataclass_fields(Channel))


class ChannelChanges(TypedDict, total=False):
    """What may be changed; what is left out stays. `config` replaces the old one, `secrets` replace those they name."""

    name: str
    chatbot_id: uuid.UUID
    external_id: str
    config: Mapping[str, str]
    secrets: Mapping[str, str]
    enabled: bool


_INSERT = """
INSERT INTO channels (id, customer_id, chatbot_id, kind, name, channel_key, external_id, config, secrets_sealed, enabled)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10) RETURNING *
"""
_SESSION_GOES = "SELECT EXISTS (SELECT FROM sessions_to_delete WHERE session = $1)"
_UPDATE = """
UPDATE channels
SET name = $3, chatbot_id = $4, external_id = $5, config = $6::jsonb, secrets_sealed = $7, enabled = $8, updated_at = now()
WHERE id = $1 AND customer_id = $2 RETURNING *
"""
_LIST = """
SELECT * FROM channels
WHERE customer_id = $1 AND ($2::uuid IS NULL OR chatbot_id = $2) AND ($3::uuid IS NULL OR id > $3) ORDER BY id LIMIT $4
"""
_LOCK = "SELECT * FROM channels WHERE id = $1 AND customer_id = $2 FOR UPDATE"
_GET = "SELECT * FROM channels WHERE id = $1 AND customer_id = $2"
_FIND: Mapping[Literal["id", "channel_key", "site_key"], str] = {
    "id": "SELECT * FROM channels WHERE id = $1",
    "channel_key": "SELECT * FROM channels WHERE channel_key = $1",
    "site_key": "SELECT * FROM channels WHERE kind = 'WIDGET' AND external_id = $1",
}
_WIDGET_ORIGINS = """
SELECT DISTINCT config ->> 'allowed_origins' AS origins FROM channels
WHERE kind = 'WIDGET' AND enabled AND config ? 'allowed_origins'
"""


async def create(
    db: Database,
    vault: Vault,
    *,
    customer_id: uuid.UUID,
    chatbot_id: uuid.UUID,
    kind: ChannelKind,
    name: str,
    external_id: str | None = None,
    config: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    enabled: bool = True,
) -> Channel:
    """Connect an account. Its `channel_key`, which the callback URL names, is made here, and so are a widget's site key and a QR
    session (if none is named): whoever chooses them could choose another customer's.

    Raises:
        ChannelRefused: see there.
    """
    given = dict(secrets or {})
    if kind == "WIDGET":
        given.setdefault("visitor_secret", tokens.token_urlsafe(32))
    if external_id is not None:
        check_external_id(kind, external_id)
    elif kind == "WHATSAPP_CLOUD":
        raise ChannelRefused("external_id is missing: the phone_number_id of the account")
    else:
        external_id = f"{'site' if kind == 'WIDGET' else 'session'}_{tokens.token_urlsafe(18)}"
    check_names(kind, config or {}, given)
    check_complete(kind, config or {}, given)
    with _refusals():
        async with db.connection() as connection:
            if kind == "WHATSAPP_QR" and await connection.fetchval(_SESSION_GOES, external_id):
                raise ChannelTaken("the session of that name is still being deleted at its gateway: try again later")
            record = await connection.fetchrow(
                _INSERT,
                new_id(),
                customer_id,
                chatbot_id,
                kind,
                name,
                tokens.token_urlsafe(24),
                external_id,
                _json(config or {}),
                _sealed(given, vault),
                enabled,
            )
    return _written(record)


async def list_page(
    db: Database,
    *,
    customer_id: uuid.UUID,
    chatbot_id: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Channel]:
    """A page of the customer's channels (of one chatbot, where it is named), oldest first, after the one given."""
    async with db.connection() as connection:
        return [from_record(record) for record in await connection.fetch(_LIST, customer_id, chatbot_id, after, limit)]


async def get(db: Database, channel_id: uuid.UUID, *, customer_id: uuid.UUID) -> Channel | None:
    """The channel, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, channel_id, customer_id)
    return None if record is None else from_record(record)


async def update(
    db: Database, vault: Vault, channel_id: uuid.UUID, *, customer_id: uuid.UUID, changes: ChannelChanges
) -> Channel | None:
    """Change the channel; None where the customer has no such one. What runs may use the old values 5 seconds longer.

    Raises:
        ChannelRefused: see there.
        UnreadableSecret: config or secrets are changed beside secrets that this deployment cannot open.
    """
    with _refusals():
        async with db.transaction() as connection:
            record = await connection.fetchrow(_LOCK, channel_id, customer_id)
            return None if record is None else await _change(connection, vault, from_record(record), changes)


async def _change(connection: Connection, vault: Vault, old: Channel, changes: ChannelChanges) -> Channel:
    external_id = changes.get("external_id", old.external_id)
    if external_id != old.external_id:
        if old.kind == "WHATSAPP_QR":
            raise ChannelRefused("external_id: a channel keeps its session; make another channel for another one")
        check_external_id(old.kind, external_id)
    config = changes.get("config", old.config)
    sealed = old.secrets_sealed
    if "config" in changes or "secrets" in changes:
        check_names(old.kind, config, changes.get("secrets", {}))
        kept = {**old.open_secrets(vault), **changes.get("secrets", {})}
        check_complete(old.kind, config, kept)
        sealed = _sealed(kept, vault)
    record = await connection.fetchrow(
        _UPDATE,
        old.id,
        old.customer_id,
        changes.get("name", old.name),
        changes.get("chatbot_id", old.chatbot_id),
        external_id,
        _json(config),
        sealed,
        changes.get("enabled", old.enabled),
    )
    return _written(record)


async def delete(db: Database, channel_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """Delete the channel with its conversations; False where the customer has no such one.

    Raises:
        StoreBusy: so much hangs on it that another call must go on.
    """
    return await delete_in_batches(db, "channel", channel_id, customer_id=customer_id)


async def find(db: Database, channel_id: uuid.UUID) -> Channel | None:
    """The channel of a job of ours, whoever's it is."""
    return await _find(db, "id", channel_id)


async def find_by_key(db: Database, channel_key: str) -> Channel | None:
    """The channel that a callback URL names; the key is its own secret."""
    return await _find(db, "channel_key", channel_key)


async def find_widget(db: Database, site_key: str) -> Channel | None:
    """The widget that a page names."""
    return await _find(db, "site_key", site_key)


async def widget_origins(db: Database) -> Sequence[str]:
    """What any widget allows, as its configuration says it: a preflight does not say which widget it is for."""
    async with db.connection() as connection:
        return [record["origins"] for record in await connection.fetch(_WIDGET_ORIGINS)]


async def _find(db: Database, by: Literal["id", "channel_key", "site_key"], value: object) -> Channel | None:
    async with db.connection() as connection:
        record = await connection.fetchrow(_FIND[by], value)
    return None if record is None else from_record(record)


class _refusals:
    """Says in the caller's words which constraint refused a row."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.UniqueViolationError):
            raise ChannelTaken("a channel of this kind already has this external_id") from error
        if isinstance(error, asyncpg.ForeignKeyViolationError):
            raise ChannelRefused("the customer has no such chatbot") from error
        if isinstance(error, asyncpg.CheckViolationError):
            raise ChannelRefused(f"refused by {error.constraint_name}") from error


def _sealed(values: Mapping[str, str], vault: Vault) -> str | None:
    return vault.seal(_json(values)) if values else None


def _json(values: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(values)).decode()


def _written(record: asyncpg.Record | None) -> Channel:
    if record is None:
        raise LookupError("a written channel was not returned")
    return from_record(record)


def from_record(record: asyncpg.Record) -> Channel:
    """A row of `channels`."""
    fields = {name: record[name] for name in _FIELDS}
    fields["config"] = msgspec.json.decode(record["config"].encode(), type=dict[str, str])
    if record["quality"] is not None:
        fields["quality"] = msgspec.json.decode(record["quality"].encode(), type=dict[str, object])
    return Channel(**fields)
