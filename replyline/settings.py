"""The only reader of the environment: every setting with its default, its unit and its meaning."""

import difflib
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from dotenv import dotenv_values
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from replyline.queues import EXTERNAL_KEPT_S, SPECS, QueueSpec
from replyline.setting_groups.channels import ChannelSettings
from replyline.setting_groups.external import ExternalSettings
from replyline.setting_groups.http import HttpSettings
from replyline.setting_groups.injected import is_injected
from replyline.setting_groups.limits import CountLimit, QueueSettings
from replyline.setting_groups.stores import StoreSettings
from replyline.setting_groups.widget import WidgetSettings
from replyline.vault import Vault

__all__ = ["CountLimit", "QueueSettings", "Settings", "SettingsError", "describe", "load", "open_vault"]

_PREFIX = "REPLYLINE_"


class SettingsError(Exception):
    """A setting is unknown, malformed or missing; the message says which and what would be right."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(WidgetSettings, HttpSettings, ChannelSettings, ExternalSettings, StoreSettings):
    """Every setting of Replyline. Times are in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    data: Path = Field(Path(".replyline"), description="data folder: embedded servers, key, ready.json")
    secret_key: str | None = Field(
        None, description="key(s) for secrets at rest; made in the data folder if not set", repr=False
    )
    admin_key: str | None = Field(
        None, min_length=16, description="operator's key for /v1/customers and cross-customer reads", repr=False
    )
    worker_processes: int = Field(1, ge=1, le=64, description="worker processes that `start` runs")
    drain_s: float = Field(30.0, ge=0, le=3600, description="how long a stopping worker waits for what runs")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else json")
    queues: Annotated[dict[str, QueueSettings], NoDecode] = Field(
        default_factory=dict, description="REPLYLINE_QUEUES__AI_PROCESSING__CONCURRENCY=40 and the like"
    )

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
        spec = changed.apply(SPECS[queue]) if changed else SPECS[queue]
        if (
            queue in self.external
        ):  # the result is read from the finished job, maybe after days without a worker of ours
            return replace(
                spec,
                keep_completed_s=max(spec.keep_completed_s, EXTERNAL_KEPT_S),
                keep_failed_s=max(spec.keep_failed_s, EXTERNAL_KEPT_S),
                keep_completed_jobs=None,
                keep_failed_jobs=None,
            )
        return spec

    def shown_s(self, queue: str) -> tuple[int, int]:
        """How long completed and failed jobs of an external queue stay once their results are settled, in seconds."""
        changed = self.queues.get(queue)
        spec = changed.apply(SPECS[queue]) if changed else SPECS[queue]
        return spec.keep_completed_s, spec.keep_failed_s

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

    @property
    def kill_request_file(self) -> Path:
        """What the demo's page leaves for `start` to kill a worker process; `start` removes it when it has done so."""
        return self.data / "kill-a-worker"


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
    for name, value in _replyline_variables().items():
        if name not in known and not is_injected(name, value) and not name.startswith("REPLYLINE_QUEUES__"):
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


def _replyline_variables() -> dict[str, str | None]:
    from_file = dotenv_values(".env") if Path(".env").is_file() else {}
    return {
        name.upper(): value for name, value in {**from_file, **os.environ}.items() if name.upper().startswith(_PREFIX)
    }


def describe() -> list[tuple[str, str, str]]:
    """Every setting as (name, default, meaning), for `replyline settings` and the docs."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or name == "queues" else str(field.default)
        rows.append((_env_name(name), default, field.description or ""))
    return rows


def in_words(settings: Settings) -> dict[str, str]:
    """Every setting's value in force, by its name; of a secret only whether it is set."""
    words = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        shown = "" if value is None else str(value)
        words[_env_name(name)] = "(set)" if shown and not field.repr else shown
    words[_env_name("queues")] = " ".join(
        f"{queue}: {row.model_dump(exclude_none=True)}" for queue, row in settings.queues.items()
    )
    return words


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
