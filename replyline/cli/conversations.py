"""The commands of conversations: who answers in them, and what a human of the business says there."""

import uuid
from enum import StrEnum
from typing import Annotated

import typer

from replyline.app import App
from replyline.cli.output import console, print_record
from replyline.cli.records import AsJson, Customer, Id, do, found_or_fail, group, plain, rows, text_of
from replyline.store import conversations
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
def show_conversation(record_id: Id, customer: Customer, as_json: AsJson = False) -> None:
    """Show one conversation."""
    found = do(lambda app: conversations.get(app.database, record_id, customer_id=customer))
    print_record(plain(found_or_fail(found, "conversation", record_id)), as_json=as_json)


@conversations_group.command("owner")
def set_owner(record_id: Id, owner: Annotated[Owner, typer.Argument(case_sensitive=False)], customer: Customer) -> None:
    """Say who answers: the bot (from the next message on), a human, or nobody."""
    done = do(lambda app: app.set_owner(record_id, customer_id=customer, owner=owner.value))
    found_or_fail(done, "conversation", record_id)
    console.print(f"{owner.value} answers from now on", style="dim")


@conversations_group.command("say")
def say(
    record_id: Id,
    text: Annotated[str, typer.Argument(help="What to say; @FILE reads a file.")],
    customer: Customer,
    *,
    keep_bot: Annotated[bool, typer.Option("--keep-bot", help="Let the bot go on answering.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say something in a conversation as a human; the bot is silent there afterwards."""

    async def work(app: App) -> dict[str, object]:
        said = Speak(record_id, customer, text_of(text), None, None, None, take_over=not keep_bot)
        return plain(found_or_fail(await app.speak(said), "conversation", record_id))

    print_record(do(work), as_json=as_json)
