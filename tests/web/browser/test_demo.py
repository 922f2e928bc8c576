"""/demo in a real browser: a newcomer writes on all three, and sees what becomes of it."""

import re

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


async def test_a_dead_letter_is_replayed_on_the_page(browser: Browser, demo_door: Door) -> None:
    page = await browser.new_page(viewport={"width": 1280, "height": 720})
    complaints = await _open(page, demo_door)
    await page.get_by_role("button", name="Cloud refuses").click()
    await page.get_by_role("button", name="Write on WhatsApp Cloud").click()
    timeline = page.locator("#timeline")
    await expect(timeline).to_contain_text("Given up: the number cannot be reached")
    await expect(_phone(page, "cloud")).not_to_contain_text(ANSWER)
    await timeline.get_by_role("button", name="Replay").click()
    await expect(page.locator("#outcome")).to_have_text("Delivered")
    await expect(timeline.get_by_role("button", name="Replay")).to_be_hidden()
    await expect(page.locator("#command")).to_have_text(re.compile(r"^replyline trace [0-9a-f-]{36}$"))
    await expect(page.locator("#ids code")).to_have_count(1)
    assert complaints.said == []


@pytest.mark.parametrize("name", ["Kill a worker", "Wipe Redis"])
async def test_servers_of_others_are_not_broken_and_the_page_says_why(
    browser: Browser, demo_door: Door, name: str
) -> None:
    page = await browser.new_page(viewport={"width": 1280, "height": 720})
    await _open(page, demo_door)
    await page.get_by_role("button", name=name).click()
    await expect(page.locator("#fault-text")).to_contain_text("start the demo without REDIS_URL")


async def test_while_the_server_is_gone_nothing_is_counted(browser: Browser, demo_door: Door) -> None:
    page = await browser.new_page(viewport={"width": 1280, "height": 720})
    await _open(page, demo_door)
    await page.get_by_role("button", name="Phone logs out").click()
    await _write(_phone(page, "qr"), QUESTION)
    await expect(page.locator("#outcome")).to_have_text("Held")
    await expect(page.locator("#timeline")).to_contain_text("Held, not lost: the telephone is logged out")
    await page.context.set_offline(True)
    await expect(page.locator("#banner")).to_contain_text("nothing is counted")
    await expect(page.locator("#outcome")).to_have_text("Not known: no answer")
    # Many frames of the page's own clock: a count that goes on would have changed.
    before = await page.locator("#total").inner_text()
    frames = (
        "new Promise(done => { let n = 40; const next = () => n-- ? requestAnimationFrame(next) : done(); next() })"
    )
    await page.evaluate(frames)
    assert await page.locator("#total").inner_text() == before
    await page.context.set_offline(False)
    await expect(page.locator("#outcome")).to_have_text("Held")
    await page.get_by_role("button", name="Mend everything").click()
    await expect(page.locator("#outcome")).to_have_text("Delivered")
    await expect(page.locator("#timeline")).to_contain_text("Held, not lost: the telephone is logged out:")


_WHOLE = ".panel > header p, .panel h2, .shop-name, .shop-hero, .goods b, .key, .fault-buttons button"


@pytest.mark.parametrize(
    "size",
    [
        {"width": 390, "height": 844},
        {"width": 1024, "height": 768},
        {"width": 1280, "height": 720},
        {"width": 1440, "height": 900},
    ],
)
async def test_it_fits_every_screen(browser: Browser, demo_door: Door, size: ViewportSize) -> None:
    page = await browser.new_page(viewport=size)
    complaints = await _open(page, demo_door)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"], "nothing is cut off at the side"
    clipped = await page.evaluate(
        """selector => [...document.querySelectorAll(selector)]
            .filter(one => one.offsetParent && getComputedStyle(one).display !== 'inline')
            .filter(one => one.scrollWidth > one.clientWidth + 1)
            .map(one => one.textContent)""",
        _WHOLE,
    )
    assert clipped == []
    lines = "one => one.getClientRects().length"
    for key in await page.locator(".key").all():
        assert await key.evaluate(lines) == 1, "no word of the legend is broken"
    if size["width"] >= 1280:
        faults = await page.locator(".faults").bounding_box()
        assert faults is not None
        assert faults["y"] + faults["height"] <= size["height"], "what can be broken is seen without scrolling"
    await page.get_by_test_id("input").fill(QUESTION)
    await page.get_by_test_id("input").press("Enter")
    done = page.locator("[data-testid=message][data-author=assistant][data-state=done]:not([data-id=''])")
    await expect(done).to_contain_text(ANSWER)
    if size["height"] >= 844:
        question = page.locator("[data-testid=message][data-author=user] [data-testid=bubble]")
        await expect(question).to_be_in_viewport(ratio=1)
    assert await axe_faults(page) == []
    await picture(page, f"demo-{size['width']}")
    assert complaints.said == []
