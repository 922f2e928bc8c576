"""What both channels promise, shown on each."""

import pytest

from replyline.channels import CHANNELS
from tests.waiting import until
from tests.whatsapp.street import ANA, Kind, Open

BOTH = pytest.mark.parametrize("kind", ["WHATSAPP_CLOUD", "WHATSAPP_QR"])


@BOTH
async def test_a_message_is_answered_and_its_status_followed(street: Open, kind: Kind) -> None:
    async with street(kind, statuses=("sent", "delivered", "read")) as here:
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "READ"))
        await here.until_at_rest()
        assert len(await here.sends()) == 1
        facts = await here.rows("SELECT kind, count(*) FROM usage_logs GROUP BY 1 ORDER BY 1")
        billed = {row["kind"]: row["count"] for row in facts}
        assert billed["message_sent"] == billed["message_received"] == billed["ai_answer"] == 1
        assert billed.get("whatsapp_pricing", 0) == (1 if kind == "WHATSAPP_CLOUD" else 0)


@BOTH
async def test_a_status_that_comes_before_the_sends_own_answer_counts(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.fault(kind="status_first")
        if kind == "WHATSAPP_CLOUD":
            await here.configure(echo_our_id=False)
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "DELIVERED"))
        await here.until_at_rest()
        assert len(await here.sends()) == 1
        assert await here.value("SELECT count(*) FROM parked_statuses") == 0


@BOTH
async def test_a_send_cut_off_after_it_was_taken_is_not_repeated(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.fault(kind="cut_after_accept", times=1, match={"path": "/messages", "contains": "Echo"})
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "DELIVERED"))
        await here.until_at_rest()
        assert await here.texts() == ["Echo: Hello"]


@BOTH
async def test_a_server_error_in_html_is_tried_again(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.fault(kind="error", status=502, body="<html>Bad Gateway</html>", times=2, match={"contains": "Echo"})
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        assert [call["status"] for call in await here.sends()] == [502, 502, 200 if kind == "WHATSAPP_CLOUD" else 202]


@BOTH
async def test_the_person_sees_that_an_answer_is_written_while_it_is_and_not_after(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.fault("openai", kind="slow", seconds=0.5)
        message_id = await here.write("Hello")
        await here.until_seen("Echo: Hello")
        (sent,) = await here.seen()
        if kind == "WHATSAPP_CLOUD":
            (sign,) = await here.told("_read")
            assert (sign["message_id"], sign["typing"]) == (message_id, True)
            assert float(str(sign["at"])) < sent.at
        else:
            signs = [(sign["kind"], sign["on"]) for sign in await here.told("_presence")]
            assert signs == [("read", None), ("typing", True), ("typing", False)]


@BOTH
async def test_a_sign_of_life_is_given_again_while_the_answer_takes_long(
    street: Open, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(CHANNELS[kind]), "sign_every_s", 0.2)  # 20 s at Meta, 8 s at the gateway
    async with street(kind) as here:
        await here.fault("openai", kind="slow", seconds=1.0)
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        signs = await here.told("_read" if kind == "WHATSAPP_CLOUD" else "_presence")
        typing = [sign for sign in signs if sign.get("typing") or sign.get("on")]
        assert 4 <= len(typing) <= 7
        (sent,) = await here.seen()
        assert all(float(str(sign["at"])) < sent.at for sign in typing)


@BOTH
async def test_signs_of_life_that_fail_fail_nothing(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        for match in ({"contains": '"status":"read"'}, {"path": "/typing"}, {"path": "/read"}):
            await here.fault(kind="error", status=500, match=match)
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        assert await here.dead() == []


@BOTH
async def test_a_channel_set_so_gives_no_signs_of_life(street: Open, kind: Kind) -> None:
    async with street(kind, config={"signs_of_life": "off"}) as here:
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        assert await here.told("_read" if kind == "WHATSAPP_CLOUD" else "_presence") == []


@BOTH
async def test_an_answer_may_quote_the_message_it_is_to(street: Open, kind: Kind) -> None:
    async with street(kind, config={"quote_replies": "on"}) as here:
        message_id = await here.write("Hello")
        await here.until_seen("Echo: Hello")
        (sent,) = await here.seen()
        assert sent.context == message_id


@BOTH
async def test_the_models_markdown_arrives_in_whatsapps_marks(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.write("**Hours** and [a link](https://x.example/y)")
        await here.until_seen("Echo: *Hours* and a link (https://x.example/y)")


@BOTH
async def test_an_edited_message_is_answered_as_edited_and_a_deleted_one_not_at_all(street: Open, kind: Kind) -> None:
    async with street(kind, bot={"quiet_window_whatsapp_s": 0.8}) as here:
        first = await here.write("Open at 6?")
        second = await here.write("Never mind", sender="4915199999999")
        if kind == "WHATSAPP_CLOUD":
            edit = {"original_message_id": first, "message": {"type": "text", "text": {"body": "Open at 7?"}}}
            await here.do({"type": "edit", "edit": edit})
            await here.do({"type": "revoke", "revoke": {"original_message_id": second}}, sender="4915199999999")
        else:
            await here.write("Open at 7?", type="edit", target=first)
            await here.write("", type="revoke", target=second, sender="4915199999999")
        await here.until_seen("Echo: Open at 7?")
        await here.until_at_rest()
        assert await here.texts() == ["Echo: Open at 7?"]


@BOTH
async def test_a_channel_that_is_down_holds_its_messages_and_sends_them_once_it_is_mended(
    street: Open, kind: Kind
) -> None:
    async with street(kind, settings={"probe_first_s": 600}) as here:
        if kind == "WHATSAPP_CLOUD":
            await here.configure(refuse_with=131042)
        else:
            await here.tell("_session", {"session": here.channel.external_id, "state": "logged_out"})
        people = [f"49151000000{number:02}" for number in range(10)]
        for person in people:
            await here.write("Hello", sender=person)
        held = "SELECT count(*) FROM all_jobs WHERE held_by IS NOT NULL"

        async def all_held() -> bool:
            return await here.value(held) == len(people)

        await until(all_held)
        channel = (await here.call("GET", f"/v1/channels/{here.channel.id}")).json
        why = "payment_problem" if kind == "WHATSAPP_CLOUD" else "session_logged_out"
        assert (channel["health"], channel["healthReason"]) == ("UNHEALTHY", why)
        asked = len(await here.sends())
        await here.write("Still there?", sender="4915100000099")

        async def one_more_held() -> bool:
            return await here.value(held) == len(people) + 1

        await until(one_more_held)
        assert len(await here.sends()) == asked, "no call is made while the channel is down"
        assert await here.dead() == []
        if kind == "WHATSAPP_CLOUD":
            await here.configure(refuse_with=None)
            resumed = await here.call("POST", f"/v1/channels/{here.channel.id}/resume")
            assert resumed.json["health"] == "HEALTHY"
        else:
            await here.tell("_scan", {"session": here.channel.external_id})

        async def all_seen() -> bool:
            return len(await here.texts()) == len(people) + 1

        await until(all_seen)
        await here.until_at_rest()
        assert sorted(await here.texts()) == sorted(["Echo: Hello"] * len(people) + ["Echo: Still there?"])
        assert await here.events() == ["channel.unhealthy", "channel.healthy"]
        assert await here.value("SELECT max(attempts) FROM all_jobs") == 0, "waiting is not failing"


@BOTH
async def test_a_channel_that_is_mended_goes_on_by_itself(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        if kind == "WHATSAPP_CLOUD":
            await here.configure(refuse_with=131042)
        else:
            await here.configure(state="banned")
        await here.write("Hello")

        async def down() -> bool:
            return (await here.events()) == ["channel.unhealthy"]

        await until(down)
        await here.configure(**({"refuse_with": None} if kind == "WHATSAPP_CLOUD" else {"state": "open"}))
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        assert await here.events() == ["channel.unhealthy", "channel.healthy"]


@BOTH
async def test_what_a_channel_held_for_too_long_is_given_up_with_its_reason(street: Open, kind: Kind) -> None:
    async with street(kind, settings={"hold_at_most_s": 0.3, "probe_first_s": 600}) as here:
        await here.configure(**({"refuse_with": 131031} if kind == "WHATSAPP_CLOUD" else {"state": "banned"}))
        await here.write("Hello")
        await here.until_ours(("Echo: Hello", "FAILED"))
        assert [reason for _, reason in await here.dead()] == ["channel_unhealthy"]


@BOTH
async def test_a_human_of_the_business_says_something_and_the_bot_is_silent(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.write("Hello")
        await here.until_seen("Echo: Hello")
        await here.until_at_rest()
        conversation = await here.value("SELECT id FROM conversations")
        path = f"/v1/conversations/{conversation}/messages"
        buttons = {
            "type": "buttons",
            "text": "Which?",
            "buttons": [{"id": "a", "title": "A"}, {"id": "b", "title": "B"}],
        }
        for body in ({"text": "A human here.", "clientId": "1"}, {"text": "A human here.", "clientId": "1"}):
            assert (await here.call("POST", path, json=body)).status in {200, 202}
        assert (await here.call("POST", path, json={"content": buttons})).status == 202
        await here.until_at_rest()
        which = "Which?" if kind == "WHATSAPP_CLOUD" else "Which?\n\n1. A\n2. B"
        assert await here.texts() == ["Echo: Hello", "A human here.", which]
        await here.write("Thanks")
        await here.until_at_rest()
        assert len(await here.texts()) == 3
        owner = await here.call("PUT", f"/v1/conversations/{conversation}/owner", json={"owner": "BOT"})
        assert owner.json["owner"] == "BOT"
        await here.write("Are you there?")
        await here.until_seen("Echo: Hello", "A human here.", which, "Echo: Are you there?")


@BOTH
async def test_forged_and_replayed_callbacks_leave_nothing_behind(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.write("Hello", message_id="once")
        await here.until_at_rest()
        await here.write("Hello", message_id="once", times=3)
        path = f"/callbacks/{kind.lower().replace('_', '-')}/{here.channel.channel_key}"
        for headers in ({}, {"X-Hub-Signature-256": "sha256=00", "X-Gateway-Signature": "v1=00"}):
            answer = await here.door.call("POST", path, data=b'{"object": "x", "entry": []}', headers=headers)
            assert answer.problem == (401, "forged")
        await here.until_at_rest()
        assert await here.value("SELECT count(*) FROM messages") == 2
        assert await here.value("SELECT count(*) FROM unread_callbacks") == 0
        assert await here.texts() == ["Echo: Hello"]


@BOTH
async def test_whoever_writes_is_answered_at_their_own_address(street: Open, kind: Kind) -> None:
    async with street(kind) as here:
        await here.write("Hello", sender=ANA)
        await here.until_at_rest()
        (sent,) = await here.seen()
        assert sent.to.lstrip("+").removesuffix("@s.whatsapp.net") == ANA
