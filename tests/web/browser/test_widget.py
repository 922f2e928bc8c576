"""The widget in a real browser, on a shop's page with the strictest Content-Security-Policy: as a visitor has it."""

import asyncio
import re

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, ViewportSize, expect

from replyline.web.widget.uploads import type_of
from tests.waiting import until
from tests.web.browser.chromium import Complaints, axe_faults, picture
from tests.web.browser.conftest import GREETING, Shop, Widget, set_config, show

ANSWER = (
    "We are open from **Tuesday to Saturday**, 7 am to 6 pm.\n\n- On Sundays and Mondays we are closed\n"
    "- On public holidays too\n\nAsk us [anything](https://shop.example/ask)!"
)
SHOWN = "We are open from Tuesday to Saturday, 7 am to 6 pm."
PHONE: ViewportSize = {"width": 390, "height": 844}


def done(widget: Widget, author: str) -> Locator:
    """The finished bubbles of an author."""
    return widget.page.locator(f"[data-testid=message][data-author={author}][data-state=done]:not([data-id=''])")


async def ask(widget: Widget, text: str, answers: int = 1) -> None:
    """Write, and wait until that many answers stand there."""
    await widget.send(text)
    await expect(done(widget, "assistant")).to_have_count(answers)


async def test_a_visitor_writes_and_sees_the_answer_being_written(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply=ANSWER, tokens_per_s=8)
    widget = await show(context, shop)
    await widget.open()
    await expect(widget.part("title")).to_have_text("Blum's Bakery")
    await expect(widget.messages).to_have_text(re.compile(re.escape(GREETING)))
    await widget.send("When are you open?")
    streaming = widget.page.locator("[data-testid=message][data-state=streaming]")
    await expect(streaming).to_contain_text("We are open")
    assert SHOWN not in await streaming.inner_text(), "it is seen before it is whole"
    await picture(widget.page, "widget-streaming")
    await expect(done(widget, "assistant")).to_contain_text(SHOWN)
    await expect(streaming).to_have_count(0)
    bubble = done(widget, "assistant")
    await expect(bubble.locator("strong")).to_have_text("Tuesday to Saturday")
    await expect(bubble.locator("li")).to_have_count(2)
    link = bubble.locator("a")
    assert await link.get_attribute("href") == "https://shop.example/ask"
    assert "noopener" in str(await link.get_attribute("rel"))
    assert await shop.scene.outbound() == [(ANSWER, "SENT")] or (await shop.scene.outbound())[0][1] == "READ"
    assert widget.complaints.said == []


async def test_a_file_that_the_server_refuses_says_why(context: BrowserContext, shop: Shop) -> None:
    widget = await show(context, shop)
    await widget.open()
    await expect(widget.part("attach")).to_be_visible()
    await widget.page.locator("input[type=file]").set_input_files(
        {"name": "cake.png", "mimeType": "image/png", "buffer": b"this is no picture"}
    )
    await expect(widget.part("panel")).to_contain_text("This type of file cannot be sent.")
    assert await shop.scene.value("SELECT count(*) FROM media") == 0


async def test_an_element_of_the_page_named_like_the_running_script_does_no_harm(
    context: BrowserContext, shop: Shop
) -> None:
    page = await context.new_page()
    complaints = Complaints(page)
    await page.goto(shop.url)
    source = await page.evaluate("document.querySelector('script').src")
    key = shop.scene.channel.external_id
    await page.evaluate(
        """([source, key]) => {
            document.querySelector('replyline-chat')?.remove();
            const clobber = document.createElement('img');
            clobber.setAttribute('name', 'currentScript');
            clobber.dataset.siteKey = 'of-somebody-else';
            document.body.prepend(clobber);
            const again = document.createElement('script');
            again.src = source;
            again.dataset.siteKey = key;
            return new Promise(done => { again.onload = done; document.body.append(again); });
        }""",
        [source, key],
    )
    assert await page.evaluate("document.currentScript instanceof HTMLImageElement")
    assert await page.locator("replyline-chat[data-site-key=of-somebody-else]").count() == 0
    assert complaints.said == []


async def test_what_was_read_is_known_to_the_customer(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Hello")
    widget = await show(context, shop)
    await widget.open()
    await ask(widget, "Hi")

    async def read() -> bool:
        return [status for _, status in await shop.scene.outbound()] == ["READ"]

    await until(read, what="the message to be READ")


async def test_who_loses_the_network_misses_nothing_and_sees_nothing_twice(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply=ANSWER, tokens_per_s=25)
    widget = await show(context, shop)
    await widget.open()
    await widget.send("When are you open?")
    await expect(widget.page.locator("[data-testid=message][data-state=streaming]")).to_contain_text("We are")
    await context.set_offline(True)
    shop.network.refuse()
    await shop.network.cut()

    async def answered() -> bool:
        return bool(await shop.scene.outbound())

    await until(answered, what="the answer, while nobody listens")
    await widget.send("And on Sundays?")
    await expect(widget.part("banner")).to_contain_text("Connection lost")
    waiting = widget.page.locator("[data-testid=message][data-state=waiting]")
    await expect(waiting).to_contain_text("And on Sundays?")
    await picture(widget.page, "widget-offline")
    await shop.model(reply="No, we sleep.", tokens_per_s=0)
    shop.network.accept()
    await context.set_offline(False)
    await expect(done(widget, "assistant")).to_have_count(2)
    assert await widget.texts("user") == ["When are you open?", "And on Sundays?"]
    answers = await widget.texts("assistant")
    assert [SHOWN in answers[0], answers[1]] == [True, "No, we sleep."]
    await expect(waiting).to_have_count(0)
    await expect(widget.part("banner")).to_be_hidden()
    assert await shop.scene.value("SELECT count(*) FROM messages WHERE direction = 'INBOUND'") == 2


async def test_a_page_cut_off_again_and_again_shows_everything_once(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Yes.")
    widget = await show(context, shop)
    await widget.open()
    for number in range(4):
        await widget.send(f"Question {number}?")
        await shop.network.cut()
        await expect(done(widget, "assistant")).to_have_count(number + 1)
    assert await widget.texts("user") == [f"Question {number}?" for number in range(4)]


async def test_a_message_not_sent_survives_a_reload(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Yes.")
    widget = await show(context, shop)
    await widget.open()
    await ask(widget, "Hi")
    shop.network.freeze()
    await widget.send("Did you get this?")
    await expect(widget.messages.last).to_contain_text("Did you get this?")
    shop.network.thaw()
    await widget.page.reload()
    await widget.open()
    await expect(done(widget, "assistant")).to_have_count(2)
    assert await widget.texts("user") == ["Hi", "Did you get this?"]


async def test_it_is_on_the_next_page_as_it_was_left(context: BrowserContext, shop: Shop) -> None:
    widget = await show(context, shop)
    await widget.open()
    await widget.page.reload()
    await expect(widget.part("panel")).to_be_visible()
    await widget.part("launcher").click()
    await expect(widget.part("panel")).to_be_hidden()
    await widget.page.reload()
    await expect(widget.part("launcher")).to_have_attribute("aria-expanded", "false")


async def test_a_text_over_the_limit_is_counted_and_neither_cut_nor_sent(context: BrowserContext, shop: Shop) -> None:
    widget = await show(context, shop)
    await widget.open()
    await widget.part("input").fill("x" * 4500)
    await widget.part("input").press("Enter")
    await expect(widget.part("counter")).to_have_text("4500 / 4000")
    await expect(widget.part("notice")).to_have_text("The text is too long.")
    await expect(widget.part("input")).to_have_value("x" * 4500)
    await widget.part("input").fill("short enough")
    await expect(widget.part("counter")).to_be_empty()
    await widget.part("send").click()
    await expect(widget.messages.last).to_contain_text("short enough")


async def test_two_tabs_show_the_same_conversation(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Yes.")
    first = await show(context, shop)
    await first.open()
    await ask(first, "Hi")
    second = await show(context, shop)
    await second.open()
    await expect(done(second, "assistant")).to_have_count(1)
    await second.send("From the second tab")
    await expect(done(first, "assistant")).to_have_count(2)
    assert await first.texts() == await second.texts()


async def test_an_answer_to_a_closed_widget_is_counted_on_its_button(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Yes.", think_s=1)
    widget = await show(context, shop)
    await widget.open()
    await widget.send("Hi")
    await expect(done(widget, "user")).to_have_count(1)
    await widget.part("close").click()
    await expect(widget.part("unread")).to_have_text("1")
    await expect(widget.part("launcher")).to_have_accessible_name(re.compile("1"))
    await picture(widget.page, "widget-unread")
    await widget.open()
    await expect(widget.part("unread")).to_be_hidden()


async def test_the_keyboard_is_enough(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Yes.")
    widget = await show(context, shop)
    keyboard = widget.page.keyboard
    await keyboard.press("Tab")  # the shop's own link
    await keyboard.press("Tab")
    await expect(widget.part("launcher")).to_be_focused()
    await keyboard.press("Enter")
    await expect(widget.part("input")).to_be_focused()
    await keyboard.type("One line")
    await keyboard.press("Shift+Enter")
    await keyboard.type("and another")
    await keyboard.press("Enter")
    await expect(done(widget, "assistant")).to_have_count(1)
    assert await widget.texts("user") == ["One line\nand another"]
    await expect(widget.part("input")).to_be_focused()
    await keyboard.press("Escape")
    await expect(widget.part("panel")).to_be_hidden()
    await expect(widget.part("launcher")).to_be_focused()


async def test_a_phone_shows_it_on_the_whole_screen(browser: Browser, shop: Shop) -> None:
    await shop.model(reply=ANSWER)
    phone = await browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    widget = await show(phone, shop)
    await widget.part("launcher").tap()
    await ask(widget, "When are you open?")
    box = await widget.part("panel").bounding_box()
    assert box == {"x": 0, "y": 0, **PHONE}
    size = await widget.part("input").evaluate("input => parseFloat(getComputedStyle(input).fontSize)")
    assert size >= 16, "below that, iOS zooms in"
    for part in ("send", "close", "attach"):
        target = await widget.part(part).bounding_box()
        assert target is not None
        assert min(target["width"], target["height"]) >= 44, part
    assert await axe_faults(widget.page) == []
    await picture(widget.page, "widget-phone")
    await widget.part("close").tap()
    await expect(widget.part("panel")).to_be_hidden()
    await phone.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_no_serious_fault(browser: Browser, shop: Shop, theme: str) -> None:
    await shop.model(reply=ANSWER)
    context = await browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="dark" if theme == "dark" else "light"
    )
    widget = await show(context, shop)
    assert await axe_faults(widget.page) == []
    await widget.open()
    await ask(widget, "When are you open?")
    assert await axe_faults(widget.page) == []
    await picture(widget.page, f"widget-{theme}")
    assert widget.complaints.said == []
    await context.close()


async def test_script_in_every_text_does_nothing(context: BrowserContext, shop: Shop) -> None:
    script = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
    await set_config(shop, title="<b>Bold</b><img src=x onerror=window.harmed=1>", greeting=script, placeholder=script)
    evil = f"{script} [x](javascript:window.harmed=1) **<svg onload=window.harmed=1>** `{script}`"
    await shop.model(reply=evil)
    widget = await show(context, shop)
    await widget.open()
    await expect(widget.part("title")).to_contain_text("<b>Bold</b>", timeout=20_000)
    await ask(widget, script)
    assert await widget.texts("user") == [script]
    assert script in (await widget.texts("assistant"))[0]
    assert await done(widget, "assistant").locator("img, script, svg, a[href^=javascript]").count() == 0
    assert await widget.page.evaluate("window.harmed") is None


async def test_a_file_is_sent_and_can_be_had_again(context: BrowserContext, shop: Shop) -> None:
    await shop.model(reply="Nice cake!")
    widget = await show(context, shop)
    await widget.open()
    picture_bytes = await widget.page.screenshot()
    assert type_of(picture_bytes) == "image/png"
    await widget.page.locator("input[type=file]").set_input_files(
        {"name": "cake.png", "mimeType": "image/png", "buffer": picture_bytes}
    )
    await ask(widget, "Can you bake this?")
    assert await shop.scene.value("SELECT count(*) FROM media WHERE message_id IS NOT NULL") == 1
    await widget.page.reload()
    await widget.open()
    chip = done(widget, "user").get_by_text("cake.png")
    await expect(chip).to_be_visible()
    await picture(widget.page, "widget-file")
    async with widget.page.expect_download() as downloading:
        await chip.click()
    download = await downloading.value
    path = await download.path()
    assert await asyncio.to_thread(path.read_bytes) == picture_bytes


async def test_a_file_of_the_wrong_kind_is_refused_in_words(context: BrowserContext, shop: Shop) -> None:
    widget = await show(context, shop)
    await widget.open()
    await expect(widget.part("attach")).to_be_visible()
    await widget.page.locator("input[type=file]").set_input_files(
        {"name": "tool.exe", "mimeType": "application/x-msdownload", "buffer": b"MZ"}
    )
    await expect(widget.part("notice")).not_to_be_empty()
    assert await shop.scene.value("SELECT count(*) FROM media") == 0


async def test_a_page_that_may_not_show_it_says_that_it_is_not_available(context: BrowserContext, shop: Shop) -> None:
    await set_config(shop, allowed_origins="https://another.example")
    widget = await show(context, shop)
    said: list[str] = []
    widget.page.on("console", lambda message: said.append(message.text))
    await widget.open()
    await expect(widget.part("banner")).to_contain_text("not available")
    assert any("add the origin to allowed_origins of its channel" in line for line in said), said
    await widget.part("launcher").click()
    await expect(widget.part("launcher")).to_be_hidden()


async def test_the_page_keeps_its_height_and_its_rules_do_not_reach_in(context: BrowserContext, shop: Shop) -> None:
    widget = await show(context, shop)
    height = await widget.page.evaluate(
        """() => {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync('html, body { height: 100% } * { all: unset !important } body > * { filter: blur(1px) }');
            document.adoptedStyleSheets = [sheet];
            return document.documentElement.scrollHeight;
        }"""
    )
    assert height == 800, "the window's own"
    await widget.open()
    await expect(widget.part("input")).to_be_focused()


async def test_a_page_that_swaps_its_body_keeps_the_widget(context: BrowserContext, shop: Shop) -> None:
    widget = await show(context, shop)
    await widget.page.evaluate(
        """() => {
            const script = document.querySelector('script');
            const again = document.createElement('script');
            again.src = script.src;
            again.dataset.siteKey = script.dataset.siteKey;
            const body = document.createElement('body');
            body.append(again);
            document.body.replaceWith(body);
        }"""
    )
    await expect(widget.part("launcher")).to_have_count(1)
    await widget.open()
