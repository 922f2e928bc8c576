"""`make run` answers the example job of the brief, as NestJS adds it."""

from pathlib import Path

import asyncpg

from tests.cli.starting import starting
from tests.interop.parts import need_application, run
from tests.waiting import until


async def test_the_example_job_is_answered_by_the_demo(tmp_path: Path) -> None:
    need_application()
    async with starting(tmp_path) as start:
        ready = await start.start()
        await run("produce", str(ready["redis_url"]), CHANNEL="WIDGET")
        database = await asyncpg.connect(str(ready["database_url"]))
        try:
            answer = await until(lambda: database.fetchrow(_ANSWER), timeout_s=30, what="an answer")
        finally:
            await database.close()
    assert answer is not None
    assert answer["external_reference"] == "test-conv-id"
    assert answer["content"]


_ANSWER = """
SELECT v.external_reference, m.content FROM messages m JOIN conversations v ON v.id = m.conversation_id
WHERE m.direction = 'OUTBOUND' AND m.status = 'SENT'
"""
