"""What an orchestrator and a monitor are told."""

import asyncio
import re
from pathlib import Path

from tests.web.conftest import Door, Serve, free_port


async def test_a_door_with_both_stores_is_ready(door: Door) -> None:
    ready = await door.call("GET", "/health/ready")
    assert (ready.status, ready.json) == (200, {"status": "ready", "postgres": "ok", "redis": "ok"})
    assert (await door.call("GET", "/health/live")).status == 200


async def test_a_door_without_redis_is_ready_and_says_so(serve: Serve) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0") as door:
        ready = await door.call("GET", "/health/ready")
        assert (ready.status, ready.json) == (200, {"status": "ready", "postgres": "ok", "redis": "away"})


async def test_a_door_without_postgres_is_not_ready_but_lives(serve: Serve) -> None:
    async with serve() as door:
        await door.app.database.close()
        ready = await door.call("GET", "/health/ready")
        assert (ready.status, ready.json) == (503, {"status": "not ready", "postgres": "away", "redis": "ok"})
        assert (await door.call("GET", "/health/live")).status == 200


async def test_metrics_are_there_with_and_without_postgres(serve: Serve) -> None:
    async with serve() as door:
        with_it = await door.call("GET", "/metrics")
        await door.app.database.close()
        without = await door.call("GET", "/metrics")
    for answer in (with_it, without):
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b'replyline_jobs{queue="incoming-messages",state="waiting"}' in answer.body


async def test_the_reference_shows_every_route_and_loads_nothing(door: Door) -> None:
    page, description = await asyncio.gather(door.call("GET", "/docs"), door.call("GET", "/openapi.json"))
    assert (page.status, description.status) == (200, 200)
    text = page.body.decode()
    paths = description.json["paths"]
    assert isinstance(paths, dict)
    assert "/v1/messages/{message_id}/timeline" in paths
    assert all(path in text for path in paths)
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text


async def test_the_guide_shows_every_route(door: Door) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
    shown = re.sub(r"\$[A-Z_]+", "$", guide)
    paths = (await door.call("GET", "/openapi.json")).json["paths"]
    assert isinstance(paths, dict)
    missing = [
        path
        for path in paths
        if re.sub(r"\{[a-z_]+\}", "$", path).replace("/queues/$", "/queues/ai-processing") not in shown
    ]
    assert missing == []
