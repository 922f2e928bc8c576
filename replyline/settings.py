"""The only reader of the environment: every setting with its default, its unit and its meaning."""

import difflib
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from dotenv import dotenv_values
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from replyline.queues import SPECS, QueueSpec, RateLimit
from replyline.vault import Vault

_PREFIX = "REPLYLINE_"


class SettingsError(Exception):
    """A setting is unknown, malformed or missing; the message says which and what would be right."""


@dataclass(frozen=True, slots=True)
class CountLimit:
    """So many in so many seconds; all of them may come at once."""

    count: int
    seconds: float

    def __str__(self) -> str:
        """As it is set."""
        return f"{self.count}/{self.seconds:g}"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class QueueSettings(BaseModel):
    """What may be set of one queue; what is left out keeps its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int | None = Field(None, ge=1, le=10_000, description="jobs at once in one worker process")
    timeout_s: float | None = Field(
        None, gt=0, le=3600, description="seconds until a run is cancelled and counts as temporary"
    )
    waits_s: tuple[float, ...] | None = Field(
        None, max_length=50, description="seconds before each retry, as [1, 2, 4]"
    )
    jitter: float | None = Field(None, ge=0, le=1, description="waits are spread by ± this share")
    patience_s: float | None = Field(None, ge=0, description="seconds a job may be postponed without using an attempt")
    rate_limit: str | None = Field(None, description="jobs/seconds for all workers together, as 10/1")
    keep_completed_s: int | None = Field(None, ge=0, description="seconds BullMQ keeps completed jobs")
    keep_failed_s: int | None = Field(None, ge=0, description="seconds BullMQ keeps failed jobs")

    @field_validator("rate_limit")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            _rate_limit(value)
        return value

    @field_validator("waits_s")
    @classmethod
    def _not_negative(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and any(wait < 0 for wait in value):
            raise ValueError("a wait cannot be negative")
        return value

    def apply(self, spec: QueueSpec) -> QueueSpec:
        """The spec with what is set here put in place."""
        changes = self.model_dump(exclude_none=True, exclude={"rate_limit"})
        if self.rate_limit is not None:
            changes["rate_limit"] = _rate_limit(self.rate_limit)
        return replace(spec, **changes)


def _rate_limit(value: str) -> RateLimit:
    jobs, _, seconds = value.partition("/")
    try:
        return RateLimit(int(jobs), float(seconds or 1))
    except ValueError as error:
        raise ValueError(f"a rate limit reads jobs/seconds, as 10/1, not {value!r}") from error


class Settings(BaseSettings):
    """Every setting of Replyline. Times are in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description="Redis or Valkey; replaces the embedded one",
        repr=False,
    )
    redis_host: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_HOST", "redis_host"),
        description="with REDIS_PORT and REDIS_PASSWORD instead of REDIS_URL",
    )
    redis_port: int = Field(
        6379, validation_alias=AliasChoices("REDIS_PORT", "redis_port"), ge=1, le=65535, description="see REDIS_HOST"
    )
    redis_password: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_PASSWORD", "redis_password"),
        description="see REDIS_HOST",
        repr=False,
    )
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="Postgres ≥ 15; replaces the embedded one",
        repr=False,
    )

    data: Path = Field(Path(".replyline"), description="data folder: embedded servers, key, ready.json")
    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8000, ge=0, le=65535, description="port of the API; 0 picks a free one")
    secret_key: str | None = Field(
        None, description="key(s) for secrets at rest; made in the data folder if not set", repr=False
    )
    admin_key: str | None = Field(
        None, min_length=16, description="operator's key for /v1/customers and cross-customer reads", repr=False
    )
    worker_processes: int = Field(1, ge=1, le=64, description="worker processes that `start` runs")
    drain_s: float = Field(30.0, ge=0, le=3600, description="how long a stopping worker waits for what runs")
    database_pool: int = Field(20, ge=4, le=500, description="Postgres connections of one process")
    sweep_every_s: float = Field(3.0, gt=0, le=3600, description="pause between looks for work that lost its queue job")
    sweep_grace_s: float = Field(
        10.0, ge=0, le=3600, description="a due job without a queue job is left this long to its publisher"
    )
    keep_jobs_s: float = Field(7 * 86400.0, gt=0, description="how long finished jobs stay in Postgres")
    keep_dead_letters_s: float = Field(30 * 86400.0, gt=0, description="how long dead letters stay in Postgres")
    reconcile_after_s: float = Field(
        20.0, ge=0, le=600, description="how long a send of unknown outcome waits for a status"
    )
    window_margin_s: float = Field(
        300.0, ge=0, le=3600, description="free text stops so long before WhatsApp's 24 hours are over"
    )
    probe_first_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="first look whether an unhealthy channel is well again; then twice as long each time",
    )
    probe_longest_s: float = Field(3600.0, gt=0, le=86400, description="longest pause between such looks")
    hold_at_most_s: float = Field(
        86400.0, gt=0, description="messages that an unhealthy channel has held so long are given up"
    )
    degraded_after_s: float = Field(
        90.0,
        gt=0,
        le=86400,
        description="a QR channel whose messages WhatsApp does not confirm for so long is unhealthy",
    )
    park_statuses_s: float = Field(
        600.0, gt=0, le=86400, description="how long a status waits for its message to become known"
    )
    keep_unread_callbacks_s: float = Field(
        7 * 86400.0, gt=0, description="how long callbacks that were not understood are kept"
    )
    media_url: str | None = Field(
        None,
        description="where files of people are kept: a folder, or s3://bucket/prefix; media/ in the data folder if not set",
    )
    keep_media_s: float = Field(30 * 86400.0, gt=0, description="how long files of people are kept")
    media_wait_s: float = Field(
        8.0, ge=0, le=60, description="how long a turn waits for a picture that its model can look at"
    )
    public_url: str | None = Field(
        None, description="where others reach this API, as https://chat.example.com; http://HOST:PORT if not set"
    )
    lock_s: float = Field(30.0, ge=1, le=600, description="BullMQ lock of a running job; renewed at half of it")
    stalled_every_s: float = Field(15.0, ge=0.5, le=600, description="pause between looks for jobs of dead workers")
    max_connections: int = Field(
        10_000, ge=128, le=1_000_000, description="connections that one API process holds, open pages among them"
    )
    max_body_bytes: int = Field(
        4_000_000, ge=1000, description="largest request body; Meta's callbacks have up to 3 MB"
    )
    graph_base: str = Field(
        "https://graph.facebook.com", description="WhatsApp Cloud API, unless a channel names its own"
    )
    graph_version: str = Field("v25.0", description="Graph API version, unless a channel names its own")
    http_connect_timeout_s: float = Field(5.0, gt=0, le=60, description="outgoing HTTP: time to connect")
    http_total_timeout_s: float = Field(20.0, gt=0, le=300, description="outgoing HTTP: time for the whole call")
    provider_timeout_s: float = Field(45.0, gt=0, le=600, description="time for one call of an AI provider")
    webhook_timeout_s: float = Field(15.0, gt=0, le=60, description="time for one webhook attempt")
    widget_visitors_per_address: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(5, 3600.0), description="new visitors of a widget from one address, as 5/3600 (seconds); off"
    )
    widget_visitors_per_site: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(30, 60.0), description="new visitors of one widget"
    )
    widget_messages_per_visitor: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(20, 60.0), description="messages of one visitor, at most 5 at once and one a second"
    )
    widget_messages_per_address: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(60, 60.0), description="messages to one widget from one address"
    )
    widget_conversations_per_address: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(6, 43200.0), description="conversations begun with one widget from one address"
    )
    widget_streams_per_visitor: int = Field(
        3, ge=1, le=100, description="pages of one visitor that listen at once; further ones ask again and again"
    )
    trusted_proxies: str = Field(
        "", description="networks whose X-Forwarded-For is believed, as 10.0.0.0/8 192.168.1.5, with a space between"
    )
    webhook_allow_private: bool = Field(
        False, description="let webhooks go to private and loopback addresses (demo, tests, intranets)"
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="a worker's /metrics and /health; 0 picks a free port, unset none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else json")
    queues: Annotated[dict[str, QueueSettings], NoDecode] = Field(
        default_factory=dict, description="REPLYLINE_QUEUES__AI_PROCESSING__CONCURRENCY=40 and the like"
    )

    @field_validator(
        "widget_visitors_per_address",
        "widget_visitors_per_site",
        "widget_messages_per_visitor",
        "widget_messages_per_address",
        "widget_conversations_per_address",
        mode="before",
    )
    @classmethod
    def _count_limits(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value == "off":
            return None
        try:
            limit = _rate_limit(value)
        except ValueError as error:
            raise ValueError(f"a limit reads count/seconds, as 5/3600, or off, not {value!r}") from error
        return CountLimit(limit.jobs, limit.duration_s)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for word in value.split():
            ipaddress.ip_network(word, strict=False)
        return value

    @field_validator("queues", mode="before")
    @classmethod
    def _queue_names(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        named = {str(name).lower().replace("_", "-"): row for name, row in value.items()}
        unknown = sorted(set(named) - set(SPECS))
        if unknown:
            raise ValueError(f"no such queue: {', '.join(unknown)}; the queues are {', '.join(SPECS)}")
        return {name: _decode_fields(row) for name, row in named.items()}

    def spec(self, queue: str) -> QueueSpec:
        """The queue's spec row with this deployment's changes."""
        changed = self.queues.get(queue)
        return changed.apply(SPECS[queue]) if changed else SPECS[queue]

    @property
    def external_redis_url(self) -> str | None:
        """The Redis that the environment names, or None where the embedded one is meant."""
        if self.redis_url:
            return self.redis_url
        if self.redis_host:
            login = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
            return f"redis://{login}{self.redis_host}:{self.redis_port}/0"
        return None

    @property
    def media_place(self) -> str:
        """Where files of people are kept, as fsspec names it."""
        return self.media_url or str((self.data / "media").absolute())

    @property
    def reached_at(self) -> str:
        """Where others reach the API, without a slash at the end."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """`trusted_proxies`, read."""
        return tuple(ipaddress.ip_network(word, strict=False) for word in self.trusted_proxies.split())

    @property
    def ready_file(self) -> Path:
        """Where `start` says what is up."""
        return self.data / "ready.json"


def _decode_fields(row: object) -> object:
    """Tuples arrive from the environment as JSON text inside a nested field."""
    if not isinstance(row, Mapping):
        return row
    fields = {str(name).lower(): value for name, value in row.items()}
    waits = fields.get("waits_s")
    if isinstance(waits, str):
        try:
            fields["waits_s"] = msgspec.json.decode(waits.encode(), type=tuple[float, ...])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ValueError(f"waits_s reads as a list of seconds, like [1, 2, 4]: {error}") from error
    return fields


def load(**overrides: object) -> Settings:
    """Read the environment and `.env`; `overrides` (field names) win.

    Raises:
        SettingsError: a REPLYLINE_ name that does not exist (with the nearest that does), or a value that does not fit.
    """
    known = {_env_name(name) for name in Settings.model_fields}
    for name in _replyline_names():
        if name not in known and not name.startswith("REPLYLINE_QUEUES__"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `replyline settings` lists them all"
            raise SettingsError(f"{name} is not a setting{hint}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates them
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(error))) from None


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in problem["loc"]]
        name = (
            path[0]
            if path[0].isupper()
            else "__".join([_env_name(path[0]), *(part.upper().replace("-", "_") for part in path[1:])])
        )
        yield f"{name}: {problem['msg'].removeprefix('Value error, ')}"


def _env_name(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias if field in Settings.model_fields else None
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"{_PREFIX}{field.upper()}"


def _replyline_names() -> set[str]:
    from_file = dotenv_values(".env") if Path(".env").is_file() else {}
    return {name.upper() for name in (*os.environ, *from_file) if name.upper().startswith(_PREFIX)}


def describe() -> list[tuple[str, str, str]]:
    """Every setting as (name, default, meaning), for `replyline settings` and the docs."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or name == "queues" else str(field.default)
        rows.append((_env_name(name), default, field.description or ""))
    return rows


def open_vault(settings: Settings) -> Vault:
    """The vault of this deployment; in embedded mode its key is made in the data folder on first use (mode 0600).

    Raises:
        SettingsError: the key is malformed, or missing although Postgres is an external one.
    """
    value = settings.secret_key
    if not value:
        if settings.database_url:
            raise SettingsError(
                "REPLYLINE_SECRET_KEY must be set where DATABASE_URL is: every process needs the same key"
            )
        key_file = settings.data / "secret.key"
        if not key_file.exists():
            settings.data.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
            except FileExistsError:
                pass  # another process of ours was first; its key is the key
            else:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(Vault.new_key())
        value = key_file.read_text(encoding="utf-8").strip()
    try:
        return Vault.from_setting(value)
    except ValueError as error:
        raise SettingsError(str(error)) from None
