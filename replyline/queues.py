"""The queues and one spec row each: how many jobs at once, how long, how often again, how fast, how long kept."""

from dataclasses import dataclass

from replyline.jobs import (
    AI_PROCESSING,
    INCOMING_MESSAGES,
    MEDIA_FETCH,
    OUTGOING_MESSAGES,
    QUEUE_NAMES,
    WEBHOOK_DELIVERY,
    WHATSAPP_CLOUD_SEND,
    WHATSAPP_QR_SEND,
)

HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `jobs` starts in any `duration_s` seconds, all workers of the queue together."""

    jobs: int
    duration_s: float

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.duration_s <= 0:
            raise ValueError("a rate limit needs at least one job and a duration above 0 seconds")


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """How the jobs of one queue are run. All times are in seconds."""

    name: str
    concurrency: int = 10
    timeout_s: float = 30.0
    waits_s: tuple[float, ...] = (1.0, 2.0, 4.0)
    """The wait before each retry: as many retries as entries, one try more than that."""
    jitter: float = 0.2
    """Waits are spread by ± this share (0 to 1)."""
    patience_s: float = 15 * 60.0
    """How long a job may be postponed without using an attempt before it is given up."""
    rate_limit: RateLimit | None = None
    keep_completed_s: int = HOUR_S
    keep_failed_s: int = DAY_S
    keep_completed_jobs: int | None = 10_000
    """BullMQ keeps at most so many completed jobs, the newest; None is any number."""
    keep_failed_jobs: int | None = 10_000

    @property
    def tries(self) -> int:
        """How often a job is run at most: the first try and one for each wait (BullMQ's `attempts`)."""
        return len(self.waits_s) + 1


SPECS: dict[str, QueueSpec] = {
    spec.name: spec
    for spec in (
        QueueSpec(INCOMING_MESSAGES),
        QueueSpec(AI_PROCESSING, concurrency=20, timeout_s=120),
        QueueSpec(OUTGOING_MESSAGES),
        QueueSpec(WHATSAPP_CLOUD_SEND),
        QueueSpec(WHATSAPP_QR_SEND, timeout_s=60),
        # Seven seconds of retries would lose a customer's events at every deployment of theirs: webhook senders keep trying
        # for days (Standard Webhooks, "Retries": several days with exponential backoff).
        QueueSpec(
            WEBHOOK_DELIVERY,
            waits_s=(5, 60, 300, 1800, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 14 * HOUR_S, 20 * HOUR_S, 24 * HOUR_S),
            patience_s=4 * DAY_S,
        ),
        # An inbound file can be had for 7 days (WhatsApp Cloud API, "Media": ids of webhooks), its address for 5 minutes, which
        # each try asks for anew.
        QueueSpec(
            MEDIA_FETCH,
            timeout_s=120,
            waits_s=(2, 10, 60, 300, 1800, 2 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, DAY_S, DAY_S),
            patience_s=3 * DAY_S,
        ),
    )
}

EXTERNAL_KEPT_S = 7 * DAY_S
"""How long finished jobs of an external queue are kept in BullMQ until their result is settled."""
EXTERNAL_QUEUES = (WHATSAPP_CLOUD_SEND, WHATSAPP_QR_SEND)
"""The queues whose jobs a BullMQ worker of somebody else's may do."""

if tuple(SPECS) != QUEUE_NAMES:
    raise RuntimeError("every queue needs exactly one spec row, in the order of QUEUE_NAMES")
