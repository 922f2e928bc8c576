"""A message on the widget, from the door to the conversation's log."""

from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from tests.make import make_channel, make_chatbot, make_customer, make_document
from tests.running import settings_for, working
from tests.waiting import until


async def test_a_widget_message_is_answered_from_the_knowledge_base(
    database: Database, database_url: str, valkey_url: str
) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    await make_document(database, chatbot)
    async with working(settings_for(valkey_url, database_url)) as app:
        accepted = await app.accept(
            IncomingMessageJob(
                chatbot_id=chatbot.id, external_user_id="visitor-1", content="When are you open?", channel="WIDGET"
            )
        )

        async def reply() -> list[tuple[str, str]]:
            async with database.connection() as connection:
                return [
                    (record["status"], record["content"])
                    for record in await connection.fetch(
                        "SELECT status, content FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'"
                    )
                ]

        sent = await until(reply)
        assert len(sent) == 1
        assert "Tuesday to Saturday" in sent[0][1]
        async with database.connection() as connection:
            states = await connection.fetch(
                "SELECT queue, state FROM all_jobs WHERE trace_id = $1 ORDER BY id", accepted.trace_id
            )
            facts = await connection.fetch("SELECT kind FROM usage_logs ORDER BY id")
        assert [(row["queue"], row["state"]) for row in states] == [
            ("incoming-messages", "DONE"),
            ("ai-processing", "DONE"),
            ("outgoing-messages", "DONE"),
        ]
        assert [row["kind"] for row in facts] == ["message_received", "ai_answer", "message_sent"]
