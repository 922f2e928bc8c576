"""A shop's page with the widget on it, in a real browser, and a whole Replyline behind it."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from replyline.standins import Standins
from replyline.store import channels, chatbots
from replyline.store.database import Database
from tests.make import VAULT
from tests.proxy import FaultProxy
from tests.store.scene import Scene
from tests.web.browser.chromium import Complaints, chromium
from tests.web.conftest import Door, free_port
from tests.web.page import make_site

expect.set_options(timeout=15_000)

GREETING = "Hello! What can we bake for you?"


@dataclass
class Shop:
    """The shop's site: `url` is its page; `network` stands between the browser and us."""

    url: str
    scene: Scene
    door: Door
    standins: Standins
    network: FaultProxy

    async def model(self, **configuration: object) -> None:
        """Tell the model's stand-in how to answer."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.standins.urls['openai']}/_configure", json=configuration) as response,
        ):
            assert response.status == 200, await response.text()


class Widget:
    """The widget on an open page, by its parts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints = Complaints(page)

    def part(self, name: str) -> Locator:
        """A part of it, through its shadow root."""
        return self.page.get_by_test_id(name)

    @property
    def messages(self) -> Locator:
        """The bubbles, top to bottom."""
        return self.part("message")

    async def open(self) -> None:
        """Open it by its button, unless it is open from the page before."""
        launcher = self.part("launcher")
        await expect(launcher).to_have_attribute("aria-expanded", re.compile("true|false"))
        if await launcher.get_attribute("aria-expanded") == "false":
            await launcher.click()
        await expect(self.part("panel")).to_be_visible()

    async def send(self, text: str) -> None:
        """Write and send."""
        await self.part("input").fill(text)
        await self.part("send").click()

    async def texts(self, author: str | None = None) -> list[str]:
        """What the bubbles say (those of one author), without the greeting."""
        found: list[str] = []
        for bubble in await self.messages.all():
            key = await bubble.get_attribute("data-id")
            if key and author in {None, await bubble.get_attribute("data-author")}:
                found.append(await bubble.get_by_test_id("bubble").inner_text())
        return found


@pytest.fixture
async def shop(worked: Door, database: Database, standins: Standins) -> AsyncIterator[Shop]:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    scene = await make_site(
        database,
        allowed_origins=origin,
        title="Blum's Bakery",
        subtitle="We answer at once",
        greeting=GREETING,
        color="#0f766e",
    )
    changes: chatbots.ChatbotChanges = {
        "provider": "openai_compatible",
        "model": "demo-model",
        "provider_base_url": f"{standins.urls['openai']}/v1",
    }
    await chatbots.update(database, VAULT, scene.chatbot.id, customer_id=scene.customer.id, changes=changes)
    async with FaultProxy(worked.url) as network:
        runner = await _serve_page(port, network.url().rstrip("/"), scene)
        yield Shop(origin, scene, worked, standins, network)
        await runner.cleanup()


async def _serve_page(port: int, api: str, scene: Scene) -> web.AppRunner:
    html = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Blum's Bakery</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'></head>"
        "<body><main><h1>Blum's Bakery</h1><p>Bread and cakes since 1952.</p><a href='#more'>More</a></main>"
        f"<script src='{api}/widget.js' data-site-key='{scene.channel.external_id}' async></script></body></html>"
    )
    policy = f"default-src 'none'; script-src {api}; connect-src {api}; img-src blob:"

    async def show_page(request: web.Request) -> web.Response:
        allowed = f"{policy} https:" if request.path == "/pictures" else policy
        return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": allowed})

    application = web.Application()
    application.router.add_get("/", show_page)
    application.router.add_get("/pictures", show_page)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    yield context
    await context.close()


async def show(context: BrowserContext, shop: Shop, path: str = "") -> Widget:
    """The shop's page, opened; that of `/pictures` may show pictures of others."""
    page = await context.new_page()
    widget = Widget(page)
    await page.goto(f"{shop.url}{path}")
    await expect(widget.part("launcher")).to_be_visible()
    return widget


async def set_config(shop: Shop, **config: str) -> None:
    """Change how the shop wants its widget; pages see it within 5 seconds."""
    await channels.update(
        shop.scene.database,
        VAULT,
        shop.scene.channel.id,
        customer_id=shop.scene.customer.id,
        changes={"config": {**shop.scene.channel.config, **config}},
    )
