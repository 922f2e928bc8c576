"""Answers on their way into a conversation: each call of the provider is metered once, and none fills a telephone."""

import asyncpg
import pytest

from replyline.answer_length import shorten
from tests.make import make_document
from tests.running import quick_retries
from tests.waiting import until
from tests.whatsapp.street import Open, Street

CLOUD = "WHATSAPP_CLOUD"


async def test_a_call_whose_answer_could_not_be_committed_is_metered_too(street: Open, database_url: str) -> None:
    queues = quick_retries(waits_s=[0.1] * 20)
    queues["ai-processing"] = {**queues["ai-processing"], "timeout_s": 1.5}  # type: ignore[dict-item]  # of that shape
    async with street(CLOUD, settings={"queues": queues}) as here:
        await here.write("one")
        await here.until_seen("Echo: one")
        locking = await asyncpg.connect(database_url)
        transaction = locking.transaction()
        await transaction.start()
        await here.tell("_configure", {"think_s": 1.0}, standin="openai")
        await here.write("two")
        await until(lambda: _received(here, 2), timeout_s=20)  # the model thinks now, for a second
        await locking.execute("SELECT 1 FROM conversations FOR UPDATE")
        await until(lambda: _called(here, 3), timeout_s=20)  # the first answer found the conversation locked
        await transaction.rollback()
        await locking.close()
        await here.until_seen("Echo: one", "Echo: two", timeout_s=30)
        await here.until_at_rest()
        assert await here.dead() == []

        async def metered() -> bool:
            facts = await here.value("SELECT count(*) FROM usage_logs WHERE kind = 'ai_answer'")
            return facts == len(await _answered(here))

        await until(metered)


async def _received(here: Street, count: int) -> bool:
    return await here.value("SELECT count(*) FROM messages WHERE direction = 'INBOUND'") == count


async def _calls(here: Street) -> list[dict[str, object]]:
    async with here.door.http.get(f"{here.standins.urls['openai']}/_calls") as response:
        page = await response.json()
    return [call for call in page["calls"] if call["method"] == "POST"]


async def _answered(here: Street) -> list[dict[str, object]]:
    return [call for call in await _calls(here) if call["status"] == 200]


async def _called(here: Street, times: int) -> bool:
    return len(await _calls(here)) >= times


async def test_an_answer_that_does_not_stop_is_cut_and_its_timeline_says_so(street: Open) -> None:
    sentence = "This sentence is one of very many that a model said. "
    async with street(CLOUD) as here:
        said = {"role": "assistant", "content": sentence * 6000}  # whatever number of tokens was asked for
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "test-1"}
        choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
        await here.fault("openai", kind="error", status=200, body={**body, "choices": choices})
        await here.write("Hello")
        await until(here.texts, timeout_s=30)
        await here.until_at_rest()
        texts = await here.texts()
        assert len(texts) <= 5
        assert sum(map(len, texts)) <= 16_000
        assert texts[-1].endswith("said. …")
        (inbound,) = await here.rows("SELECT id FROM messages WHERE direction = 'INBOUND'")
        timeline = await here.call("GET", f"/v1/messages/{inbound['id']}/timeline")
        errors = [error for job in timeline.json["jobs"] for error in job["errors"]]  # type: ignore[attr-defined]
        assert [error["reason"] for error in errors] == ["answer_cut"]
        assert str(len(sentence) * 6000 - 1) in errors[0]["message"]


@pytest.mark.parametrize("knowledge_only", [False, True])
async def test_a_knowledge_base_that_is_always_too_slow_is_done_without(
    street: Open, database_url: str, *, knowledge_only: bool
) -> None:
    async with street(CLOUD, settings={"queues": quick_retries(waits_s=[0.1, 0.1])}) as here:
        await make_document(here.database, here.chatbot)
        if knowledge_only:
            async with here.database.connection() as connection:
                await connection.execute("UPDATE chatbots SET provider = 'knowledge_only'")
        locking = await asyncpg.connect(database_url)
        async with locking.transaction():
            await locking.execute("LOCK TABLE knowledge_documents")
            await here.write("when are you open?")
            await until(here.texts, timeout_s=60)
        await locking.close()
        (job,) = await here.rows("SELECT state, errors::text AS errors FROM all_jobs WHERE queue = 'ai-processing'")
        assert "knowledge_slow" in str(job["errors"])
        if knowledge_only:
            assert job["state"] == "DEAD"
        else:
            assert job["state"] == "DONE"
            assert "without_knowledge" in str(job["errors"])
            assert await here.texts() == ["Echo: when are you open?"]


@pytest.mark.parametrize(
    ("text", "most", "short"),
    [
        ("short", 10, "short"),
        ("One. Two two. Three three", 20, "One. Two two. …"),
        ("One is one.\n\nTwo is two. Three three three", 30, "One is one.\n\nTwo is two. …"),
        ("one two three four five six", 20, "one two three four …"),
        ("x" * 50, 20, "x" * 18 + " …"),
    ],
)
def test_a_text_is_cut_at_the_end_of_a_sentence_else_of_a_word(text: str, most: int, short: str) -> None:
    assert shorten(text, most) == short
    assert len(shorten(text, most)) <= most
