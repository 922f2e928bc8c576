"""What is counted in days and seconds goes by Postgres' clock, whatever the machine's says."""

import json
import subprocess
import sys
from pathlib import Path

from replyline.jobs import MediaRef
from replyline.store.database import Database
from tests.store.scene import make_scene

_AHEAD_S = 40 * 86_400
_PROGRAM = """
import tests.chaos.wrong_clock
import asyncio, json, sys, uuid
from replyline.store import media, usage
from replyline.store.database import Database

async def main(url, customer, message):
    database = Database(url, pool_size=2)
    await database.open()
    (file,) = await media.of_message(database, uuid.UUID(message), customer_id=uuid.UUID(customer))
    month = await usage.received_this_month(database, customer_id=uuid.UUID(customer), channel_kind="WHATSAPP_CLOUD")
    print(json.dumps([file.age_s, month.received, month.ends_in_s]))
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_age_of_a_file_and_the_running_month_are_those_of_postgres(
    database: Database, database_url: str
) -> None:
    """Failed before: a process 40 days ahead counted another month, and took a file that just came for too old."""
    scene = await make_scene(database)
    message = await scene.hear("look", media=MediaRef(kind="image", provider_id="1"))
    months_end = await scene.value(
        "SELECT extract(epoch FROM (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC')"
        "::float8 - extract(epoch FROM now())::float8"
    )
    command = [sys.executable, "-c", _PROGRAM, str(_AHEAD_S), database_url, str(scene.customer.id), str(message)]
    said = subprocess.run(  # noqa: ASYNC221  nothing else runs here
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    age_s, received, ends_in_s = json.loads(said)
    assert 0 <= age_s < 3600
    assert received == 1
    assert isinstance(months_end, float)
    assert months_end - 3600 < ends_in_s <= months_end
