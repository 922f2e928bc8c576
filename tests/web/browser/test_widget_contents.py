"""Buttons, lists, pictures and who answers, as a visitor sees them in a real browser."""

import re

import pytest
from playwright.async_api import BrowserContext, Locator, Page, Route, expect

from tests.make import make_api_key
from tests.waiting import until
from tests.web.browser.chromium import axe_faults, picture
from tests.web.browser.conftest import Shop, Widget, show

BUTTONS: dict[str, object] = {
    "type": "buttons",
    "header": "Your order",
    "text": "Shall we **deliver** it?",
    "footer": "Delivery takes about an hour.",
    "buttons": [{"id": "deliver", "title": "Deliver it"}, {"id": "collect", "title": "I'll collect it"}],
}
LIST: dict[str, object] = {
    "type": "list",
    "text": "Which cake would you like?",
    "button": "Our cakes",
    "sections": [
        {
            "title": "With fruit",
            "rows": [
                {"id": "plum", "title": "Plum cake", "description": "With cinnamon, serves twelve"},
                {"id": "apple", "title": "Apple cake", "description": "With almonds, serves eight"},
            ],
        },
        {"title": "With cream", "rows": [{"id": "forest", "title": "Black Forest"}]},
    ],
}
PICTURES = "https://pictures.example"


def media(**more: object) -> dict[str, object]:
    """A picture on the business' own server."""
    return {"type": "media", "kind": "image", "link": f"{PICTURES}/plum.svg", "caption": "Our plum cake", **more}


class Talk:
    """A visitor's open conversation, and the business that speaks in it."""

    def __init__(self, shop: Shop, widget: Widget, api_key: str, conversation: object) -> None:
        self.shop = shop
        self.widget = widget
        self._key = api_key
        self._conversation = conversation
        self._path = f"/v1/conversations/{conversation}"

    async def say(self, **body: object) -> Locator:
        """A human of the business sends this; its message as the page shows it."""
        said = await self.shop.door.call("POST", f"{self._path}/messages", key=self._key, json=body)
        assert said.status == 202, said.body
        message = self.widget.page.locator(f"[data-testid=message][data-id='{said.json['messageId']}']")
        await expect(message).to_be_visible()
        return message

    async def own(self, who: str) -> None:
        """Say who answers."""
        told = await self.shop.door.call("PUT", f"{self._path}/owner", key=self._key, json={"owner": who})
        assert told.status == 200, told.body

    async def kept(self, text: str) -> dict[str, object]:
        """The visitor's message of that text, as the customer's program reads it."""
        found: list[dict[str, object]] = []

        async def saved() -> bool:
            path = f"/v1/messages?conversationId={self._conversation}"
            answer = await self.shop.door.call("GET", path, key=self._key)
            found[:] = [one for one in answer.entries if one["content"] == text and one["direction"] == "INBOUND"]
            return bool(found)

        await until(saved, what=f"{text!r} to be saved")
        assert len(found) == 1
        return found[0]


async def talk(context: BrowserContext, shop: Shop, path: str = "") -> Talk:
    """A visitor who has written, on the shop's page."""
    await shop.model(reply="With pleasure.")
    widget = await show(context, shop, path)
    await widget.open()
    await widget.send("A cake, please")
    await expect(widget.messages.filter(has_text="With pleasure.")).to_be_visible()
    key = await make_api_key(shop.scene.database, shop.scene.customer.id)
    return Talk(shop, widget, key, await shop.scene.value("SELECT id FROM conversations"))


@pytest.fixture
async def drawn(context: BrowserContext) -> list[str]:
    """What was asked of the pictures' server, which draws one."""
    asked: list[str] = []

    async def draw(route: Route) -> None:
        asked.append(str(route.request.headers.get("referer")))
        svg = (
            "<svg xmlns='http://www.w3.org/2000/svg' width='560' height='380'><rect width='560' height='380' "
            "fill='#f3dcc4'/><ellipse cx='280' cy='250' rx='220' ry='70' fill='#fff'/><ellipse cx='280' cy='215' rx='160' "
            "ry='70' fill='#b9783f'/><g fill='#5b2a5e'><circle cx='210' cy='195' r='24'/><circle cx='280' cy='180' "
            "r='24'/><circle cx='350' cy='195' r='24'/></g></svg>"
        )
        await route.fulfill(content_type="image/svg+xml", body=svg)

    await context.route(f"{PICTURES}/**", draw)
    return asked


def pressed(page: Page) -> Locator:
    """The options that are shown as chosen."""
    return page.locator("[data-testid=option][aria-pressed=true]")


async def test_a_pressed_button_is_sent_with_its_id_and_none_can_be_pressed_again(
    context: BrowserContext, shop: Shop
) -> None:
    here = await talk(context, shop)
    message = await here.say(content=BUTTONS, takeOver=False)
    await expect(message.get_by_role("group", name="Shall we")).to_be_visible()
    await expect(message.locator("strong")).to_have_text(["Your order", "deliver"])
    await expect(message).to_contain_text("Delivery takes about an hour.")
    await expect(message).not_to_contain_text("1. Deliver it")
    assert await axe_faults(here.widget.page) == []
    await picture(here.widget.page, "widget-buttons")
    await message.get_by_role("button", name="Deliver it").click()
    kept = await here.kept("Deliver it")
    offer = await message.get_attribute("data-id")
    assert kept["body"] == {
        "choice": {"kind": "button", "id": "deliver", "title": "Deliver it"},
        "quoted": {"externalId": offer},
    }
    assert kept["quotes"] == offer
    await expect(here.widget.messages.last).to_contain_text("With pleasure.")
    for page in (here.widget.page, await _again(here.widget)):
        await expect(pressed(page)).to_have_accessible_name("Deliver it")
        for name in ("Deliver it", "I'll collect it"):
            await expect(page.get_by_role("button", name=name)).to_be_disabled()
    assert await axe_faults(here.widget.page) == []
    await picture(here.widget.page, "widget-buttons-pressed")
    assert here.widget.complaints.said == []


async def _again(widget: Widget) -> Page:
    await widget.page.reload()
    await widget.open()
    return widget.page


async def test_a_row_of_a_list_is_chosen_by_the_keyboard(context: BrowserContext, shop: Shop) -> None:
    here = await talk(context, shop)
    page = here.widget.page
    message = await here.say(content=LIST, takeOver=False)
    choices = message.get_by_role("group", name="Our cakes")
    await expect(choices.get_by_role("group", name="With fruit").get_by_role("button")).to_have_count(2)
    await expect(choices.get_by_role("group", name="With cream").get_by_role("button")).to_have_text(["Black Forest"])
    await picture(page, "widget-list")
    await choices.get_by_role("button", name="Plum cake").focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    kept = await here.kept("Apple cake")
    assert kept["body"] == {
        "choice": {
            "kind": "list",
            "id": "apple",
            "title": "Apple cake",
            "description": "With almonds, serves eight",
        },
        "quoted": {"externalId": await message.get_attribute("data-id")},
    }
    await expect(pressed(page)).to_have_accessible_name(re.compile("Apple cake"))
    await page.emulate_media(color_scheme="dark")
    await expect(page.locator("[data-theme=dark]")).to_have_count(1)
    assert await axe_faults(page) == []
    await picture(page, "widget-list-chosen")


async def test_a_choice_that_is_not_offered_any_more_says_so_and_can_be_made_anew(
    context: BrowserContext, shop: Shop
) -> None:
    here = await talk(context, shop)
    message = await here.say(content=BUTTONS, takeOver=False)
    await shop.scene.value(
        "UPDATE messages SET body = jsonb_set(body, '{buttons,0,id}', to_jsonb('later'::text)) "
        "WHERE body ->> 'type' = 'buttons' RETURNING id"
    )
    await message.get_by_role("button", name="Deliver it").click()
    refused = here.widget.page.locator("[data-testid=message][data-state=refused]")
    await expect(refused).to_contain_text("does not offer this choice")
    await refused.get_by_role("button", name="Discard").click()
    await expect(message.get_by_role("button", name="Deliver it")).to_be_enabled()
    await expect(pressed(here.widget.page)).to_have_count(0)


async def test_a_picture_is_shown_and_its_server_does_not_learn_the_page(
    context: BrowserContext, shop: Shop, drawn: list[str]
) -> None:
    here = await talk(context, shop, "/pictures")
    message = await here.say(content=media(), takeOver=False)
    image = message.get_by_role("img", name="Our plum cake")
    await expect(image).to_have_js_property("complete", value=True)
    assert await image.evaluate("one => [one.naturalWidth, one.loading]") == [560, "lazy"]
    await expect(message.get_by_role("link", name="Our plum cake")).to_have_attribute("href", f"{PICTURES}/plum.svg")
    await expect(message.get_by_test_id("bubble")).to_have_text("Our plum cake")
    assert drawn == ["None"]
    await picture(here.widget.page, "widget-picture")
    assert here.widget.complaints.said == []


async def test_a_page_whose_policy_allows_no_picture_shows_a_link_to_it(
    context: BrowserContext, shop: Shop, drawn: list[str]
) -> None:
    here = await talk(context, shop)
    message = await here.say(content=media(filename="plum.svg"), takeOver=False)
    link = message.get_by_role("link", name="plum.svg")
    await expect(link).to_have_attribute("href", f"{PICTURES}/plum.svg")
    await expect(message.get_by_role("img", name="Our plum cake")).to_have_count(0)
    assert drawn == []


async def test_a_document_and_a_picture_without_https_are_links_that_call_nobody(
    context: BrowserContext, shop: Shop, drawn: list[str]
) -> None:
    here = await talk(context, shop, "/pictures")
    menu = f"{PICTURES}/menu.pdf"
    for content in (media(kind="document", link=menu), media(link="http://pictures.example/plum.svg", filename="Plum")):
        message = await here.say(content=content, takeOver=False)
        link = message.get_by_role("link", name=str(content.get("filename", "menu.pdf")))
        await expect(link).to_have_attribute("href", str(content["link"]))
        await expect(link).to_have_attribute("rel", re.compile("noopener"))
        await expect(link).to_contain_text("pictures.example")
        assert await message.locator("img").count() == 0
    await picture(here.widget.page, "widget-document")
    assert drawn == []


async def test_script_in_a_list_and_a_file_does_nothing(context: BrowserContext, shop: Shop) -> None:
    here = await talk(context, shop, "/pictures")
    script = "<img src=x onerror=h=1>"
    rows = [{"id": script, "title": script, "description": script}]
    sections = [{"title": script, "rows": rows}, {"title": "x", "rows": [{"id": "constructor", "title": "toString"}]}]
    await here.say(
        content={"type": "list", "text": script, "button": "<b>x</b>", "header": script, "sections": sections},
        takeOver=False,
    )
    evil = await here.say(
        content=media(kind="document", link="https://x.example/'\"><script>h=1</script>", filename=script),
        takeOver=False,
    )
    await expect(evil.get_by_role("link")).to_contain_text(script)
    assert await here.widget.messages.locator("img, script").count() == 0
    await here.widget.page.get_by_role("button", name="toString").click()
    assert (await here.kept("toString"))["body"] is not None
    assert await here.widget.page.evaluate("window.h") is None


async def test_who_has_taken_over_is_said_until_somebody_answers(context: BrowserContext, shop: Shop) -> None:
    here = await talk(context, shop)
    banner = here.widget.part("banner")
    await expect(banner).to_be_hidden()
    await here.own("HUMAN")
    await expect(banner).to_have_text("A person has taken over.")
    assert await banner.get_attribute("role") == "status"
    await picture(here.widget.page, "widget-taken-over")
    await _again(here.widget)
    await expect(banner).to_have_text("A person has taken over.")
    await here.say(text="Hello, this is Mia.")
    await expect(banner).to_be_hidden()
    await expect(here.widget.messages.last).to_contain_text("Team")
    await here.own("NONE")
    await expect(banner).to_have_text("Nobody can answer right now.")
    await here.own("BOT")
    await expect(banner).to_be_hidden()
    await here.widget.send("Are you there?")
    await expect(here.widget.messages.last).to_contain_text("With pleasure.")
    await expect(banner).to_be_hidden()


async def test_sent_stands_under_the_newest_own_message_alone(context: BrowserContext, shop: Shop) -> None:
    here = await talk(context, shop)
    own = here.widget.page.locator("[data-testid=message][data-author=user]")
    await expect(own.get_by_test_id("meta")).to_have_text(re.compile("· Sent$"))
    await here.own("HUMAN")
    await here.widget.send("And one more")
    await expect(own).to_have_count(2)
    await expect(own.last.get_by_test_id("meta")).to_have_text(re.compile("· Sent$"))
    await expect(own.first.get_by_test_id("meta")).not_to_contain_text("Sent")
    shop.network.freeze()
    await here.widget.send("And a third")
    await expect(own.last.get_by_test_id("meta")).to_have_text(re.compile("Sending"))
    shop.network.thaw()
    await expect(own.last.get_by_test_id("meta")).to_have_text(re.compile("· Sent$"))
    await expect(own.nth(1).get_by_test_id("meta")).not_to_contain_text("Sent")
