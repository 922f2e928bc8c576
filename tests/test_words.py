"""The pure words: plans, identifiers, payloads, statuses, redaction, secrets at rest."""

import uuid
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replyline
from replyline import jobs
from replyline.ids import new_id
from replyline.plans import Plan, plan_for
from replyline.redaction import redact
from replyline.statuses import climbs
from replyline.store.database import Database
from replyline.vault import UnreadableSecret, Vault

_PRICES = ["0", "0.01", "49.99", "50", "50.01", "99.99", "100", "100.01", "99999"]


@pytest.mark.parametrize(
    ("price", "plan", "priority"),
    [
        ("0", Plan.BASIC, 5),
        ("49.99", Plan.BASIC, 5),
        ("50", Plan.PRO, 3),
        ("99.99", Plan.PRO, 3),
        ("100", Plan.PREMIUM, 1),
    ],
)
def test_the_price_makes_the_plan_and_the_plan_the_priority(price: str, plan: Plan, priority: int) -> None:
    assert plan_for(Decimal(price)) is plan
    assert plan.priority == priority


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        plan_for(Decimal("-0.01"))


async def test_the_database_derives_the_same_plans(database: Database) -> None:
    async with database.connection() as connection:
        for price in _PRICES:
            row = await connection.fetchrow(
                "INSERT INTO customers (id, name, monthly_price) VALUES ($1, 'x', $2) RETURNING plan, priority",
                new_id(),
                Decimal(price),
            )
            assert row is not None
            plan = plan_for(Decimal(price))
            assert (row["plan"], row["priority"]) == (plan.value, plan.priority)


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
