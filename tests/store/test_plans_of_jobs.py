"""Looking a job up costs an index's depth, however much waits and whatever the statistics say."""

import pytest

from replyline.store.database import Connection, Database
from replyline.store.job_rows import read_jobs
from replyline.store.moves.accept import accept
from replyline.store.moves.claim import Claim, claim
from replyline.store.moves.give_up import Consequence, GivenUp, give_up
from replyline.store.moves.health import Hold, hold, release
from replyline.store.moves.people import find_places
from replyline.store.moves.setbacks import Setback, put_off, standings
from replyline.store.moves.takeover import withdraw_replies
from replyline.store.moves.work import finish, lock_conversations
from replyline.store.outbox import Outbox
from replyline.store.sweep import due_jobs
from tests.explained import explained
from tests.store.scene import Scene, failure, make_scene, run_of

_MANY = 20_000
_MOST_PAGES = 150
"""An index is three or four pages deep here, times a few partitions and rows; reading what waits is a thousand and more."""

_JOBS = """
INSERT INTO jobs (id, queue, name, payload, customer_id, trace_id, lane_key, priority, message_id, conversation_id, run_at,
                  held_by)
SELECT gen_random_uuid(), q, q, '{}', $1, gen_random_uuid(), CASE WHEN q = 'incoming-messages' THEN 'lane' || n END, 5,
       gen_random_uuid(), gen_random_uuid(), CASE WHEN n % 3 = 0 THEN 'infinity' ELSE now() - interval '1 minute' END,
       CASE WHEN n % 3 = 0 AND q LIKE 'whatsapp%' THEN $2::uuid END
FROM generate_series(1, $3::int) AS n,
     LATERAL (SELECT (ARRAY['incoming-messages', 'ai-processing', 'outgoing-messages', 'whatsapp-cloud-send'])[1 + n % 4] AS q) k
"""
_PEOPLE = """
WITH people AS (
    INSERT INTO contacts (id, customer_id, channel_id)
    SELECT gen_random_uuid(), $1, $2 FROM generate_series(1, $4::int) RETURNING id
), named AS (
    INSERT INTO contact_identities (channel_id, kind, value, customer_id, contact_id)
    SELECT $2, 'external', id::text, $1, id FROM people
)
INSERT INTO conversations (id, customer_id, chatbot_id, channel_id, contact_id, reply_to)
SELECT gen_random_uuid(), $1, $3, $2, id, 'x' FROM people
"""


async def _fill(connection: Connection, scene: Scene) -> None:
    await connection.execute(_JOBS, scene.customer.id, scene.channel.id, _MANY)
    await connection.execute(_PEOPLE, scene.customer.id, scene.channel.id, scene.chatbot.id, 5_000)


@pytest.mark.parametrize("analyzed", ["when empty", "under a backlog"])
async def test_no_lookup_of_a_job_reads_what_waits(database: Database, analyzed: str) -> None:
    scene = await make_scene(database)
    tables = "jobs, finished_jobs, dead_jobs, messages, conversations, contacts, contact_identities"
    async with database.connection() as connection:
        if analyzed == "when empty":
            await connection.execute(f"ANALYZE {tables}")
        await _fill(connection, scene)
        if analyzed != "when empty":
            await connection.execute(f"ANALYZE {tables}")
    ids = [(await scene.accept(f"m{number}", sender=f"s{number}")).job_id for number in range(4)]
    known = await scene.accept("known", sender="known", external_id="known")
    await scene.receive(known)
    conversation = await scene.value("SELECT id FROM conversations WHERE reply_to = 'known'")
    await scene.fall_ill("unlinked")
    runs = [run_of(job_id) for job_id in ids]
    async with database.hot_connection() as connection, explained(connection) as seen, connection.transaction():
        await read_jobs(connection, [*ids, known.job_id], Outbox())
        await standings(connection, ids, Outbox())
        assert await put_off(connection, [Setback(ids[0], 1, "retry", failure())], Outbox()) == [True]
        await claim(connection, [Claim(runs[0], False)], Outbox())
        await finish(connection, runs[:1])
        assert await give_up(connection, [GivenUp(runs[1], "broken", failure(), Consequence())], Outbox()) == [True]
        await hold(connection, [Hold(runs[2], scene.channel.id, "unlinked")], Outbox())
        assert len(await release(connection, scene.channel.id, Outbox(), limit=5)) == 5
        again = [scene.row("known", sender="known", external_id="known")]
        assert (await accept(connection, again, Outbox()))[0].duplicate
        await withdraw_replies(connection, list((await lock_conversations(connection, [conversation])).values()))  # type: ignore[list-item]
        await find_places(connection, [scene.row("hi", sender=name).job for name in ("known", "stranger")])
        assert len(await due_jobs(connection, grace_s=5, after=None, limit=10)) == 10
    assert len(seen) > 15
    assert [(query, pages) for query, pages in seen if pages > _MOST_PAGES] == []
