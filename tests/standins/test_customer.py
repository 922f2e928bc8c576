"""The stand-in for a customer's endpoint takes what is rightly signed."""

import base64
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import pytest
from standardwebhooks import Webhook

from tests.standins.side import Said, Side

_SECRET = f"whsec_{base64.b64encode(b'0123456789abcdef01234567').decode()}"
_BODY = {"type": "message.sent", "data": {"content": "Grüße"}}


@pytest.fixture
async def hook(customer: Side) -> Side:
    """The customer, with a secret for /hook."""
    await customer.tell("/_configure", {"endpoints": {"/hook": {"secret": _SECRET}}})
    return customer


async def _deliver(
    hook: Side, secret: str = _SECRET, *, age_s: float = 0, headers: Mapping[str, str] | None = None
) -> Said:
    at = time.time() - age_s
    raw = msgspec.json.encode(_BODY)
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), raw.decode())
    signed = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at)), "webhook-signature": signature}
    return await hook.call("POST", "/hook", raw, headers={**signed, **(headers or {})})


async def test_what_is_rightly_signed_is_taken(hook: Side) -> None:
    assert (await _deliver(hook)).status == 200


async def test_one_right_signature_of_several_is_enough(hook: Side) -> None:
    raw = msgspec.json.encode(_BODY)
    right = Webhook(_SECRET).sign("msg_1", datetime.now(UTC), raw.decode())
    assert (await _deliver(hook, headers={"webhook-signature": f"v1,AAAA {right} v2,x"})).status == 200


@pytest.mark.parametrize(
    ("headers", "wrong"),
    [
        ({"webhook-signature": "v1,AAAA"}, "webhook-signature is wrong"),
        ({"webhook-signature": ""}, "webhook-signature is wrong"),
        ({"webhook-id": "msg_2"}, "webhook-signature is wrong"),
        ({"webhook-id": ""}, "webhook-id or webhook-timestamp is missing"),
        ({"webhook-timestamp": "soon"}, "webhook-id or webhook-timestamp is missing"),
    ],
    ids=str,
)
async def test_what_is_not_rightly_signed_is_refused(hook: Side, headers: dict[str, str], wrong: str) -> None:
    said = await _deliver(hook, headers=headers)
    assert (said.status, said.json()) == (401, {"error": wrong})


async def test_another_secret_is_refused(hook: Side) -> None:
    other = f"whsec_{base64.b64encode(b'fedcba9876543210fedcba98').decode()}"
    assert (await _deliver(hook, other)).status == 401


@pytest.mark.parametrize("age_s", [301 + 60, -(301 + 60)])
async def test_a_time_too_far_from_now_is_refused(hook: Side, age_s: float) -> None:
    said = await _deliver(hook, age_s=age_s)
    assert (said.status, said.json()) == (401, {"error": "webhook-timestamp is too far from now"})


async def test_a_tampered_body_is_refused(hook: Side) -> None:
    raw = msgspec.json.encode(_BODY)
    signature = Webhook(_SECRET).sign("msg_1", datetime.now(UTC), raw.decode())
    signed = {"webhook-id": "msg_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": signature}
    assert (await hook.call("POST", "/hook", raw.replace(b"sent", b"read"), headers=signed)).status == 401


async def test_a_path_without_a_secret_takes_anything(hook: Side) -> None:
    assert (await hook.call("POST", "/other", {"a": 1})).status == 200


async def test_only_posts_are_taken(hook: Side) -> None:
    said = await hook.call("GET", "/hook")
    assert (said.status, said.headers["Allow"]) == (405, "POST")
