"""The pure words: plans, identifiers, payloads, statuses, redaction, secrets at rest."""

import hashlib
import uuid
from decimal import Decimal

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replyline
from replyline import jobs
from replyline.ids import new_id
from replyline.redaction import redact
from replyline.statuses import climbs
from replyline.store import customers
from replyline.store.database import Database
from replyline.vault import UnreadableSecret, Vault


@pytest.mark.parametrize(
    ("price", "plan", "priority"),
    [
        ("0", "BASIC", 5),
        ("49.99", "BASIC", 5),
        ("50", "PRO", 3),
        ("99.99", "PRO", 3),
        ("100", "PREMIUM", 1),
        ("99999", "PREMIUM", 1),
    ],
)
async def test_the_price_makes_the_plan_and_the_plan_the_priority(
    database: Database, price: str, plan: str, priority: int
) -> None:
    customer = await customers.create(database, name="x", monthly_price=Decimal(price))
    assert (customer.plan, customer.priority) == (plan, priority)


async def test_a_negative_price_is_refused(database: Database) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await customers.create(database, name="x", monthly_price=Decimal("-0.01"))


def test_identifiers_are_version_7_and_strictly_increase() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {id_.version for id_ in made} == {7}
    assert {id_.variant for id_ in made} == {uuid.RFC_4122}


def test_the_six_queues_of_the_brief_and_the_one_for_files_are_public() -> None:
    assert replyline.QUEUE_NAMES == (
        "incoming-messages",
        "ai-processing",
        "outgoing-messages",
        "whatsapp-cloud-send",
        "whatsapp-qr-send",
        "webhook-delivery",
        "media-fetch",
    )


def test_a_payload_as_node_writes_it_is_read() -> None:
    raw = (
        b'{"chatbotId":"0192f0c1-5b1a-7cc0-8000-000000000001","externalUserId":"user-123","content":"Hello",'
        b'"channel":"WIDGET","somethingNew":1}'
    )
    job = jobs.decode("incoming-messages", raw)
    assert isinstance(job, jobs.IncomingMessageJob)
    assert (job.external_user_id, job.content, job.channel, job.customer_id) == ("user-123", "Hello", "WIDGET", None)


def test_a_payload_survives_encoding() -> None:
    job = jobs.WebhookDeliveryJob(event_id=new_id(), customer_id=new_id(), trace_id=new_id())
    assert jobs.decode("webhook-delivery", jobs.encode(job)) == job
    assert b'"eventId"' in jobs.encode(job)


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"not json",
        b'{"chatbotId":"x","externalUserId":"u","content":"c","channel":"WIDGET"}',
        b'{"chatbotId":"0192f0c1-5b1a-7cc0-8000-000000000001","externalUserId":"u","content":"","channel":"WIDGET"}',
        b'{"chatbotId":"0192f0c1-5b1a-7cc0-8000-000000000001","externalUserId":"u","content":"c","channel":"FAX"}',
    ],
)
def test_an_unreadable_payload_is_an_error_that_names_what_is_wrong(raw: bytes) -> None:
    with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
        jobs.decode("incoming-messages", raw)


def test_a_status_only_climbs() -> None:
    assert climbs("SENDING", "SENT")
    assert climbs("UNKNOWN", "DELIVERED")
    assert climbs("SENT", "READ")
    assert not climbs("READ", "DELIVERED")
    assert not climbs("DELIVERED", "FAILED")
    assert not climbs("CANCELLED", "SENT")


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer EAAGm0PX4ZCpsBAKZCexample",
        "sk-proj-abcdefghijklmnop1234",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "access_token=EAAGm0PX4ZCps",
        "postgresql://user:hunter2hunter2@db:5432/x",
        "+49 151 2345 6789",
        "jane.doe@example.com",
    ],
)
def test_secrets_and_personal_text_are_redacted(secret: str) -> None:
    redacted = redact(f"it failed for {secret} just now")
    assert secret.rsplit(maxsplit=1)[-1].rsplit("=", maxsplit=1)[-1] not in redacted
    assert "it failed for" in redacted


_WAMID = "wamid.HBgLMTY1MDU1NTEyMzQVAgARGBI5QTNDQTVCM0Q0Q0Q2RTY3RTcA"


@pytest.mark.parametrize(
    "said", [_WAMID, f"{_WAMID}==", f"v25.0/{_WAMID}", f"'{_WAMID}'", f"{_WAMID}+/x-_", f"[{_WAMID}]"]
)
def test_a_message_id_of_whatsapp_is_redacted_as_it_holds_a_number(said: str) -> None:
    """Failed before: base64 of the person's telephone number was kept in dead letters and logs."""
    redacted = redact(f"the message {said} was refused")
    assert "HBgL" not in redacted
    assert "MTY1MDU1NTEyMzQ" not in redacted
    assert redacted.startswith("the message ")
    assert redacted.endswith(" was refused")


def test_the_same_message_is_recognised_after_it_was_redacted() -> None:
    """Also where it stood in a URL; two messages to one person are not the same."""
    named, in_url, other = (redact(text) for text in (f"{_WAMID}==", f"{_WAMID}%3D%3D", f"{_WAMID}B"))
    assert named == in_url == f"[wamid {hashlib.sha256(f'{_WAMID}=='.encode()).hexdigest()[:12]}]"
    assert other != named


def test_a_long_error_keeps_its_end() -> None:
    assert redact("a" * 10_000 + "THE END", max_chars=100).endswith("THE END")


@given(st.text())
def test_what_is_sealed_is_opened_and_shows_nothing(secret: str) -> None:
    vault = Vault.from_setting(Vault.new_key())
    sealed = vault.seal(secret)
    assert vault.open(sealed) == secret
    assert len(secret) < 4 or secret not in sealed


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    old, new = Vault.new_key(), Vault.new_key()
    sealed = Vault.from_setting(f"a:{old}").seal("token")
    rotated = Vault.from_setting(f"b:{new},a:{old}")
    assert rotated.open(sealed) == "token"
    assert rotated.seal("token").startswith("b:")


def test_a_secret_of_another_key_or_changed_is_refused() -> None:
    sealed = Vault.from_setting(f"a:{Vault.new_key()}").seal("token")
    with pytest.raises(UnreadableSecret, match="'a'"):
        Vault.from_setting(f"b:{Vault.new_key()}").open(sealed)
    with pytest.raises(UnreadableSecret):
        Vault.from_setting(f"a:{Vault.new_key()}").open(sealed)
