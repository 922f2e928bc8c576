"""WhatsApp Cloud from end to end: the window, limits, unknown outcomes, identities, all that a callback may bring."""

import asyncio
import time
import uuid

import msgspec
import pytest

from replyline.store.database import Database
from tests.make import CLOUD_SECRETS, make_channel
from tests.waiting import until
from tests.whatsapp.street import ANA, Open, Street

CLOUD = "WHATSAPP_CLOUD"


async def test_an_answer_too_long_for_one_message_goes_out_in_parts_and_in_order(street: Open) -> None:
    async with street(CLOUD, bot={"max_output_tokens": 100_000}) as here:
        answer = "\n\n".join(f"Paragraph {number}. " + "word " * 150 for number in range(14))
        await here.tell("_configure", {"reply": answer}, standin="openai")
        await here.write("Tell me all of it")
        await here.until_at_rest()
        parts = await here.texts()
        assert len(parts) == 3
        assert all(len(part) <= 4096 for part in parts)
        assert "\n\n".join(parts).split() == answer.split()

        async def delivered() -> bool:
            return [status for _, status in await here.ours()] == ["DELIVERED"] * 3

        await until(delivered)


async def test_outside_the_24_hours_nothing_is_sent_and_the_reason_is_told(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.write("Hello", timestamp=time.time() - 23 * 3600 - 56 * 60)  # the margin is 5 minutes
        await here.until_ours(("Echo: Hello", "BLOCKED_WINDOW"))
        await here.until_at_rest()
        assert await here.sends() == []
        assert await here.value("SELECT error_reason FROM messages WHERE direction = 'OUTBOUND'") == "window_closed"
        assert await here.dead() == []
        await here.write("Are you there?")
        await here.until_seen("Echo: Are you there?")


async def test_the_answers_of_a_form_and_what_was_replied_to_reach_the_model(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        (sent,) = await here.seen()
        form = {"name": "flow", "body": "Sent", "response_json": '{"flow_token": "t", "slot": {"day": "Monday"}}'}
        await here.do(
            {
                "type": "interactive",
                "interactive": {"type": "nfm_reply", "nfm_reply": form},
                "context": {"id": sent.id, "from": "15550783881"},
            }
        )
        await here.until_seen("Echo: Hello", 'Echo: [in reply to: "Echo: Hello"]\nSent\nslot.day: Monday')
        body = await here.value("SELECT body -> 'form' ->> 'answers' FROM messages WHERE body ? 'form'")
        assert msgspec.json.decode(str(body)) == {"flow_token": "t", "slot": {"day": "Monday"}}


async def test_outside_the_24_hours_the_channels_template_takes_the_texts_place(street: Open) -> None:
    config = {"fallback_template": "please_write", "fallback_language": "de", "fallback_parameter": "text"}
    async with street(CLOUD, config=config) as here:
        await here.write("Hello", timestamp=time.time() - 25 * 3600)
        await here.until_ours(("Echo: Hello", "DELIVERED"))
        (sent,) = await here.seen()
        assert (sent.type, sent.text) == ("template", "please_write")
        assert msgspec.json.encode(sent.body).count(b"Echo: Hello") == 1
        assert (
            await here.value("SELECT sent_as FROM messages WHERE direction = 'OUTBOUND'")
            == "template please_write (de)"
        )


async def test_a_window_that_only_meta_saw_closed_is_answered_with_the_template_once(street: Open) -> None:
    async with street(CLOUD, config={"fallback_template": "please_write"}) as here:
        await here.fault(kind="status_failed", code=131047, times=1)
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"), ("[please_write]", "DELIVERED"))
        await here.until_at_rest()
        assert [sent.type for sent in await here.seen()] == ["template"]
        (row,) = await here.rows("SELECT error_code, error_title, error_detail FROM messages WHERE status = 'FAILED'")
        assert (row["error_code"], row["error_title"]) == (131047, "Re-engagement message")


async def test_one_recipients_limit_does_not_delay_another(street: Open) -> None:
    async with street(CLOUD, config={"pair_interval_s": "1.5", "pair_burst": "1"}) as here:
        await here.configure(pair={"burst": 1, "every_s": 1.5})
        await here.write("one")
        await here.until_seen("Echo: one")
        await here.write("two")
        await here.write("hello", sender="4915199999999")
        await here.until_seen("Echo: one", "Echo: hello", "Echo: two")
        await here.until_at_rest()
        first, other, second = await here.seen()
        assert second.at - first.at >= 1.4
        assert other.at < second.at
        assert (await _limits(here))["pair_refused"] == 0, "our own limit comes before Meta's"
        assert await here.value("SELECT max(attempts) FROM all_jobs") == 0


async def test_a_pair_that_meta_finds_too_fast_waits_longer_each_time_without_an_attempt(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.fault(kind="error", code=131056, times=1, match={"contains": "Echo"})
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        assert await here.value("SELECT max(attempts) FROM all_jobs") == 0
        refused, taken = await here.sends()
        waited = float(str(taken["at"])) - float(str(refused["at"]))
        assert waited >= 0.95


async def test_the_outcome_that_no_status_tells_is_tried_once_more(street: Open) -> None:
    async with street(CLOUD, statuses=()) as here:
        await here.fault(kind="cut_after_accept", times=1, match={"contains": "Echo"})
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "SENT"))
        await here.until_at_rest()
        assert await here.texts() == ["Echo: Hello", "Echo: Hello"], "silence would be worse"
        assert [call["status"] for call in await here.sends()] == [None, 200]


async def test_a_customer_may_prefer_silence_to_a_message_that_comes_twice(street: Open) -> None:
    async with street(CLOUD, config={"on_unknown": "fail"}, statuses=()) as here:
        await here.fault(kind="cut_after_accept", times=1, match={"contains": "Echo"})
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))
        assert len(await here.sends()) == 1
        assert await here.dead() == [("whatsapp-cloud-send", "outcome_unknown")]


async def test_a_code_is_tried_as_often_as_it_is_worth(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.fault(kind="error", code=135000, match={"contains": "Echo"})
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))
        assert len(await here.sends()) == 2


async def test_a_payment_problem_told_by_a_status_stops_the_channel(street: Open) -> None:
    async with street(CLOUD, settings={"probe_first_s": 600}) as here:
        await here.fault(kind="status_failed", code=131042, times=1)
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))

        async def told() -> bool:
            return await here.events() == ["channel.unhealthy"]

        await until(told)
        assert await here.value("SELECT health_reason FROM channels") == "payment_problem"


async def test_what_cannot_be_read_is_apologised_for(street: Open) -> None:
    async with street(CLOUD, bot={"unsupported_text": "Please write that as text."}) as here:
        for _ in range(3):
            await here.do({"type": "unsupported", "errors": [{"code": 131051, "title": "Unsupported"}]})
        await here.until_seen("Please write that as text.")
        await here.until_at_rest()
        assert len(await here.seen()) == 1


async def test_a_reaction_is_not_answered(street: Open) -> None:
    async with street(CLOUD) as here:
        first = await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.do({"type": "reaction", "reaction": {"message_id": first, "emoji": "👍"}})
        await here.until_at_rest()
        assert await here.texts() == ["Echo: Hello"]
        assert await here.value("SELECT content FROM messages WHERE content_type = 'reaction'") == "[reaction] 👍"


async def test_a_person_without_a_phone_number_is_answered_by_user_id_and_later_recognised(street: Open) -> None:
    async with street(CLOUD) as here:
        body = {"phone_number_id": here.channel.external_id, "text": "Hello", "user_id": "US.1349", "id": "b-1"}
        await here.tell("_inbound", body)
        await here.until_seen("Echo: Hello")
        assert (await here.seen())[0].to == "US.1349"
        await here.until_at_rest()
        await here.write("Again", user_id="US.1349")
        await here.until_seen("Echo: Hello", "Echo: Again")
        await here.until_at_rest()
        await here.write("Without the id")
        await here.until_at_rest()
        assert await here.value("SELECT count(*) FROM conversations") == 1
        assert await here.value("SELECT count(*) FROM contact_identities") == 2


async def test_a_person_who_changes_their_number_goes_on_where_they_were(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.write("Hello")
        await here.until_at_rest()
        system = {"type": "user_changed_number", "wa_id": "4915177777777", "body": "Ana changed her number"}
        await here.do({"type": "system", "system": system})
        await here.until_at_rest()
        await here.write("It is me", sender="4915177777777")
        await here.until_seen("Echo: Hello", "Echo: It is me")
        assert await here.value("SELECT count(*) FROM conversations") == 1
        assert (await here.seen())[-1].to == "4915177777777"


async def test_a_user_id_update_renames_a_person(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.tell(
            "_inbound", {"phone_number_id": here.channel.external_id, "text": "Hi", "user_id": "US.1", "id": "b-1"}
        )
        await here.until_at_rest()
        update = {"user_id_update": [{"user_id": {"previous": "US.1", "current": "US.2"}, "timestamp": "1764000000"}]}
        body = {"phone_number_id": here.channel.external_id, "field": "user_id_update", "value": update}
        await here.tell("_inbound", body)
        await here.until_at_rest()
        names = await here.rows("SELECT kind, value FROM contact_identities")
        assert [tuple(row) for row in names] == [("bsuid", "US.2")]


async def test_a_message_from_the_business_app_on_the_same_number_takes_over(street: Open) -> None:
    async with street(CLOUD) as here:
        await here.write("Hello")
        await here.until_at_rest()
        echo = {"from": "15550783881", "to": ANA, "id": "wamid.E", "type": "text", "text": {"body": "I am on it"}}
        body = {
            "phone_number_id": here.channel.external_id,
            "field": "smb_message_echoes",
            "value": {"message_echoes": [echo]},
        }
        await here.tell("_inbound", body)
        await here.until_ours(("Echo: Hello", "DELIVERED"), ("I am on it", "SENT"))
        await here.write("Thanks")
        await here.until_at_rest()
        assert await here.texts() == ["Echo: Hello"]


async def test_one_bad_item_in_a_thousand_blocks_no_other(street: Open) -> None:
    async with street(CLOUD) as here:
        value = {"metadata": {"phone_number_id": here.channel.external_id, "display_phone_number": "1"}}
        good = [_text(number) for number in range(200)]
        bad: list[object] = [None, 7, {}, {"id": "x"}, {"id": "y", "from": "1", "type": "hologram"}, {"id": 3}]
        messages = [item for pair in zip(good, bad * 50, strict=False) for item in pair]
        statuses: list[object] = [{"id": "wamid.none", "status": "sent"}, {"status": "sent"}, "x"]
        body = {
            "object": "whatsapp_business_account",
            "entry": [
                None,
                {"changes": [None, {"field": "messages", "value": {**value, "messages": messages}}]},
                {"changes": [{"field": "messages", "value": {**value, "statuses": statuses}}]},
                {"changes": [{"field": "account_update", "value": {**value, "event": "VERIFIED_ACCOUNT"}}]},
            ],
        }
        answer = await here.tell("_post", {"phone_number_id": here.channel.external_id, "body": body})
        assert msgspec.convert(answer, dict[str, object])["status"] == 200
        await here.until_at_rest(timeout_s=60)
        seen = await here.texts()
        assert sorted(seen) == sorted(f"Echo: q{number}" for number in range(200))
        reasons = {row["reason"] for row in await here.rows("SELECT DISTINCT reason FROM unread_callbacks")}
        assert {
            "a message cannot be read",
            "a change of the field account_update",
            "a status cannot be read",
        } <= reasons
        listed = await here.call("GET", f"/v1/channels/{here.channel.id}/unread-callbacks?limit=200")
        assert len(listed.entries) == 200


async def test_two_numbers_of_one_business_are_served_by_one_callback(street: Open, database: Database) -> None:
    async with street(CLOUD) as here:
        config = {"graph_base": here.standins.urls["whatsapp_cloud"]}
        sister = await make_channel(database, here.chatbot, "WHATSAPP_CLOUD", config=config)
        number: dict[str, object] = {
            "access_token": CLOUD_SECRETS["access_token"],
            "app_secret": CLOUD_SECRETS["app_secret"],
            "callback_url": f"{here.door.url}/callbacks/whatsapp-cloud/{sister.channel_key}",
            "waba_id": "999",
        }
        await here.tell("_configure", {"numbers": {sister.external_id: number}})
        also = [{"phone_number_id": sister.external_id, "from": "4915188888888", "text": "two", "id": "s-1"}]
        await here.write("one", also=also)
        await here.until_at_rest()
        assert sorted(await here.texts()) == ["Echo: one", "Echo: two"]
        rows = await here.rows("SELECT channel_id, content FROM messages WHERE direction = 'INBOUND'")
        assert {(row["channel_id"], row["content"]) for row in rows} == {(here.channel.id, "one"), (sister.id, "two")}


async def test_a_pair_limit_and_a_number_limit_are_kept_under_a_flood(street: Open) -> None:
    async with street(CLOUD, config={"messages_per_second": "40"}) as here:
        await here.configure(messages_per_second=44)
        people = [f"4915100{number:06}" for number in range(120)]
        await asyncio.gather(*(here.write("Hello", sender=person) for person in people))
        await here.until_at_rest(timeout_s=40)
        seen = await here.seen()
        assert sorted(sent.to for sent in seen) == sorted(people)
        assert (await _limits(here))["throughput_refused"] == 0
        took = seen[-1].at - seen[0].at
        assert len(seen) <= 40 + 40 * took * 1.05, "a burst of one second's worth, then the rate"


async def _limits(here: Street) -> dict[str, int]:
    url = here.standins.urls["whatsapp_cloud"]
    async with here.door.http.get(f"{url}/_limits") as response:
        found = msgspec.json.decode(await response.read(), type=dict[str, dict[str, int]])
    return found[here.channel.external_id]


def _text(number: int) -> dict[str, object]:
    return {
        "id": f"wamid.{uuid.uuid4().hex}",
        "from": f"4915100{number:06}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": f"q{number}"},
    }


@pytest.mark.parametrize("kind", ["status_failed", "error"])
async def test_who_is_refused_for_having_stopped_marketing_is_opted_out_and_told_once(street: Open, kind: str) -> None:
    """Failed before: the message was FAILED as opted_out, and its contact was not. Meta says so at once or by a status."""
    async with street(CLOUD) as here:
        await here.fault(kind=kind, code=131050, times=1, match={"contains": "Echo"})
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))
        assert await here.value("SELECT marketing_opted_out FROM contacts") is True
        assert await here.value("SELECT marketing_changed_at <= now() FROM contacts") is True
