"""The system's Chromium, headless, driven by Playwright; and what tests ask of every page in it."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "test-output" / "pictures"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_AXE = ROOT / "widget" / "node_modules" / "axe-core" / "axe.min.js"
# A browser that calls nobody, in a container without a user namespace.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
_SERIOUS = {"serious", "critical"}


def missing(what: str, remedy: str) -> None:
    """Skip the test and say what to install; in CI, where it must be there, fail."""
    said = f"{what}: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


def find_chromium() -> str:
    """Where the system's browser is; without one the test is skipped."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing(
            "no Chromium on this machine", "install it (Debian: apt-get install chromium) to run the browser's tests"
        )
    return found or ""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser of its own, with no profile."""
    path = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_FLAGS, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


class Complaints:
    """What a page complained of: errors in its script, in its console, and of its Content-Security-Policy."""

    def __init__(self, page: Page) -> None:
        self.said: list[str] = []
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.said.append(f"console: {message.text}")


async def axe_faults(page: Page) -> list[str]:
    """What axe-core finds serious or critical, as `rule: what it is about`."""
    if not _AXE.exists():
        missing("no axe-core", "run `make widget` (needs Node 20.19 or newer)")
    await page.emulate_media(reduced_motion="reduce")  # what still fades in has another contrast
    await page.evaluate(_AXE.read_text(encoding="utf-8"))
    found: list[dict[str, object]] = (await page.evaluate("async () => await axe.run()"))["violations"]
    return [f"{fault['id']}: {fault['nodes']}" for fault in found if fault["impact"] in _SERIOUS]


async def picture(page: Page, name: str) -> None:
    """Keep a screenshot as test output."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")
