"""If there is no browser, or no Node, the tests say what to install; in CI they fail."""

from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.web.browser import chromium


def test_without_a_browser_the_tests_are_skipped_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        chromium.find_chromium()


def test_without_a_browser_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium.find_chromium()


async def test_without_node_the_look_at_accessibility_is_skipped_and_says_why(
    monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(chromium, "_AXE", Path("/nonexistent"))
    with pytest.raises(pytest.skip.Exception, match="make widget"):
        await chromium.axe_faults(await browser.new_page())
