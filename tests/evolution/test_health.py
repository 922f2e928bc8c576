"""An adapter that cannot do its work says so, and goes on by itself once it can."""

import sqlite3
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from replyline.evolution.memory import KEPT_S, Memory
from replyline.evolution.service import Adapter, AdapterSettings
from tests.evolution.scene import TOKEN, Scene
from tests.make import QR_SECRETS
from tests.waiting import until


async def _health(http: aiohttp.ClientSession, url: str) -> tuple[int, dict[str, object]]:
    async with http.get(f"{url}/health") as response:
        return response.status, msgspec.json.decode(await response.read(), type=dict[str, object])


async def test_health_is_503_while_the_file_cannot_be_written(scene: Scene, tmp_path: Path) -> None:
    async def fails() -> bool:
        return await _health(scene.http, scene.adapter_url) == (503, {"status": "failing", "failing": ["memory"]})

    async def is_well() -> bool:
        return await _health(scene.http, scene.adapter_url) == (200, {"status": "ok"})

    await until(is_well)
    other = sqlite3.connect(tmp_path / "evolution.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await until(fails, timeout_s=30)
    other.execute("ROLLBACK")
    other.close()
    await until(is_well, timeout_s=30)


async def test_a_webhook_whose_address_is_none_stops_no_events_for_good(scene: Scene) -> None:
    put = {"webhook_secret": QR_SECRETS["secret"], "webhook_url": f"http://{'a' * 70}.example/hook"}
    assert (await scene.call("PUT", "", put))[0] == 200
    await scene.hear(**{"from": "4915112345678@s.whatsapp.net"}, text="Hi", id="A1")
    _, shown = await scene.call("GET")
    assert shown["waiting_events"] != 0
    assert (await scene.call("PUT", "", {**put, "webhook_url": scene.hook.url}))[0] == 200
    await until(lambda: [message["text"] for message in scene.hook.of("message")] == ["Hi"], timeout_s=30)


@pytest.fixture
def broken(tmp_path: Path) -> sqlite3.Connection:
    """A file of before, of which nothing can be deleted."""
    folder = tmp_path / "broken"
    Memory(folder).close()
    made = sqlite3.connect(folder / "evolution.db", isolation_level=None)
    made.execute("INSERT INTO seen VALUES ('shop', 'old', ?)", (time.time() - 2 * KEPT_S,))
    made.execute("CREATE TRIGGER stuck BEFORE DELETE ON seen BEGIN SELECT RAISE(ABORT, 'stuck'); END")
    return made


async def test_a_background_task_that_fails_is_in_health_and_goes_on(
    broken: sqlite3.Connection, tmp_path: Path
) -> None:
    memory = Memory(tmp_path / "broken")
    async with aiohttp.ClientSession() as http:
        adapter = Adapter(AdapterSettings("http://127.0.0.1:9", "key", TOKEN, ""), memory, http, http)
        runner = web.AppRunner(adapter.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await adapter.open()

        async def fails() -> bool:
            return await _health(http, url) == (503, {"status": "failing", "failing": ["evolution purge"]})

        await until(fails, timeout_s=30)
        broken.execute("DROP TRIGGER stuck")
        await until(lambda: not broken.execute("SELECT 1 FROM seen WHERE id = 'old'").fetchall(), timeout_s=30)
        await runner.cleanup()
        await adapter.close()
    memory.close()
    broken.close()
