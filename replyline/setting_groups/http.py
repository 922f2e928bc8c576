"""What listens, and what is called."""

import ipaddress

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from replyline.setting_groups.injected import is_service_address


class HttpSettings(BaseSettings):
    """What listens, and what is called."""

    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8000, ge=0, le=65535, description="port of the API; 0 picks a free one")
    public_url: str | None = Field(
        None, description="where others reach this API, as https://chat.example.com; http://HOST:PORT if not set"
    )
    max_connections: int = Field(
        10_000, ge=128, le=1_000_000, description="connections that one API process holds, open pages among them"
    )
    max_connections_per_address: int = Field(
        256,
        ge=0,
        le=1_000_000,
        description="connections that one address, or /64 of IPv6, may hold to one API process; 0 is no bound",
    )
    max_body_bytes: int = Field(
        4_000_000, ge=1000, description="largest request body; Meta's callbacks have up to 3 MB"
    )
    trusted_proxies: str = Field(
        "", description="networks whose X-Forwarded-For is believed, as 10.0.0.0/8 192.168.1.5, with a space between"
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="a worker's /metrics and /health; 0 picks a free port, unset none"
    )
    not_ready_after_s: float = Field(
        30.0,
        ge=1,
        le=86400,
        description="Redis away, or jobs that do not get into it, for so long make /health/ready 503",
    )
    http_connect_timeout_s: float = Field(5.0, gt=0, le=60, description="outgoing HTTP: time to connect")
    http_total_timeout_s: float = Field(20.0, gt=0, le=300, description="outgoing HTTP: time for the whole call")
    provider_timeout_s: float = Field(45.0, gt=0, le=600, description="time for one call of an AI provider")
    longest_answer_chars: int = Field(
        16_000,
        ge=500,
        le=1_000_000,
        description="longest answer of an AI provider that is sent; the rest is cut off at a sentence",
    )
    webhook_timeout_s: float = Field(15.0, gt=0, le=60, description="time for one webhook attempt")
    webhook_allow_private: bool = Field(
        False, description="let webhooks go to private and loopback addresses (demo, tests, intranets)"
    )

    @field_validator("port", "metrics_port", mode="before")
    @classmethod
    def _port_is_no_service(cls, value: object, info: ValidationInfo) -> object:
        """A Service of that name makes Kubernetes set the variable to its address: then it was not set by anybody."""
        return cls.model_fields[str(info.field_name)].default if is_service_address(value) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for word in value.split():
            ipaddress.ip_network(word, strict=False)
        return value
