"""webhook-delivery: post one event to one endpoint of a customer, and write every attempt down."""

from datetime import UTC, datetime

from replyline import metrics, webhooks
from replyline.app import App
from replyline.errors import Permanent
from replyline.jobs import WebhookDeliveryJob
from replyline.redaction import redact
from replyline.store.deliveries import Delivery
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.record import Attempt
from replyline.store.moves.work import Run


async def process(job: WebhookDeliveryJob, run: Run, app: App) -> None:
    """Deliver the event; an endpoint that was turned off gets nothing more."""
    delivery = await app.reads.delivery((run.job_id, job.event_id))
    if delivery is None:
        return
    if not delivery.enabled:
        raise Permanent("the endpoint is turned off", reason="endpoint_disabled")
    now_s = app.broker.now_ms() / 1000  # a worker whose clock is wrong would be refused by every receiver
    outcome = await webhooks.deliver(
        app.webhook_http,
        url=delivery.url,
        secret=app.vault.open(delivery.secret_sealed),
        event_id=str(delivery.event_id),
        body=delivery.payload.encode(),
        allow_private=app.settings.webhook_allow_private,
        at_s=now_s,
    )
    metrics.webhook_attempts_total.labels(outcome.kind).inc()
    await app.moves.record(_attempt(run, delivery, datetime.fromtimestamp(now_s, UTC), outcome))
    if outcome.error is not None:
        raise outcome.error


async def give_up(job: WebhookDeliveryJob, _run: Run, _app: App) -> Consequence:
    """The event FAILED; the message it is about is not touched."""
    return Consequence(failed_event_id=job.event_id)


def _attempt(run: Run, delivery: Delivery, started_at: datetime, outcome: webhooks.Outcome) -> Attempt:
    return Attempt(
        run=run,
        event_id=delivery.event_id,
        customer_id=delivery.customer_id,
        started_at=started_at,
        duration_ms=outcome.duration_ms,
        status_code=outcome.status_code,
        error=None if outcome.error is None else redact(str(outcome.error)),
        response_head=None if outcome.response_head is None else redact(outcome.response_head),
    )
