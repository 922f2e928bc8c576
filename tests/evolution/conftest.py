"""An adapter that serves, with a paired session."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from replyline.evolution.memory import Memory
from replyline.evolution.service import Adapter, AdapterSettings
from replyline.standins.evolution import EvolutionStandin
from replyline.webhooks import open_webhook_session
from tests.evolution.scene import TOKEN, Hook, Scene, account_at
from tests.standins.side import Side


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook(account_at(""))
    app = web.Application()
    app.router.add_post("/hook", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
async def scene(tmp_path: Path, hook: Hook) -> AsyncIterator[Scene]:
    standin = EvolutionStandin()
    await standin.start("127.0.0.1", 0)
    memory = Memory(tmp_path)
    async with (
        aiohttp.ClientSession() as http,
        open_webhook_session(allow_private=True, timeout_s=5) as link_http,
    ):
        settings = AdapterSettings(
            standin.url, standin.api_key, TOKEN, "", grace_s=0.6, timeout_s=1.0, first_wait_s=0.05
        )
        adapter = Adapter(settings, memory, http, link_http)
        runner = web.AppRunner(adapter.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        adapter.reached_at(url)
        await adapter.open()
        account = account_at(url)
        made = Scene(Side(standin.url, http), url, http, hook, account)
        await made.pair()
        yield made
        await runner.cleanup()
        await adapter.close()
    await standin.close()
    memory.close()
