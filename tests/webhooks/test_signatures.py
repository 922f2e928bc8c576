"""Webhooks are signed so that others can check it."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from replyline.webhooks import new_secret, sign
from tests.webhooks.delivering import BODY, SECRET


def test_a_signature_is_verified_by_the_standard_webhooks_library() -> None:
    headers = sign(SECRET, "evt_1", int(time.time()), BODY)
    assert Webhook(SECRET).verify(BODY, headers) == msgspec.json.decode(BODY)


def test_a_signature_does_not_hold_for_another_body_id_time_or_secret() -> None:
    now = int(time.time())
    headers = sign(SECRET, "evt_1", now, BODY)
    forged = [
        (BODY + b" ", headers, SECRET),
        (BODY, headers | {"webhook-id": "evt_2"}, SECRET),
        (BODY, headers | {"webhook-timestamp": str(now + 1)}, SECRET),
        (BODY, headers, new_secret()),
    ]
    for body, told, secret in forged:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, told)


def test_the_code_in_the_documentation_verifies_what_we_sign() -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def verify" in block]
    names: dict[str, Callable[[str, dict[str, str], bytes], None]] = {}
    exec(code, names)  # noqa: S102  our own page, as a reader would paste it
    headers = sign(SECRET, "evt_1", int(time.time()), BODY)
    names["verify"](SECRET, headers, BODY)
    for body, stamp in ((BODY + b" ", int(time.time())), (BODY, int(time.time()) - 301)):
        with pytest.raises(ValueError, match="not from Replyline"):
            names["verify"](SECRET, sign(SECRET, "evt_1", stamp, BODY), body)


def test_a_secret_is_new_each_time_and_has_24_random_bytes() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(secret.startswith("whsec_") and len(secret) == len("whsec_") + 32 for secret in made)
