"""How limits, and what may be set of one queue, are written."""

from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field, field_validator

from replyline.queues import QueueSpec, RateLimit


@dataclass(frozen=True, slots=True)
class CountLimit:
    """So many in so many seconds; all of them may come at once."""

    count: int
    seconds: float

    def __str__(self) -> str:
        """As it is set."""
        return f"{self.count}/{self.seconds:g}"


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
    keep_completed_jobs: int | None = Field(
        None, ge=1, description="completed jobs BullMQ keeps at most, whatever their age (10,000)"
    )
    keep_failed_jobs: int | None = Field(
        None, ge=1, description="failed jobs BullMQ keeps at most, whatever their age (10,000)"
    )

    @field_validator("rate_limit")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            read_rate_limit(value)
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
            changes["rate_limit"] = read_rate_limit(self.rate_limit)
        return replace(spec, **changes)


def read_rate_limit(value: str) -> RateLimit:
    """A limit that is set as jobs/seconds. Raises ValueError if it does not read so."""
    jobs, _, seconds = value.partition("/")
    try:
        return RateLimit(int(jobs), float(seconds or 1))
    except ValueError as error:
        raise ValueError(f"a rate limit reads jobs/seconds, as 10/1, not {value!r}") from error
