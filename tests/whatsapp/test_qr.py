"""WhatsApp by QR from end to end: sessions, a human on the telephone, hidden numbers, missing confirmations, pacing."""

import base64
import itertools
from itertools import pairwise

import msgspec
import pytest

from tests.waiting import until
from tests.whatsapp.street import ANA, Open

QR = "WHATSAPP_QR"


async def test_a_human_on_the_telephone_takes_the_conversation_over(street: Open) -> None:
    async with street(QR) as here:
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "DELIVERED"))
        await here.write("I am on it", from_me=True)
        await here.until_ours(("Echo: Hello", "DELIVERED"), ("I am on it", "SENT"))
        await here.write("Thanks!")
        await here.until_at_rest()
        assert await here.texts() == ["Echo: Hello"]
        assert await here.value("SELECT owner FROM conversations") == "HUMAN"


async def test_the_offline_backlog_is_answered(street: Open) -> None:
    async with street(QR) as here:
        await here.write("Are you there?", backlog=True)
        await here.until_seen("Echo: Are you there?")


async def test_a_hidden_number_and_its_phone_are_one_person_answered_where_they_wrote_last(street: Open) -> None:
    async with street(QR) as here:
        await here.write("one", sender=ANA)
        await here.until_at_rest()
        await here.write("two", sender="123456@lid", alt=f"{ANA}@s.whatsapp.net")
        await here.until_at_rest()
        assert [sent.to for sent in await here.seen()] == [f"{ANA}@s.whatsapp.net", "123456@lid"]
        assert await here.value("SELECT count(*) FROM conversations") == 1


async def test_a_number_that_takes_everything_and_confirms_nothing_is_found_out(street: Open) -> None:
    async with street(QR, settings={"degraded_after_s": 0.6, "probe_first_s": 600}) as here:
        await here.configure(acks=False)
        await here.write("Hello")
        await here.until_seen("Echo: Hello")

        async def found() -> bool:
            return await here.events() == ["channel.unhealthy"]

        await until(found)
        assert await here.value("SELECT health_reason FROM channels") == "degraded"
        assert await here.ours() == [("Echo: Hello", "SENDING")], "accepted is not sent"
        await here.write("Anybody?", sender="4915199999999")

        async def held() -> bool:
            return await here.value("SELECT count(*) FROM all_jobs WHERE held_by IS NOT NULL") == 1

        await until(held)
        assert await here.texts() == ["Echo: Hello"]
        await here.configure(acks=True)
        await here.tell("_session", {"session": here.channel.external_id, "state": "open"})
        await here.until_seen("Echo: Hello", "Echo: Anybody?")
        assert await here.events() == ["channel.unhealthy", "channel.healthy"]


async def test_one_confirmation_shows_that_a_number_lives(street: Open) -> None:
    async with street(QR, settings={"degraded_after_s": 2.0, "probe_first_s": 600}) as here:
        await here.configure(acks=False)
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.configure(acks=True)
        senders = itertools.count(4915100000000)
        while not await here.value(
            "SELECT min(accepted_at) < now() - interval '4 seconds' FROM messages WHERE direction = 'OUTBOUND'"
        ):  # until the first has gone without a confirmation for long enough
            await here.write("Hello", sender=str(next(senders)))
            await here.until_at_rest()
        assert await here.events() == []


async def test_a_person_who_may_not_be_written_to_first_is_never_tried_again(street: Open) -> None:
    async with street(QR) as here:
        await here.fault(kind="error", code="restricted", match={"path": "/messages"})
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))
        assert len(await here.sends()) == 1
        assert await here.dead() == [("whatsapp-qr-send", "restricted")]
        assert await here.events() == [], "the number itself works"


async def test_a_refusal_of_whatsapp_itself_is_kept_with_its_code(street: Open) -> None:
    async with street(QR) as here:
        await here.fault(kind="status_failed", code=463, times=1)
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))
        (row,) = await here.rows("SELECT error_reason, error_code FROM messages WHERE status = 'FAILED'")
        assert tuple(row) == ("restricted", 463)


async def test_a_lost_connection_puts_messages_off_without_an_attempt(street: Open) -> None:
    async with street(QR) as here:
        await here.tell("_session", {"session": here.channel.external_id, "state": "closed"})
        await here.write("Hello")

        async def put_off() -> bool:
            return "not_connected" in [
                row["wait_reason"] for row in await here.rows("SELECT wait_reason FROM all_jobs")
            ]

        await until(put_off)
        await here.tell("_session", {"session": here.channel.external_id, "state": "open"})
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        assert await here.value("SELECT max(attempts) FROM all_jobs") == 0
        assert await here.events() == []


async def test_messages_of_one_number_keep_their_distance(street: Open) -> None:
    async with street(QR, config={"messages_per_minute": "240", "signs_of_life": "off"}) as here:
        people = [f"491510000000{number}" for number in range(6)]
        for person in people:
            await here.write("Hello", sender=person)
        await here.until_at_rest()
        times = [sent.at for sent in await here.seen()]
        assert len(times) == len(people)
        gaps = [after - before for before, after in pairwise(times)]
        assert min(gaps) > 0.1, gaps
        assert times[-1] - times[0] > 5 * 0.25 * 0.9, "four a second, give or take what a call takes"
        assert await here.value("SELECT max(attempts) FROM all_jobs") == 0


async def test_a_gateway_that_paces_is_asked_again_at_the_time_it_names(street: Open) -> None:
    async with street(QR, config={"signs_of_life": "off"}) as here:
        await here.configure(pace_ms=300)
        for number in range(4):
            await here.write("Hello", sender=f"491510000000{number}")
        await here.until_at_rest()
        assert len(await here.seen()) == 4
        assert await here.dead() == []
        assert await here.value("SELECT max(attempts) FROM all_jobs") == 0


async def test_messages_of_a_day_are_counted(street: Open) -> None:
    config = {"messages_per_minute": "60000", "messages_per_day": "2"}
    async with street(QR, config=config) as here:
        for number in range(3):
            await here.write("Hello", sender=f"491510000000{number}")

        async def limited() -> bool:
            return len(await here.seen()) == 2 and len(await here.dead()) == 1

        await until(limited)
        assert await here.dead() == [("whatsapp-qr-send", "patience_exhausted")]


async def test_a_session_is_started_paired_shown_and_let_go_over_our_api(street: Open) -> None:
    async with street(QR, settings={"probe_first_s": 600}) as here:
        path = f"/v1/channels/{here.channel.id}/session"
        await here.call("POST", f"{path}/logout")

        async def unhealthy() -> bool:
            return (await here.call("GET", f"/v1/channels/{here.channel.id}")).json["health"] == "UNHEALTHY"

        await until(unhealthy)
        started = await here.call("POST", path)
        assert (started.status, started.json["state"]) == (200, "qr")
        callback = f"/callbacks/whatsapp-qr/{here.channel.channel_key}"
        asked = msgspec.convert((await here.last_call("PUT"))["body"], dict[str, str])
        assert asked["webhook_url"] == here.app.settings.reached_at + callback
        await here.configure(callback_url=here.door.url + callback)  # the test's own port
        picture = await here.call("GET", f"{path}/qr.svg")
        assert (picture.status, picture.headers["content-type"]) == (200, "image/svg+xml")
        assert picture.body.startswith(b"<?xml")
        paired = await here.call("POST", f"{path}/pair", json={"phone": "+4915112345678"})
        code = msgspec.convert(paired.json["pairingCode"], dict[str, object])
        assert code["code"]
        await here.tell("_scan", {"session": here.channel.external_id, "phone": "4915112345678"})
        shown = await here.call("GET", path)
        assert (shown.json["state"], shown.json["phone"]) == ("open", "4915112345678")
        assert (await here.call("GET", f"{path}/qr.svg")).problem == (404, "no_code")
        assert (await here.call("POST", f"{path}/pair", json={"phone": "4915112345678"})).status == 409
        assert (await here.call("POST", f"{path}/restart")).json["state"] == "open"

        async def well() -> bool:
            return (await here.call("GET", f"/v1/channels/{here.channel.id}")).json["health"] == "HEALTHY"

        await until(well)


@pytest.mark.parametrize("state", ["qr", "logged_out", "banned"])
async def test_a_session_that_needs_somebody_raises_the_alarm_before_any_message_is_tried(
    street: Open, state: str
) -> None:
    async with street(QR, settings={"probe_first_s": 600}) as here:
        await here.tell("_session", {"session": here.channel.external_id, "state": state})

        async def told() -> bool:
            return await here.events() == ["channel.unhealthy"]

        await until(told)
        assert await here.sends() == []


PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 300


async def test_a_file_is_fetched_through_the_gateway_and_kept_for_its_customer(street: Open) -> None:
    async with street(QR) as here:
        file = {"data": base64.b64encode(PICTURE).decode(), "mime": "image/jpeg", "filename": "cat.jpg"}
        await here.write("Is this fresh?", type="image", file=file)
        await here.until_seen("Echo: [image] Is this fresh?\n[file name cat.jpg]")
        await here.until_at_rest()
        (row,) = await here.rows("SELECT id, message_id, state, size, mime_type, filename FROM media")
        assert (row["state"], row["size"]) == ("STORED", len(PICTURE))
        assert (row["mime_type"], row["filename"]) == ("image/jpeg", "cat.jpg")
        fetched = await here.call("GET", f"/v1/media/{row['id']}")
        assert (fetched.status, fetched.body) == (200, PICTURE)


async def test_a_file_that_is_not_what_was_announced_is_given_up_and_its_message_is_answered(street: Open) -> None:
    settings = {"queues": {"media-fetch": {"waits_s": [0.01, 0.01], "jitter": 0}}}
    async with street(QR, settings=settings) as here:
        file = {"data": base64.b64encode(PICTURE).decode(), "sha256": "AAAA"}
        await here.write("Look", type="image", file=file)
        await here.until_seen("Echo: [image] Look")

        async def failed() -> bool:
            return await here.value("SELECT state FROM media") == "FAILED"

        await until(failed)
        assert await here.value("SELECT error_reason FROM media") == "attempts_exhausted"


async def test_a_file_goes_out_by_its_link_with_its_caption_and_other_content_in_words(street: Open) -> None:
    async with street(QR) as here:
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        conversation = await here.value("SELECT id FROM conversations")
        media = {"type": "media", "kind": "document", "link": "https://shop.example/menu.pdf", "caption": "Our menu"}
        buttons = {"type": "buttons", "text": "More?", "buttons": [{"id": "y", "title": "Yes"}]}
        for content in (media, buttons):
            answer = await here.call("POST", f"/v1/conversations/{conversation}/messages", json={"content": content})
            assert answer.status in {200, 201, 202}, answer.body
        await here.until_seen("Echo: Hello", "Our menu", "More?\n\n1. Yes")
        sent = {one["text"]: one for one in await here.told("_sent")}
        assert sent["Our menu"]["type"] == "document"
        assert msgspec.convert(sent["Our menu"]["body"], dict[str, object])["link"] == "https://shop.example/menu.pdf"
        assert sent["More?\n\n1. Yes"]["type"] == "text"


async def test_what_a_message_holds_is_kept_and_shown(street: Open) -> None:
    async with street(QR) as here:
        place = {"latitude": 1.25, "longitude": 103.5, "name": "Cafe"}
        await here.write("Cafe", type="location", content={"location": place}, reply_to="3EB0Q")
        await here.until_seen("Echo: [location] Cafe (1.25, 103.5)")
        conversation = await here.value("SELECT id FROM conversations")
        listed = await here.call("GET", f"/v1/messages?conversationId={conversation}")
        bodies = [one["body"] for one in listed.entries if one["body"]]
        assert bodies == [{"location": place, "quoted": {"externalId": "3EB0Q"}}]
