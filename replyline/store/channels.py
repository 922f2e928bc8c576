"""Channels: the connected accounts, with their secrets sealed."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypedDict

import asyncpg
import msgspec

from replyline.ids import new_id
from replyline.jobs import ChannelKind
from replyline.store.database import Database
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
    created_at: datetime
    updated_at: datetime

    def open_secrets(self, vault: Vault) -> dict[str, str]:
        """The secrets in clear.

        Raises:
            UnreadableSecret: they were sealed with a key that this deployment does not have.
        """
        if self.secrets_sealed is None:
            return {}
        return msgspec.json.decode(vault.open(self.secrets_sealed).encode(), type=dict[str, str])


class ChannelChanges(TypedDict, total=False):
    """What may be changed; what is left out stays. Secrets are replaced one by one: a name left out keeps its value."""

    name: str
    external_id: str
    config: Mapping[str, str]
    secrets: Mapping[str, str]
    enabled: bool


@dataclass(frozen=True, slots=True)
class Form:
    """What a kind of channel is configured with."""

    config: frozenset[str]
    secrets: frozenset[str]
    required: frozenset[str]


FORMS: Mapping[ChannelKind, Form] = {
    "WIDGET": Form(frozenset(), frozenset(), frozenset()),
    "WHATSAPP_CLOUD": Form(
        frozenset({"graph_base", "graph_version"}),
        frozenset({"app_secret", "verify_token", "access_token"}),
        frozenset({"app_secret", "verify_token", "access_token"}),
    ),
    "WHATSAPP_QR": Form(
        frozenset({"gateway_url"}), frozenset({"secret", "gateway_token"}), frozenset({"gateway_url", "secret"})
    ),
}


class ChannelRefused(Exception):
    """The channel cannot be so; the message says what is missing, unknown or taken."""


_INSERT = """
INSERT INTO channels (id, customer_id, chatbot_id, kind, name, channel_key, external_id, config, secrets_sealed)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9) RETURNING *
"""
_UPDATE = """
UPDATE channels SET name = coalesce($3, name), external_id = coalesce($4, external_id), config = coalesce($5::jsonb, config),
    secrets_sealed = coalesce($6, secrets_sealed), enabled = coalesce($7, enabled), updated_at = now()
WHERE id = $1 AND customer_id = $2 RETURNING *
"""
_LIST = """
SELECT * FROM channels WHERE customer_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
"""
_GET = "SELECT * FROM channels WHERE id = $1 AND customer_id = $2"
_DELETE = "DELETE FROM channels WHERE id = $1 AND customer_id = $2 RETURNING id"
_FIND: Mapping[Literal["id", "channel_key", "site_key"], str] = {
    "id": "SELECT * FROM channels WHERE id = $1",
    "channel_key": "SELECT * FROM channels WHERE channel_key = $1",
    "site_key": "SELECT * FROM channels WHERE kind = 'WIDGET' AND external_id = $1",
}


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
    channel_secrets: Mapping[str, str] | None = None,
) -> Channel:
    """Connect an account. A widget without an `external_id` gets a site key.

    Raises:
        ChannelRefused: see there.
    """
    if external_id is None:
        if kind != "WIDGET":
            what = "phone_number_id" if kind == "WHATSAPP_CLOUD" else "session"
            raise ChannelRefused(f"external_id is missing: the {what} of the account")
        external_id = f"site_{secrets.token_urlsafe(18)}"
    _check(kind, config or {}, channel_secrets or {}, complete=True)
    record = await _write(
        db,
        _INSERT,
        new_id(),
        customer_id,
        chatbot_id,
        kind,
        name,
        secrets.token_urlsafe(24),
        external_id,
        msgspec.json.encode(config or {}).decode(),
        _sealed(channel_secrets or {}, vault),
    )
    if record is None:
        raise LookupError("an inserted channel was not returned")
    return _channel(record)


async def list_page(
    db: Database, *, customer_id: uuid.UUID, after: uuid.UUID | None = None, limit: int = 50
) -> Sequence[Channel]:
    """A page of the customer's channels, oldest first, after the one given."""
    async with db.connection() as connection:
        return [_channel(record) for record in await connection.fetch(_LIST, customer_id, after, limit)]


async def get(db: Database, channel_id: uuid.UUID, *, customer_id: uuid.UUID) -> Channel | None:
    """The channel, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, channel_id, customer_id)
    return None if record is None else _channel(record)


async def update(
    db: Database, vault: Vault, channel_id: uuid.UUID, *, customer_id: uuid.UUID, changes: ChannelChanges
) -> Channel | None:
    """Change the channel; None where the customer has no such one.

    Raises:
        ChannelRefused: see there.
    """
    current = await get(db, channel_id, customer_id=customer_id)
    if current is None:
        return None
    new_secrets = {**current.open_secrets(vault), **changes["secrets"]} if "secrets" in changes else None
    _check(current.kind, changes.get("config", {}), changes.get("secrets", {}), complete=False)
    record = await _write(
        db,
        _UPDATE,
        channel_id,
        customer_id,
        changes.get("name"),
        changes.get("external_id"),
        msgspec.json.encode(changes["config"]).decode() if "config" in changes else None,
        None if new_secrets is None else _sealed(new_secrets, vault),
        changes.get("enabled"),
    )
    return None if record is None else _channel(record)


async def delete(db: Database, channel_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """Delete the channel with its conversations; False where the customer has no such one."""
    async with db.connection() as connection:
        return await connection.fetchval(_DELETE, channel_id, customer_id) is not None


async def find(db: Database, channel_id: uuid.UUID) -> Channel | None:
    """The channel of a job of ours, whoever's it is."""
    return await _find(db, "id", channel_id)


async def find_by_key(db: Database, channel_key: str) -> Channel | None:
    """The channel that a callback URL names; the key is its own secret."""
    return await _find(db, "channel_key", channel_key)


async def find_widget(db: Database, site_key: str) -> Channel | None:
    """The widget that a page names."""
    return await _find(db, "site_key", site_key)


async def _find(db: Database, by: Literal["id", "channel_key", "site_key"], value: object) -> Channel | None:
    async with db.connection() as connection:
        record = await connection.fetchrow(_FIND[by], value)
    return None if record is None else _channel(record)


async def _write(db: Database, statement: str, *values: object) -> asyncpg.Record | None:
    try:
        async with db.connection() as connection:
            return await connection.fetchrow(statement, *values)
    except asyncpg.UniqueViolationError as error:
        raise ChannelRefused("another channel of this kind already has this external_id") from error
    except asyncpg.ForeignKeyViolationError as error:
        raise ChannelRefused("the customer has no such chatbot") from error
    except asyncpg.CheckViolationError as error:
        raise ChannelRefused(f"refused by {error.constraint_name}") from error


def _check(kind: ChannelKind, config: Mapping[str, str], given: Mapping[str, str], *, complete: bool) -> None:
    form = FORMS[kind]
    unknown = sorted((config.keys() - form.config) | (given.keys() - form.secrets))
    if unknown:
        allowed = ", ".join(sorted(form.config | form.secrets)) or "nothing"
        raise ChannelRefused(f"{kind} has no {', '.join(unknown)}; it takes {allowed}")
    missing = sorted(form.required - config.keys() - given.keys())
    if complete and missing:
        raise ChannelRefused(f"{kind} needs {', '.join(missing)}")


def _sealed(values: Mapping[str, str], vault: Vault) -> str | None:
    return vault.seal(msgspec.json.encode(values).decode()) if values else None


def _channel(record: asyncpg.Record) -> Channel:
    return Channel(**{**record, "config": msgspec.json.decode(record["config"].encode(), type=dict[str, str])})
