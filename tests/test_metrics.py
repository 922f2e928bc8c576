"""The metrics that operators and dashboards rely on, by name, after a message has gone through."""

from prometheus_client.parser import text_string_to_metric_families

from replyline import metrics
from replyline.gauges import refresh_gauges
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for, working
from tests.waiting import until


async def test_the_public_metrics_are_there_and_count(database: Database, database_url: str, valkey_url: str) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    before = _samples().get(("replyline_jobs_total", "incoming-messages", "completed"), 0)
    async with working(settings_for(valkey_url, database_url)) as app:
        await app.accept(IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="u", content="x", channel="WIDGET"))

        async def sent() -> object:
            async with database.connection() as connection:
                return await connection.fetchval(
                    "SELECT 1 FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'"
                )

        await until(sent)
        await until(lambda: _samples().get(("replyline_jobs_total", "incoming-messages", "completed"), 0) == before + 1)
        await refresh_gauges(app.broker, app.database)
    samples = _samples()
    assert samples["replyline_jobs", "incoming-messages", "completed"] >= 1
    assert samples["replyline_oldest_job_seconds", "incoming-messages", ""] == 0
    names = {name for name, _, _ in samples}
    assert {
        "replyline_job_wait_seconds_count",
        "replyline_job_run_seconds_count",
        "replyline_jobs_running",
        "replyline_unpublished_jobs",
        "replyline_provider_seconds_count",
        "replyline_provider_tokens_total",
        "replyline_redis_up",
    } <= names


def _samples() -> dict[tuple[str, str, str], float]:
    found: dict[tuple[str, str, str], float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = sample.labels
            found[sample.name, labels.get("queue", ""), labels.get("state", labels.get("outcome", ""))] = sample.value
    return found
