"""Where Redis and Postgres are, and how work is kept and looked after in them."""

import re

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from replyline.setting_groups.injected import is_service_address

_PREFIX = re.compile(r"(?=.{1,64}$)(?!:)[\w.:-]*(\{[\w.:-]+\})?[\w.:-]*(?<!:)", re.ASCII)


class StoreSettings(BaseSettings):
    """Where Redis and Postgres are, and how work is kept and looked after in them."""

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
    prefix: str = Field(
        "bull",
        description="what every Redis key begins with; with {braces} a Redis Cluster holds them all on one node",
    )
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="Postgres ≥ 15; replaces the embedded one",
        repr=False,
    )
    database_pooler: bool = Field(
        False, description="a pooler in transaction mode (PgBouncer, say) stands before Postgres"
    )
    database_pool: int = Field(
        12, ge=4, le=500, description="Postgres connections of one process, beside those of the hot path"
    )
    database_transactions: int = Field(
        2,
        ge=1,
        le=64,
        description="transactions of the hot path that one process has in flight; it has 4 more connections",
    )
    store_busy_s: float = Field(
        3600.0,
        ge=1,
        description="a job that met locks or timeouts of Postgres for so long, while others got through, is a dead letter",
    )
    sweep_every_s: float = Field(3.0, gt=0, le=3600, description="pause between looks for work that lost its queue job")
    sweep_grace_s: float = Field(
        10.0, ge=0, le=3600, description="a due job without a queue job is left this long to its publisher"
    )
    keep_jobs_s: float = Field(7 * 86400.0, gt=0, description="how long finished jobs stay in Postgres")
    keep_dead_letters_s: float = Field(30 * 86400.0, gt=0, description="how long dead letters stay in Postgres")
    keep_audit_s: float = Field(
        365 * 86400.0, gt=0, description="how long the audit trail and revoked API keys stay in Postgres"
    )
    lock_s: float = Field(30.0, ge=1, le=600, description="BullMQ lock of a running job; renewed at half of it")
    stalled_every_s: float = Field(15.0, ge=0.5, le=600, description="pause between looks for jobs of dead workers")

    @field_validator("prefix")
    @classmethod
    def _readable_prefix(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):
            raise ValueError(
                "a prefix is 1 to 64 letters, digits, _ . - and : (not at an end), with one pair of {braces} at most, as {bull}"
            )
        return value

    @field_validator("redis_port", mode="before")
    @classmethod
    def _redis_port_is_no_service(cls, value: object, info: ValidationInfo) -> object:
        """A Service of that name makes Kubernetes set the variable to its address: then it was not set by anybody."""
        return cls.model_fields[str(info.field_name)].default if is_service_address(value) else value
