"""Queues whose jobs somebody else's BullMQ worker does."""

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from replyline.queues import EXTERNAL_QUEUES


class ExternalSettings(BaseSettings):
    """Queues whose jobs somebody else's BullMQ worker does."""

    external_queues: str = Field(
        "",
        description="send queues that an external BullMQ worker does, as whatsapp-qr-send, with a space or comma between",
    )
    external_late_s: float = Field(
        900.0,
        gt=0,
        le=30 * 86400,
        description="a job of an external queue counts as late if it is not done for so long",
    )

    @field_validator("external_queues")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = sorted(set(_words(value)) - set(EXTERNAL_QUEUES))
        if unknown:
            raise ValueError(f"cannot be external: {', '.join(unknown)}; can be: {', '.join(EXTERNAL_QUEUES)}")
        return value

    @property
    def external(self) -> frozenset[str]:
        """`external_queues`, read."""
        return frozenset(_words(self.external_queues))


def _words(value: str) -> list[str]:
    return value.replace(",", " ").split()
