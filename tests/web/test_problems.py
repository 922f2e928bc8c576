"""Every error is problem JSON, wherever it comes from."""

import asyncio

from starlette.types import Receive, Scope, Send

from replyline.web import create_app
from replyline.web.limits import Limits
from replyline.web.problems import LastResort
from tests.web.conftest import Door, Serve, served

_JSON = "Content-Type: application/json"


async def test_what_does_not_exist_is_a_problem(door: Door) -> None:
    assert (await door.call("GET", "/nowhere")).problem == (404, "not_found")
    assert (await door.call("GET", "/v1/chatbots/")).problem == (404, "not_found")


async def test_a_method_that_is_not_there_is_a_problem_and_names_those_that_are(door: Door) -> None:
    answer = await door.call("PUT", "/v1/messages")
    assert answer.problem == (405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_an_id_that_is_none_is_a_problem(door: Door) -> None:
    assert (await door.operator("GET", "/v1/dead-letters/none")).problem == (422, "invalid")


async def test_a_body_over_the_limit_is_a_problem_on_every_route(serve: Serve) -> None:
    async with serve(max_body_bytes=1000) as door:
        for path in ("/v1/messages", "/widget/v1/messages", "/nowhere", "/v1/customers"):
            answer = await door.call("POST", path, data=b"x" * 1001)
            assert answer.problem == (413, "too_large")


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(door: Door) -> None:
    impatient = Limits(create_app(door.app), max_bytes=1000, body_timeout_s=0.2)
    async with served(impatient) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /widget/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n{_JSON}\r\n\r\n{{".encode()
        )
        async with asyncio.timeout(10):
            status = await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert status == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_an_error_that_nobody_foresaw_is_a_problem_that_says_nothing(door: Door) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("the password is hunter2")

    async with served(LastResort(broken)) as url, door.http.get(url) as response:
        body = await response.read()
    assert (response.status, response.content_type) == (500, "application/problem+json")
    assert b"hunter2" not in body


async def test_a_query_parameter_that_does_not_exist_is_refused_with_the_nearest(door: Door) -> None:
    for path, near in (
        ("/v1/messages?conversationid=x", "did you mean conversationId?"),
        ("/v1/customers?limits=3", "did you mean limit?"),
        ("/v1/customers?xyzzy=3", "there are cursor, limit"),
    ):
        answer = await door.operator("GET", path)
        assert answer.problem == (422, "unknown_parameter")
        assert near in str(answer.json["detail"])
    assert (await door.operator("GET", "/v1/customers?limit=3")).status == 200
    assert (await door.call("GET", "/health/live?x=1")).status == 200


async def test_the_description_of_the_api_shows_the_errors_that_are_sent(door: Door) -> None:
    described = (await door.call("GET", "/openapi.json")).json
    assert "HTTPValidationError" not in str(described)
    operation = described["paths"]["/v1/dead-letters/{job_id}"]["get"]  # type: ignore[index]
    schema = operation["responses"]["422"]["content"]["application/problem+json"]["schema"]
    sent = await door.operator("GET", "/v1/dead-letters/none")
    assert sent.headers["content-type"] == "application/problem+json"
    assert set(schema["required"]) <= set(sent.json) <= set(schema["properties"])
    errors = sent.json["errors"]
    assert isinstance(errors, list)
    assert set(errors[0]) == set(schema["properties"]["errors"]["items"]["required"])
    assert {"4XX", "5XX"} <= set(operation["responses"])
