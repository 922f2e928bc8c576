"""/demo in a real browser: a newcomer writes on all three, and sees what becomes of it."""

import pytest
from playwright.async_api import Browser, Locator, Page, ViewportSize, expect

from tests.web.browser.chromium import Complaints, axe_faults, picture
from tests.web.conftest import Door

QUESTION = "When are you open?"
ANSWER = "Tuesday to Saturday"


async def _open(page: Page, door: Door) -> Complaints:
    complaints = Complaints(page)
    await page.goto(f"{door.url}/demo")
    await expect(page.get_by_test_id("input")).to_be_visible()
    return complaints


def _phone(page: Page, name: str) -> Locator:
    return page.locator(f"#panel-{name}")


async def _write(phone: Locator, text: str) -> None:
    await phone.get_by_role("textbox").fill(text)
    await phone.get_by_role("textbox").press("Enter")


async def test_a_newcomer_writes_on_all_three_and_is_answered_there(browser: Browser, demo_door: Door) -> None:
    page = await browser.new_page(viewport={"width": 1440, "height": 1000})
    complaints = await _open(page, demo_door)
    await page.get_by_test_id("input").fill(QUESTION)
    await page.get_by_test_id("input").press("Enter")
    widget = page.locator("[data-testid=message][data-author=assistant][data-state=done]:not([data-id=''])")
    await expect(widget).to_contain_text(ANSWER)
    for name in ("cloud", "qr"):
        await _write(_phone(page, name), QUESTION)
        await expect(_phone(page, name)).to_contain_text(ANSWER)
    timeline = page.locator("#timeline")
    await expect(timeline).to_contain_text("whatsapp-qr-send")
    await expect(timeline).to_contain_text("Delivered")
    await expect(timeline).to_contain_text("message.delivered")
    assert await axe_faults(page) == []
    await picture(page, "demo-light")
    assert complaints.said == []


async def test_what_is_broken_is_seen_in_the_timeline(browser: Browser, demo_door: Door) -> None:
    page = await browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="dark")
    complaints = await _open(page, demo_door)
    await page.get_by_role("button", name="Cloud fails twice").click()
    await _write(_phone(page, "cloud"), QUESTION)
    await expect(_phone(page, "cloud")).to_contain_text(ANSWER)
    await expect(page.locator("#timeline")).to_contain_text("131016")
    assert await axe_faults(page) == []
    await picture(page, "demo-dark")
    assert complaints.said == []


@pytest.mark.parametrize("size", [{"width": 390, "height": 844}, {"width": 1024, "height": 768}])
async def test_it_fits_every_screen(browser: Browser, demo_door: Door, size: ViewportSize) -> None:
    page = await browser.new_page(viewport=size)
    complaints = await _open(page, demo_door)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"], "nothing is cut off at the side"
    assert await axe_faults(page) == []
    await picture(page, f"demo-{size['width']}")
    assert complaints.said == []
