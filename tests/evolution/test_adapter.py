"""What Replyline hears of Evolution through the adapter: our contract, each send once, nothing lost."""

import asyncio
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
import pytest

from replyline.channels import CHANNELS, Outgoing
from replyline.errors import JobError, Permanent, RateLimited
from replyline.ids import new_id
from replyline.standins.evolution import EvolutionStandin
from tests.evolution.scene import ANA, JID, TOKEN, Hook, Scene, account_at
from tests.standins.side import Side
from tests.waiting import until
from tests.web.conftest import free_port


async def test_our_channel_sends_through_evolution_and_hears_of_it(scene: Scene) -> None:
    message = Outgoing(new_id(), JID, "Hello", quotes="3EB0Q")
    accepted = await CHANNELS["WHATSAPP_QR"].send(scene.account, message, scene.http)
    assert await CHANNELS["WHATSAPP_QR"].send(scene.account, message, scene.http) == accepted
    (sent,) = await scene.evolution.sent()
    assert (sent.to, sent.text, sent.id) == (JID, "Hello", accepted.external_id)
    await until(lambda: len(scene.hook.of("status")) == 2)
    assert [(status["status"], status["message_id"]) for status in scene.hook.of("status")] == [
        ("sent", str(message.message_id)),
        ("delivered", str(message.message_id)),
    ]
    await CHANNELS["WHATSAPP_QR"].check(scene.account, scene.http)


async def test_a_message_of_a_person_is_told_once_with_both_addresses(scene: Scene) -> None:
    await scene.hear(**{"from": "123@lid"}, text="Hi", id="A1", alt=JID, times=3)
    await until(lambda: scene.hook.of("message"))
    (told,) = scene.hook.of("message")
    assert (told["id"], told["from"], told["alt"], told["from_me"], told["text"]) == ("A1", "123@lid", JID, False, "Hi")


async def test_groups_history_and_own_sends_are_not_told_and_a_human_on_the_telephone_is(scene: Scene) -> None:
    _, sent = await scene.send("Hello", "k1")
    await scene.hear(**{"from": "1203@g.us"}, text="a group", id="G1")
    await scene.hear(**{"from": JID}, text="old", id="H1", age_s=7200)
    await scene.hear(**{"from": JID}, text="Hello", id=str(sent["wa_id"]), from_me=True)
    await scene.hear(**{"from": JID}, text="I am on it", id="P1", from_me=True)
    await until(lambda: scene.hook.of("message"))
    assert [(told["id"], told["from_me"]) for told in scene.hook.of("message")] == [("P1", True)]


@pytest.mark.parametrize(
    ("code", "status", "contract"),
    [
        ("Connection Closed", 400, (409, "not_connected")),
        ("rate-overlimit", 400, (429, "paced")),
        ("Unauthorized", 401, (503, "unavailable")),
        ("gone", 404, (404, "unknown_session")),
    ],
)
async def test_the_400_for_everything_is_told_apart(
    scene: Scene, code: str, status: int, contract: tuple[int, str]
) -> None:
    await scene.evolution.fault("error", code=code, status=status, match={"path": "/sendText"}, times=1)
    answered, body = await scene.send("Hello", "k1")
    assert (answered, msgspec.convert(body["error"], dict[str, object])["code"]) == contract
    assert (await scene.send("Hello", "k1"))[0] == 202, "the key is free again: nothing went out"


async def test_an_error_thrown_somewhere_in_a_send_says_nothing_and_evolution_has_a_while_to_report(
    scene: Scene,
) -> None:
    await scene.evolution.fault("error", code="something odd", status=400, match={"path": "/sendText"}, times=1)
    for _ in range(2):
        status, body = await scene.send("Hello", "k1")
        assert (status, msgspec.convert(body["error"], dict[str, object])["code"]) == (409, "in_flight")
    assert await scene.evolution.sent() == []

    async def taken() -> bool:
        return (await scene.send("Hello", "k1"))[0] == 202

    await until(taken)
    assert len(await scene.evolution.sent()) == 1


async def test_a_finished_key_is_answered_alike_whatever_happened_since(scene: Scene) -> None:
    _, first = await scene.send("Hello", "k1")
    await scene.hear(event="connection.update", data={"state": "close", "statusReason": 401})
    again = {"to": ANA, "type": "text", "text": "Hello", "typing_ms": 5}
    assert await scene.call("POST", "/messages", again, "k1") == (200, first)


async def test_what_is_told_late_of_the_connection_changes_nothing(scene: Scene) -> None:
    url = await scene.webhook()
    for at, state, reason in (("2026-11-24T10:00:02Z", "open", 200), ("2026-11-24T10:00:01Z", "close", 401)):
        data = {"state": state, "statusReason": reason}
        body = {"event": "connection.update", "instance": "shop", "date_time": at, "data": data}
        async with scene.http.post(url[0], json=body, headers=url[1]) as response:
            assert response.status == 200
    assert (await scene.call("GET"))[1]["state"] == "open"


async def test_an_open_session_is_found_though_its_webhook_was_lost(scene: Scene) -> None:
    await scene.hear(event="connection.update", data={"state": "close", "statusReason": 428})
    await scene.evolution.tell("/_configure", {"instances": {"shop": {"state": "open"}}})
    assert (await scene.call("GET"))[1]["state"] == "open"


async def test_a_session_that_is_lost_can_be_restarted(scene: Scene) -> None:
    await scene.hear(event="connection.update", data={"state": "close", "statusReason": 428})
    status, restarted = await scene.call("POST", "/restart")
    assert (status, restarted["state"]) == (200, "qr")


async def test_disappearing_messages_are_read_and_whatsapps_own_notes_are_not_told(scene: Scene) -> None:
    key = {"remoteJid": JID, "fromMe": False}
    note = {"key": {**key, "id": "P1"}, "message": {"protocolMessage": {"type": 3}}}
    gone = {"key": {**key, "id": "E1"}, "message": {"ephemeralMessage": {"message": {"conversation": "psst"}}}}
    for data in (note, gone):
        await scene.hear(event="messages.upsert", data=data)
    await scene.hear(
        event="messages.edited", data={"key": {**key, "id": "E1"}, "editedMessage": {"conversation": "ssh"}}
    )
    await until(lambda: len(scene.hook.of("message")) == 2)
    assert [(told["type"], told["text"]) for told in scene.hook.of("message")] == [("text", "psst"), ("edit", "ssh")]


async def test_a_body_too_large_is_refused_in_the_contracts_words(scene: Scene) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "k1"}
    url = f"{scene.adapter_url}/v1/sessions/shop/messages"
    async with scene.http.post(url, data=io.BytesIO(b"x" * 4_100_000), headers=headers) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "too_large"


async def test_a_number_without_whatsapp_is_refused_for_good(scene: Scene) -> None:
    await scene.evolution.tell("/_configure", {"instances": {"shop": {"numbers_without_whatsapp": [ANA]}}})
    with pytest.raises(Permanent) as raised:
        await CHANNELS["WHATSAPP_QR"].send(scene.account, Outgoing(new_id(), JID, "Hello"), scene.http)
    assert raised.value.reason == "not_on_whatsapp"


@pytest.mark.parametrize("fault", [{"kind": "cut_after_accept"}, {"kind": "slow", "seconds": 3}])
async def test_a_send_whose_answer_is_lost_is_recognised_by_what_evolution_reports(
    scene: Scene, fault: dict[str, object]
) -> None:
    await scene.evolution.tell("/_faults", {**fault, "times": 1, "match": {"path": "/sendText"}})
    message = Outgoing(new_id(), JID, "Hello")
    accepted = await _send_until_taken(scene, message)
    assert accepted
    assert len(await scene.evolution.sent()) == 1


async def test_a_lost_answer_that_evolution_never_reports_is_sent_again_after_a_while(scene: Scene) -> None:
    await scene.evolution.tell("/_configure", {"instances": {"shop": {"reports_own_sends": False}}})
    await scene.evolution.fault("cut_after_accept", times=1, match={"path": "/sendText"})
    await _send_until_taken(scene, Outgoing(new_id(), JID, "Hello"))
    assert len(await scene.evolution.sent()) == 2


async def test_a_key_is_for_one_message(scene: Scene) -> None:
    await scene.send("Hello", "k1")
    status, body = await scene.send("Something else", "k1")
    assert (status, msgspec.convert(body["error"], dict[str, object])["code"]) == (422, "key_reused")


async def test_a_session_goes_through_its_states(scene: Scene) -> None:
    assert (await scene.call("GET"))[1]["state"] == "open"
    assert (await scene.call("POST", "/pair", {"phone": ANA}))[0] == 409
    await scene.hear(event="connection.update", data={"state": "close", "statusReason": 401})
    assert (await scene.call("GET"))[1]["state"] == "logged_out"
    assert (await scene.send("Hello", "k9"))[0] == 410
    status, paired = await scene.call("POST", "/pair", {"phone": ANA})
    assert status == 200
    assert msgspec.convert(paired["pairing_code"], dict[str, object])["code"] == "WZYEH1YY"
    await until(lambda: {"open", "logged_out", "qr"} <= {str(told["state"]) for told in scene.hook.of("session")})
    assert (await scene.call("POST", "/logout"))[1]["state"] == "logged_out"
    assert (await scene.call("DELETE"))[0] == 204
    assert (await scene.call("GET"))[0] == 404


async def test_edits_and_deletions_are_told(scene: Scene) -> None:
    key = {"remoteJid": JID, "fromMe": False, "id": "A1"}
    await scene.hear(event="messages.edited", data={"key": key, "message": {"conversation": "new words"}})
    await scene.hear(event="messages.delete", data=key)
    await until(lambda: len(scene.hook.of("message")) == 2)
    told = [(one["type"], one["target"], one["text"]) for one in scene.hook.of("message")]
    assert told == [("edit", "A1", "new words"), ("revoke", "A1", "")]


async def test_whoever_does_not_know_the_secret_is_not_heard(scene: Scene) -> None:
    body = {"event": "messages.upsert", "instance": "shop", "data": {}}
    async with scene.http.post(f"{scene.adapter_url}/evolution/guessed", json=body) as response:
        assert response.status == 401
    async with scene.http.post((await scene.webhook())[0], json=body) as response:
        assert response.status == 401, "the path alone is not enough"
    assert scene.hook.of("message") == []


async def test_what_cannot_be_read_is_answered_200_so_that_evolution_goes_on(scene: Scene) -> None:
    assert await scene.hear(event="messages.upsert", data={"key": 7}) == 200
    assert await scene.hear(**{"from": JID}, text="Hi", id="A1") == 200
    await until(lambda: scene.hook.of("message"))


async def test_an_event_that_is_refused_again_and_again_does_not_hold_up_the_others(scene: Scene) -> None:
    scene.hook.status = 422
    await scene.hear(**{"from": JID}, text="bad", id="A1")
    waiting = "waiting_events"

    async def aside() -> bool:
        return (await scene.call("GET"))[1][waiting] == 0

    await until(aside)
    scene.hook.status = 200
    await scene.hear(**{"from": JID}, text="good", id="A2")
    await until(lambda: [told["text"] for told in scene.hook.of("message")] == ["good"])


@pytest.mark.parametrize("token", ["", "Bearer wrong"])
async def test_nobody_speaks_to_the_adapter_without_its_token(scene: Scene, token: str) -> None:
    async with scene.http.get(f"{scene.adapter_url}/v1/sessions/shop", headers={"Authorization": token}) as response:
        assert response.status == 401


async def test_an_adapter_killed_in_the_middle_of_50_sends_loses_and_doubles_nothing(
    tmp_path: Path, hook: Hook
) -> None:
    standin = EvolutionStandin()
    await standin.start("127.0.0.1", 0)
    port = free_port()
    async with aiohttp.ClientSession() as http:
        process = await asyncio.to_thread(_start, standin, tmp_path, port)
        url = f"http://127.0.0.1:{port}"
        account = account_at(url)
        scene = Scene(Side(standin.url, http), url, http, hook, account)
        await scene.pair()
        await scene.evolution.tell("/_configure", {"retry": {"tries": 14}})
        await scene.evolution.fault("slow", seconds=0.2, match={"path": "/sendText"})
        messages = [Outgoing(new_id(), f"49151{number:08}@s.whatsapp.net", f"m{number}") for number in range(50)]
        sending = [asyncio.create_task(_send_until_taken(scene, message, tries=400)) for message in messages]
        await until(lambda: _count(scene, 10))
        process.kill()
        process.wait(10)
        again = await asyncio.to_thread(_start, standin, tmp_path, port)
        try:
            await asyncio.gather(*sending)
            seen = Counter(sent.text for sent in await scene.evolution.sent())
            assert seen == Counter(message.text for message in messages)
            await until(
                lambda: len({told["wa_id"] for told in hook.of("status") if told["status"] == "delivered"}) == 50
            )
        finally:
            again.terminate()
            assert again.wait(10) == 0
            for one in (process, again):
                assert one.stdout is not None
                one.stdout.close()
    await standin.close()


async def _count(scene: Scene, least: int) -> bool:
    return len(await scene.evolution.sent()) >= least


async def _send_until_taken(scene: Scene, message: Outgoing, *, tries: int = 60) -> str:
    """As the send queue does: again and again, with the same id."""
    for _ in range(tries):
        try:
            return (await CHANNELS["WHATSAPP_QR"].send(scene.account, message, scene.http)).external_id
        except JobError as error:
            await asyncio.sleep(min(error.after, 0.1) if isinstance(error, RateLimited) else 0.05)
    raise AssertionError("it was never taken")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_the_adapters_process_has_no_key_and_no_address_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed before: run beside the API with its environment, it had the secret key and the database's password."""
    secrets = {
        "REPLYLINE_SECRET_KEY": "the-key-of-all-secrets",
        "REPLYLINE_ADMIN_KEY": "the-operators-own-key",
        "DATABASE_URL": "postgresql://someone:hidden@127.0.0.1:9/none",
        "REDIS_URL": "redis://:hidden@127.0.0.1:9/0",
        "AWS_SECRET_ACCESS_KEY": "the-buckets-key",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    standin = EvolutionStandin()
    await standin.start("127.0.0.1", 0)
    process = await asyncio.to_thread(_start, standin, tmp_path, free_port())
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_text(encoding="utf-8").split("\0")  # noqa: ASYNC240  a test may look
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
        assert process.stdout is not None
        process.stdout.close()
        await standin.close()
    assert "LC_ALL=C.UTF-8" in environment
    assert [one for one in environment if one.partition("=")[0] in secrets or "hidden" in one] == []


def _start(standin: EvolutionStandin, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    command = [
        *(sys.executable, "-m", "replyline", "evolution", "--url", standin.url, "--api-key", standin.api_key),
        *("--token", TOKEN, "--data", str(folder), "--port", str(port), "--grace", "30"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["url"].endswith(str(port))
    return process
