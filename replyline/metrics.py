"""Every metric of Replyline, in one place; names are part of the public surface."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
# `replyline_jobs` (a gauge) and `replyline_jobs_total` (a counter) are two metrics to Prometheus' text format, but one name to
# the client library's registry: so the gauges of the queues have a registry of their own.
_QUEUES = CollectorRegistry()

_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

jobs = Gauge("replyline_jobs", "Jobs in BullMQ now", ["queue", "state"], registry=_QUEUES)
jobs_total = Counter(
    "replyline_jobs",
    "Runs of jobs, by how they ended: completed, retried, postponed, dead, handed_back",
    ["queue", "outcome"],
    registry=REGISTRY,
)
job_wait_seconds = Histogram(
    "replyline_job_wait_seconds",
    "From when a job was added to when a worker took it",
    ["queue"],
    buckets=_WAITS,
    registry=REGISTRY,
)
job_run_seconds = Histogram(
    "replyline_job_run_seconds", "How long one run of a job took", ["queue"], buckets=_WAITS, registry=REGISTRY
)
jobs_running = Gauge("replyline_jobs_running", "Jobs that this process runs now", ["queue"], registry=REGISTRY)
oldest_job_seconds = Gauge(
    "replyline_oldest_job_seconds", "Age of the oldest job that could run now", ["queue"], registry=REGISTRY
)
dead_letters = Gauge("replyline_dead_letters", "Dead letters kept", ["queue", "reason"], registry=REGISTRY)
external_jobs = Gauge(
    "replyline_external_jobs",
    "Jobs that an external worker has not finished: open, late (for over REPLYLINE_EXTERNAL_LATE_S), lost (Redis forgot them)",
    ["queue", "standing"],
    registry=REGISTRY,
)
external_results_total = Counter(
    "replyline_external_results", "Results of external workers: sent, failed", ["queue", "outcome"], registry=REGISTRY
)
unpublished_jobs = Gauge(
    "replyline_unpublished_jobs", "Jobs of this process that are in Postgres but not yet in Redis", registry=REGISTRY
)
republished_jobs_total = Counter(
    "replyline_republished_jobs", "Jobs that the sweeper found lost and published again", ["queue"], registry=REGISTRY
)
stale_notices_total = Counter(
    "replyline_stale_notices",
    "Dead letters replayed or discarded while Redis was away: BullMQ's `dead-letter` queue still shows them",
    registry=REGISTRY,
)
oldest_unpublished_job_seconds = Gauge(
    "replyline_oldest_unpublished_job_seconds",
    "How long the oldest of this process' unpublished jobs has waited for Redis",
    registry=REGISTRY,
)
refused_publications_total = Counter(
    "replyline_refused_publications",
    "Jobs that Redis refused again and again while it took others: left to the sweeper",
    ["queue"],
    registry=REGISTRY,
)
promoted_jobs_total = Counter(
    "replyline_promoted_jobs",
    "Jobs that were due in Postgres and delayed in BullMQ: the sweeper let them run",
    ["queue"],
    registry=REGISTRY,
)
background_task_failures_total = Counter(
    "replyline_background_task_failures",
    "How often a background task of this process ended or raised, and was started again",
    ["task"],
    registry=REGISTRY,
)
redis_up = Gauge("replyline_redis_up", "Whether Redis took a write of this process in its last look", registry=REGISTRY)
postgres_up = Gauge(
    "replyline_postgres_up", "Whether Postgres answered this process in its last look", registry=REGISTRY
)
callbacks_total = Counter(
    "replyline_callbacks", "Callbacks at the door, by what became of them", ["channel", "outcome"], registry=REGISTRY
)
callback_items_total = Counter(
    "replyline_callback_items",
    "What callbacks brought, by kind: accepted, duplicates, statuses, sessions, unread, foreign (of a number that is not "
    "the channel's), ignored",
    ["channel", "kind"],
    registry=REGISTRY,
)
unhealthy_channels = Gauge(
    "replyline_unhealthy_channels", "Channels that cannot send, by why", ["channel", "reason"], registry=REGISTRY
)
held_jobs = Gauge("replyline_held_jobs", "Send jobs that unhealthy channels hold", ["channel"], registry=REGISTRY)
paced_sends_total = Counter(
    "replyline_paced_sends",
    "Sends put off by our own limits before any call, by whom they are about: recipient, account, day",
    ["channel", "limit"],
    registry=REGISTRY,
)
signs_total = Counter(
    "replyline_signs_of_life",
    "Read and typing signs, by outcome: given, failed",
    ["channel", "outcome"],
    registry=REGISTRY,
)
live_pieces_total = Counter(
    "replyline_live_pieces",
    "Pieces of answers on their way to open pages: told, refused (another run has taken over, or the answer is too long)",
    ["outcome"],
    registry=REGISTRY,
)
connections_over_cap_total = Counter(
    "replyline_connections_over_cap",
    "Connections to this process that were closed because their address had too many",
    registry=REGISTRY,
)
store_busy_total = Counter(
    "replyline_store_busy",
    "Runs that met a lock or a timeout of Postgres, and were put off without using an attempt",
    ["queue"],
    registry=REGISTRY,
)
open_streams = Gauge("replyline_open_streams", "Pages that listen to this process now", registry=REGISTRY)
stream_held_bytes = Gauge(
    "replyline_stream_held_bytes", "What is held for pages that have not taken it yet, all together", registry=REGISTRY
)
stream_events_total = Counter(
    "replyline_stream_events",
    "What open pages were sent, by kind: logged (messages), live (typing, pieces of answers), resync (an answer so far), "
    "dropped (a slow page was behind, and gets it from the log or as a resync)",
    ["kind"],
    registry=REGISTRY,
)
widget_refusals_total = Counter(
    "replyline_widget_refusals",
    "Calls of the widget that were refused, by why: origin, identity, unauthorized, rate_limited, upload",
    ["reason"],
    registry=REGISTRY,
)
media_total = Counter(
    "replyline_media", "Files of people, by outcome: stored, failed", ["channel", "outcome"], registry=REGISTRY
)
channel_sends_total = Counter(
    "replyline_channel_sends",
    "Sends to a channel, by outcome: accepted, temporary, rate_limited, refused, unknown, channel_down",
    ["channel", "outcome"],
    registry=REGISTRY,
)
provider_seconds = Histogram(
    "replyline_provider_seconds",
    "How long an AI provider took to answer",
    ["provider"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 45, 90),
    registry=REGISTRY,
)
slow_knowledge_searches_total = Counter(
    "replyline_slow_knowledge_searches",
    "Searches of a knowledge base that were not done in time; tried again once, then the model answers without",
    registry=REGISTRY,
)
provider_tokens_total = Counter(
    "replyline_provider_tokens",
    "Tokens used, by kind: input, output, cached (part of input)",
    ["provider", "kind"],
    registry=REGISTRY,
)
webhook_attempts_total = Counter(
    "replyline_webhook_attempts",
    "Webhook attempts, by class: 2xx, 3xx, 4xx, 5xx, timeout, connection, refused_address",
    ["outcome"],
    registry=REGISTRY,
)


def render() -> bytes:
    """Everything in Prometheus' text format (version 0.0.4)."""
    return generate_latest(_QUEUES) + generate_latest(REGISTRY)
