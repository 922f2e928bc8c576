"""A half-done addition fails here: every queue, channel and provider is wired in everywhere."""

import inspect
from typing import get_args

from replyline.channels import CHANNELS
from replyline.jobs import JOB_TYPES, QUEUE_NAMES, ChannelKind
from replyline.processors import PROCESSORS
from replyline.providers import PROVIDERS, open_provider
from replyline.queues import SPECS
from replyline.store.channel_forms import FORMS
from replyline.store.database import Database
from replyline.webhooks import EVENTS


def test_every_queue_has_a_spec_a_job_type_and_a_processor() -> None:
    assert tuple(SPECS) == tuple(JOB_TYPES) == tuple(PROCESSORS) == QUEUE_NAMES
    for queue, processor in PROCESSORS.items():
        assert processor.job_type is JOB_TYPES[queue]
        assert JOB_TYPES[queue].queue == queue


def test_every_processor_has_both_fates() -> None:
    for processor in PROCESSORS.values():
        assert inspect.iscoroutinefunction(processor.process)
        assert inspect.iscoroutinefunction(processor.give_up)
        assert inspect.getmodule(processor.process) is inspect.getmodule(processor.give_up)


def test_every_kind_of_channel_has_an_implementation_and_a_form() -> None:
    kinds = set(get_args(ChannelKind))
    assert set(CHANNELS) == set(FORMS) == kinds
    assert {channel.kind for channel in CHANNELS.values()} == kinds


async def test_every_provider_opens_under_its_name() -> None:
    for name in PROVIDERS:
        provider = open_provider(name, 1.0)
        assert provider.name == name
        await provider.close()


async def test_the_database_knows_the_same_kinds_of_channel(database: Database) -> None:
    async with database.connection() as connection:
        check = await connection.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'channels_kind_check'"
        )
    assert all(f"'{kind}'" in check for kind in get_args(ChannelKind))


def test_every_announced_status_is_in_the_catalogue() -> None:
    assert {f"message.{status}" for status in ("received", "sent", "delivered", "read", "failed")} <= set(EVENTS)
