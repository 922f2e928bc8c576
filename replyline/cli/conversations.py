"""The commands of conversations: who answers in them, and what a human of the business says there."""

import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from replyline.app import App
from replyline.cli.output import console, print_json, print_record, print_rows
from replyline.cli.records import (
    AnyCustomer,
    AsJson,
    Customer,
    Id,
    do,
    do_for,
    found_or_fail,
    group,
    plain,
    rows,
    text_of,
)
from replyline.store import conversations, messages
from replyline.store.conversations import Conversation
from replyline.store.messages import Message
from replyline.store.moves.speak import Speak

conversations_group = group("conversations", "Threads of people with a chatbot: who answers, and what a human says.")

_COLUMNS = ("id", "channel", "contact_name", "owner", "last_inbound_at", "last_seq")


class Owner(StrEnum):
    """Who answers."""

    BOT = "BOT"
    HUMAN = "HUMAN"
    NONE = "NONE"


@conversations_group.command("list")
def list_conversations(
    customer: Customer,
    channel: Annotated[uuid.UUID | None, typer.Option(metavar="ID")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List a customer's conversations, newest first."""
    found = do(lambda app: conversations.list_page(app.database, customer_id=customer, channel_id=channel, limit=limit))
    rows(found, _COLUMNS, "conversations", as_json=as_json)


@conversations_group.command("show")
def show_conversation(
    record_id: Id,
    customer: AnyCustomer = None,
    *,
    limit: Annotated[int, typer.Option(help="So many of its newest messages.", min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show one conversation and what was said in it, oldest first."""

    async def work(app: App, owner: uuid.UUID) -> tuple[Conversation, Sequence[Message]]:
        found = await conversations.get(app.database, record_id, customer_id=owner)
        said = await messages.list_page(app.database, customer_id=owner, conversation_id=record_id, limit=limit)
        return found_or_fail(found, "conversation", record_id), said

    found, newest_first = do_for("conversation", record_id, customer, work)
    said = [plain(message) for message in reversed(newest_first)]
    if as_json:
        print_json({**plain(found), "messages": said})
        return
    print_record(plain(found), as_json=False)
    console.print()
    print_rows(said, ("created_at", "role", "status", "content"), as_json=False, empty="nothing was said")


@conversations_group.command("owner")
def set_owner(
    record_id: Id, owner: Annotated[Owner, typer.Argument(case_sensitive=False)], customer: AnyCustomer = None
) -> None:
    """Say who answers: the bot (from the next message on), a human, or nobody."""
    do_for(
        "conversation",
        record_id,
        customer,
        lambda app, business: app.set_owner(record_id, customer_id=business, owner=owner.value),
    )
    console.print(f"{owner.value} answers from now on", style="dim")


@conversations_group.command("say")
def say(
    record_id: Id,
    text: Annotated[str, typer.Argument(help="What to say; @FILE reads a file.")],
    customer: AnyCustomer = None,
    *,
    keep_bot: Annotated[bool, typer.Option("--keep-bot", help="Let the bot go on answering.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say something in a conversation as a human; the bot is silent there afterwards."""

    async def work(app: App, owner: uuid.UUID) -> dict[str, object]:
        said = Speak(record_id, owner, text_of(text), None, None, None, take_over=not keep_bot)
        return plain(found_or_fail(await app.speak(said), "conversation", record_id))

    print_record(do_for("conversation", record_id, customer, work), as_json=as_json)
