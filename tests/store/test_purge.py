"""What has been kept long enough is deleted, and found without reading what has not."""

import uuid

from replyline.store.database import Connection, Database
from replyline.store.sweep import purge
from tests.explained import explained
from tests.make import make_webhook_endpoint
from tests.store.scene import make_scene

_DAY_S = 86_400
_INSERT = """
INSERT INTO webhook_events (id, customer_id, endpoint_id, type, payload, status, finished_at)
SELECT (lpad(to_hex(((extract(epoch FROM now()) - $3) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid,
       $1, $2, 'message.sent', '{}', $4, CASE WHEN $4 <> 'PENDING' THEN now() - make_interval(secs => $3) END
FROM generate_series(1, $5::int) AS n
"""


async def _events(
    connection: Connection, whose: tuple[uuid.UUID, uuid.UUID], *, days: int, status: str, count: int
) -> None:
    await connection.execute(_INSERT, *whose, float(days * _DAY_S), status, count)


async def test_old_webhook_events_go_and_new_and_pending_ones_stay(database: Database) -> None:
    scene = await make_scene(database)
    whose = (scene.customer.id, (await make_webhook_endpoint(database, scene.customer.id)).id)
    async with database.connection() as connection:
        await _events(connection, whose, days=40, status="DELIVERED", count=3)
        await _events(connection, whose, days=41, status="PENDING", count=2)
        await _events(connection, whose, days=5, status="FAILED", count=20_000)
        async with explained(connection) as seen:
            assert await purge(connection, keep_dead_letters_s=30.0 * _DAY_S) == 3
        left = await connection.fetch("SELECT status, count(*) AS count FROM webhook_events GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in left] == [("FAILED", 20_000), ("PENDING", 2)]
    (pages,) = [pages for statement, pages in seen if statement.lstrip().startswith("DELETE FROM webhook_events")]
    assert pages < 100
