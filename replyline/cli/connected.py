"""The commands of knowledge and of webhook endpoints; and what was used."""

import uuid
from dataclasses import fields
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import typer

from replyline import webhooks as webhook_rules
from replyline.app import App
from replyline.cli.output import print_record
from replyline.cli.records import (
    AnyCustomer,
    AsJson,
    Customer,
    Id,
    Sure,
    ask,
    do,
    do_for,
    found_or_fail,
    group,
    plain,
    rows,
    text_of,
)
from replyline.cli.running import CommandFailed, Exit
from replyline.store import knowledge, webhooks
from replyline.store import usage as usage_records
from replyline.store.usage import UsageSum
from replyline.store.webhooks import EndpointChanges

knowledge_group = group("knowledge", "Documents that a chatbot answers from.")
webhooks_group = group("webhooks", "URLs that are told what happens.")
GROUPS = (knowledge_group, webhooks_group)


# Knowledge.


@knowledge_group.command("create")
def create_document(
    customer: Customer,
    chatbot: Annotated[uuid.UUID, typer.Option(metavar="ID")],
    file: Annotated[Path, typer.Argument(help="A text or Markdown file.", exists=True, dir_okay=False)],
    title: Annotated[str | None, typer.Option(help="The file's name otherwise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a document to a chatbot's knowledge base."""
    document = do(
        lambda app: knowledge.add(
            app.database,
            customer_id=customer,
            chatbot_id=chatbot,
            title=title or file.stem,
            content=text_of(f"@{file}"),
        )
    )
    print_record(plain(document), as_json=as_json)


@knowledge_group.command("list")
def list_documents(
    customer: Customer, chatbot: Annotated[uuid.UUID | None, typer.Option(metavar="ID")] = None, as_json: AsJson = False
) -> None:
    """List a customer's documents."""
    found = do(lambda app: knowledge.list_page(app.database, customer_id=customer, chatbot_id=chatbot, limit=1000))
    rows(found, ("id", "title", "chars", "chunks", "created_at"), "documents", as_json=as_json)


@knowledge_group.command("show")
def show_document(record_id: Id, customer: AnyCustomer = None, as_json: AsJson = False) -> None:
    """Show one document with its text."""
    document, content = do_for(
        "document", record_id, customer, lambda app, owner: knowledge.get(app.database, record_id, customer_id=owner)
    )
    print_record({**plain(document), "content": content}, as_json=as_json)


@knowledge_group.command("set")
def set_document(
    record_id: Id,
    file: Annotated[Path, typer.Argument(help="What it says from now on.", exists=True, dir_okay=False)],
    customer: AnyCustomer = None,
    as_json: AsJson = False,
) -> None:
    """Replace a document's text; it gets a new id."""
    content = text_of(f"@{file}")

    async def work(app: App, owner: uuid.UUID) -> object:
        document, _ = found_or_fail(
            await knowledge.get(app.database, record_id, customer_id=owner), "document", record_id
        )
        await knowledge.delete(app.database, record_id, customer_id=owner)
        return await knowledge.add(
            app.database,
            customer_id=owner,
            chatbot_id=document.chatbot_id,
            title=document.title,
            content=content,
        )

    print_record(plain(do_for("document", record_id, customer, work)), as_json=as_json)


@knowledge_group.command("delete")
def delete_document(record_id: Id, customer: AnyCustomer = None, yes: Sure = False) -> None:
    """Delete a document."""
    ask(f"Delete document {record_id}?", yes)
    do_for(
        "document",
        record_id,
        customer,
        lambda app, owner: knowledge.delete(app.database, record_id, customer_id=owner),
    )


# Webhooks.

Events = Annotated[
    str | None, typer.Option(help=f"Joined by commas, of {', '.join(webhook_rules.EVENTS)}; all otherwise.")
]


@webhooks_group.command("create")
def create_endpoint(
    customer: Customer,
    url: Annotated[str, typer.Argument(help="https://…")],
    events: Events = None,
    as_json: AsJson = False,
) -> None:
    """Add a URL that is told of events; its signing secret is shown this once."""

    async def work(app: App) -> dict[str, object]:
        _check_url(url, app)
        secret = webhook_rules.new_secret()
        endpoint = await webhooks.create(
            app.database, app.vault, customer_id=customer, url=url, events=_events(events), secret=secret
        )
        return {**plain(endpoint), "secret": secret}

    print_record(do(work), as_json=as_json)


@webhooks_group.command("list")
def list_endpoints(customer: Customer, as_json: AsJson = False) -> None:
    """List a customer's endpoints."""
    found = do(lambda app: webhooks.list_page(app.database, customer_id=customer, limit=1000))
    rows(found, ("id", "url", "enabled", "events"), "webhook endpoints", as_json=as_json)


@webhooks_group.command("show")
def show_endpoint(record_id: Id, customer: AnyCustomer = None, as_json: AsJson = False) -> None:
    """Show one endpoint; its secret stays sealed."""
    endpoint = do_for(
        "webhook endpoint",
        record_id,
        customer,
        lambda app, owner: webhooks.get(app.database, record_id, customer_id=owner),
    )
    print_record(plain(endpoint), as_json=as_json)


@webhooks_group.command("set")
def set_endpoint(
    record_id: Id,
    customer: AnyCustomer = None,
    *,
    url: Annotated[str | None, typer.Option()] = None,
    events: Events = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable")] = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint."""

    async def work(app: App, owner: uuid.UUID) -> object:
        changes: EndpointChanges = {}
        if url is not None:
            _check_url(url, app)
            changes["url"] = url
        if events is not None:
            changes["events"] = _events(events)
        if enabled is not None:
            changes["enabled"] = enabled
        return await webhooks.update(app.database, record_id, customer_id=owner, changes=changes)

    print_record(plain(do_for("webhook endpoint", record_id, customer, work)), as_json=as_json)


@webhooks_group.command("delete")
def delete_endpoint(record_id: Id, customer: AnyCustomer = None, yes: Sure = False) -> None:
    """Delete an endpoint with its events."""
    ask(f"Delete webhook endpoint {record_id} with its events?", yes)
    do_for(
        "webhook endpoint",
        record_id,
        customer,
        lambda app, owner: webhooks.delete(app.database, record_id, customer_id=owner),
    )


@webhooks_group.command("events")
def list_events(
    customer: Customer,
    status: Annotated[str | None, typer.Option(help="PENDING, DELIVERED or FAILED.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List a customer's webhook events, newest first."""
    found = do(lambda app: webhooks.list_events(app.database, customer_id=customer, status=status, limit=limit))
    rows(found, ("id", "type", "status", "message_id", "created_at", "finished_at"), "events", as_json=as_json)


def _check_url(url: str, app: App) -> None:
    try:
        webhook_rules.check_url(url, allow_private=app.settings.webhook_allow_private)
    except ValueError as error:
        raise CommandFailed(str(error), Exit.WRONG_CALL) from error


def _events(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(webhook_rules.EVENTS)
    for name in names:
        if name not in webhook_rules.EVENTS:
            raise CommandFailed(f"no such event: {name}; there are {', '.join(webhook_rules.EVENTS)}", Exit.WRONG_CALL)
    return names


def usage(
    customer: Customer,
    days: Annotated[int, typer.Option(min=1, max=366, help="So many days up to now.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show what a customer used, by day (UTC), kind, channel and model."""
    until = datetime.now(UTC)
    since = datetime.combine(until.date() - timedelta(days=days - 1), time(), UTC)
    found = do(lambda app: usage_records.sums(app.database, customer_id=customer, since=since, until=until))
    columns = [column.name for column in fields(UsageSum)]
    rows(found, columns, "usage", as_json=as_json)
