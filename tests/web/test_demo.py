"""The demo's routes: only where the demo runs, only for its own page on this machine; what is written goes the real way."""

import json
import uuid
from collections.abc import MutableMapping
from pathlib import Path

import pytest

from replyline.standins import Standins
from replyline.store.database import Database
from tests.store.scene import make_scene
from tests.waiting import until
from tests.web.conftest import Answer, Door, Serve

PERSON = "4915112345678"
ANSWER = "Tuesday to Saturday"


@pytest.fixture
async def door(demo_door: Door) -> Door:
    return demo_door


async def _post(door: Door, path: str, body: object, **headers: str) -> Answer:
    return await door.call("POST", path, json=body, headers={"Origin": door.url, **headers})


async def _live(door: Door, query: str = "") -> dict[str, object]:
    answer = await door.call("GET", f"/demo/live?person={PERSON}{query}")
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.parametrize("phone", ["cloud", "qr"])
async def test_what_a_person_writes_is_answered_on_their_phone_and_can_be_followed(door: Door, phone: str) -> None:
    written = await _post(door, f"/demo/phones/{phone}/messages", {"person": PERSON, "text": "When are you open?"})
    assert written.status == 202

    async def screen() -> list[dict[str, object]]:
        phones = (await _live(door))["phones"]
        assert isinstance(phones, dict)
        found: list[dict[str, object]] = phones[phone]["messages"]
        return found if len(found) == 2 else []

    question, answer = await until(screen, what="the answer on the phone")
    assert (question["text"], question["inbound"], question["id"]) == (
        "When are you open?",
        True,
        written.json["externalId"],
    )
    assert ANSWER in str(answer["text"])
    assert answer["inbound"] is False

    async def followed() -> bool:
        timeline = (await _live(door, f"&message={written.json['messageId']}"))["timeline"]
        assert isinstance(timeline, dict)
        jobs = {job["queue"]: job["state"] for job in timeline["jobs"]}
        return jobs.get(f"whatsapp-{phone}-send") == "DONE"

    await until(followed, what="the timeline to its end")
    other = (await door.call("GET", "/demo/live?person=4915100000000")).json["phones"]
    assert isinstance(other, dict)
    assert other[phone]["messages"] == []


async def test_a_break_is_seen_in_the_timeline(door: Door) -> None:
    assert (await _post(door, "/demo/faults", {"kind": "cloud_fails_twice"})).status == 204
    written = await _post(door, "/demo/phones/cloud/messages", {"person": PERSON, "text": "When are you open?"})

    async def errors() -> list[object]:
        timeline = (await _live(door, f"&message={written.json['messageId']}"))["timeline"]
        assert isinstance(timeline, dict)
        sends = [job for job in timeline["jobs"] if job["queue"] == "whatsapp-cloud-send" and job["state"] == "DONE"]
        return [error["stack"] for job in sends for error in job["errors"]]

    assert await until(errors, what="the send with its errors") == ["", ""]


async def test_what_was_given_up_is_replayed_and_arrives(door: Door) -> None:
    assert (await _post(door, "/demo/faults", {"kind": "cloud_refuses"})).status == 204
    written = await _post(door, "/demo/phones/cloud/messages", {"person": PERSON, "text": "When are you open?"})

    async def send(state: str) -> str | None:
        timeline = (await _live(door, f"&message={written.json['messageId']}"))["timeline"]
        assert isinstance(timeline, dict)
        sends = [job for job in timeline["jobs"] if job["queue"] == "whatsapp-cloud-send" and job["state"] == state]
        return str(sends[0]["id"]) if sends else None

    dead = await until(lambda: send("DEAD"), what="the dead letter")
    assert (await _post(door, f"/demo/dead-letters/{dead}/replay", None)).status == 204
    assert await until(lambda: send("DONE"), what="the replayed send") == dead
    screen = (await _live(door))["phones"]
    assert isinstance(screen, dict)
    assert ANSWER in screen["cloud"]["messages"][-1]["text"]
    again = await _post(door, f"/demo/dead-letters/{dead}/replay", None)
    assert again.problem == (409, "not_replayable")


async def test_another_customers_dead_letter_is_not_replayed(door: Door, database: Database) -> None:
    other = await make_scene(database, "WHATSAPP_CLOUD")
    await other.say("Are you open?", "From 7 am.")
    await other.route()
    dead = await other.fail_send()
    assert (await _post(door, f"/demo/dead-letters/{dead}/replay", None)).problem == (409, "not_replayable")
    assert await other.value("SELECT state FROM all_jobs WHERE id = $1", dead) == "DEAD"


async def test_redis_is_wiped_where_it_is_the_demos_own_and_what_was_under_way_arrives(
    door: Door, tmp_path: Path
) -> None:
    _own_redis(door, tmp_path)
    assert (await _post(door, "/demo/faults", {"kind": "ai_slow"})).status == 204
    written = await _post(door, "/demo/phones/cloud/messages", {"person": PERSON, "text": "When are you open?"})
    assert int(str(await door.app.broker.command("DBSIZE"))) > 0
    assert (await _post(door, "/demo/redis/wipe", None)).status == 204

    async def answered() -> bool:
        timeline = (await _live(door, f"&message={written.json['messageId']}"))["timeline"]
        assert isinstance(timeline, dict)
        return any(job["queue"] == "whatsapp-cloud-send" and job["state"] == "DONE" for job in timeline["jobs"])

    await until(answered, timeout_s=60, what="the answer after the wipe")
    screen = (await _live(door))["phones"]
    assert isinstance(screen, dict)
    assert [ANSWER in message["text"] for message in screen["cloud"]["messages"]] == [False, True], "answered once"


@pytest.mark.parametrize("path", ["/demo/redis/wipe", "/demo/worker/kill"])
async def test_a_redis_that_the_environment_names_is_not_touched(door: Door, tmp_path: Path, path: str) -> None:
    await door.app.broker.command("SET", "somebody", "else")
    refused = await _post(door, path, None)
    assert refused.problem == (409, "not_embedded")
    assert "REDIS_URL" in str(refused.json["detail"])
    _own_redis(door, tmp_path, redis_url="redis://127.0.0.1:1/0")
    assert (await _post(door, path, None)).problem == (409, "not_embedded")
    assert await door.app.broker.command("GET", "somebody") == b"else"
    assert not door.app.settings.kill_request_file.exists()


def _own_redis(door: Door, data: Path, **changes: str) -> None:
    file = data / "ready.json"
    mine = {"embedded_redis": True, "redis_url": door.app.settings.redis_url, **changes}
    file.write_text(json.dumps({**json.loads(file.read_text()), **mine}))


@pytest.mark.parametrize("kind", ["ai_slow", "ai_fails_once", "qr_down", "none"])
async def test_every_break_is_taken(door: Door, kind: str) -> None:
    assert (await _post(door, "/demo/faults", {"kind": kind})).status == 204


async def test_the_page_loads_nothing_from_elsewhere(door: Door) -> None:
    page = await door.call("GET", "/demo")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.body.decode()
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    for name in ("demo.css", "demo.js"):
        part = await door.call("GET", f"/demo/{name}")
        assert part.status == 200
        assert part.headers["x-content-type-options"] == "nosniff"
    setup = await door.call("GET", "/demo/setup")
    assert setup.json["siteKey"]
    for name in ("__init__.py", "..%2F__init__.py", "phones.py", "nothing.js"):
        assert (await door.call("GET", f"/demo/{name}")).status == 404


async def test_without_a_demo_there_is_no_page(serve: Serve, tmp_path: Path) -> None:
    async with serve(data=tmp_path) as door:
        for path in ("/demo", "/demo/setup", "/demo/demo.js", f"/demo/live?person={PERSON}"):
            answer = await door.call("GET", path)
            assert answer.problem == (404, "no_demo")
            assert "replyline start --demo" in str(answer.json["detail"])


@pytest.mark.parametrize(
    "left",
    [
        "{",
        "[]",
        '{"pid": 1, "api": "x"}',
        '{"pid": 1, "database_url": "x", "demo": {}, "standins": {}}',
        '{"pid": -1}',
    ],
)
async def test_what_is_no_demo_opens_nothing(serve: Serve, tmp_path: Path, left: str) -> None:
    async with serve(data=tmp_path) as door:
        (tmp_path / "ready.json").write_text(left)
        assert (await door.call("GET", "/demo")).problem == (404, "no_demo")


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"database_url": "postgresql://elsewhere/db"}])
async def test_what_a_killed_start_left_behind_opens_nothing(
    door: Door, tmp_path: Path, change: dict[str, object]
) -> None:
    file = tmp_path / "ready.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert (await door.call("GET", "/demo")).problem == (404, "no_demo")


async def test_only_browsers_on_this_machine_see_it(door: Door) -> None:
    for headers in (
        {"Host": "demo.example"},
        {"Host": "evil.example:80"},
        {"Host": "[::2]"},
        {"Host": "[::1"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
    ):
        assert (await door.call("GET", "/demo/setup", headers=headers)).problem == (403, "not_local")


async def test_another_machine_that_names_this_one_sees_nothing(door: Door) -> None:
    """No test can call from another machine: the application is called as its server would for one."""
    sent: list[dict[str, object]] = []
    scope: dict[str, object] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/demo/setup",
        "raw_path": b"/demo/setup",
        "query_string": b"",
        "scheme": "http",
        "root_path": "",
        "client": ("203.0.113.9", 5555),
        "server": ("0.0.0.0", 8000),
        "headers": [(b"host", b"localhost:8000")],
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(dict(message))

    await door.api(scope, receive, send)
    assert sent[0]["status"] == 403


async def test_a_page_of_another_site_can_do_nothing(door: Door) -> None:
    body = {"person": PERSON, "text": "hi"}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}):
        for path in (
            "/demo/phones/cloud/messages",
            "/demo/faults",
            "/demo/redis/wipe",
            "/demo/worker/kill",
            f"/demo/dead-letters/{uuid.uuid4()}/replay",
        ):
            assert (await _post(door, path, body, **headers)).problem == (403, "origin_not_allowed")
    without = await door.call("POST", "/demo/phones/cloud/messages", json=body)
    assert without.problem == (403, "origin_not_allowed")


@pytest.mark.parametrize("body", [{"person": "x", "text": "hi"}, {"person": PERSON, "text": ""}, {"person": PERSON}])
async def test_what_does_not_fit_is_refused(door: Door, body: dict[str, object]) -> None:
    assert (await _post(door, "/demo/phones/cloud/messages", body)).problem == (422, "invalid")
    assert (await _post(door, "/demo/phones/fax/messages", {"person": PERSON, "text": "hi"})).status == 422


async def test_a_standin_that_is_gone_is_said(door: Door, standins: Standins) -> None:
    await standins.close()
    answer = await _post(door, "/demo/phones/cloud/messages", {"person": PERSON, "text": "hi"})
    assert answer.problem == (502, "standin_away")


async def test_the_bare_address_leads_to_the_demo_where_it_runs(door: Door) -> None:
    async with door.http.get(f"{door.url}/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (307, "/demo")


async def test_the_bare_address_leads_to_the_routes_where_no_demo_runs(serve: Serve, tmp_path: Path) -> None:
    async with serve(data=tmp_path) as door, door.http.get(f"{door.url}/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (307, "/docs")
