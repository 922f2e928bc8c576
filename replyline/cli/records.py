"""The commands of customers and chatbots: make, list, show, change, delete; and what these commands have in common."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from replyline.app import App
from replyline.cli.opening import open_here, run
from replyline.cli.output import print_record, print_rows
from replyline.cli.running import CommandFailed, Exit
from replyline.providers import PROVIDERS
from replyline.store import api_keys, chatbots, customer_deletions, customers, operator
from replyline.store.api_keys import TooManyKeys
from replyline.store.channel_forms import ChannelRefused
from replyline.store.chatbots import ChatbotChanges, ChatbotRefused
from replyline.store.customers import CustomerChanges
from replyline.store.knowledge import DocumentRefused
from replyline.store.operator import RecordKind
from replyline.store.webhooks import EndpointRefused

Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Id = Annotated[uuid.UUID, typer.Argument(help="The id, as `list` shows it.", metavar="ID")]
Customer = Annotated[uuid.UUID, typer.Option("--customer", help="Whose.", metavar="ID")]
AnyCustomer = Annotated[
    uuid.UUID | None, typer.Option("--customer", help="Only if it is this customer's.", metavar="ID")
]
Sure = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Pairs = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE")]


def group(name: str, text: str) -> typer.Typer:
    return typer.Typer(name=name, help=text, no_args_is_help=True)


customers_group = group("customers", "Businesses that pay us: their price makes their plan and priority.")
chatbots_group = group("chatbots", "Bots: instructions, provider, memory, quiet windows.")
GROUPS = (customers_group, chatbots_group)


def do(work: Callable[[App], Awaitable[Result]]) -> Result:
    async def with_app() -> Result:
        async with open_here() as app:
            return await work(app)

    try:
        return run(with_app())
    except (ChatbotRefused, ChannelRefused, DocumentRefused, EndpointRefused, TooManyKeys) as error:
        raise CommandFailed(str(error), Exit.WRONG_CALL) from error


def do_for(
    kind: RecordKind,
    record_id: uuid.UUID,
    customer: uuid.UUID | None,
    work: Callable[[App, uuid.UUID], Awaitable[Result | None]],
) -> Result:
    """Work on one record as the customer whose it is; CommandFailed if it does not exist, or is not `customer`'s."""

    async def owned(app: App) -> Result | None:
        return await work(app, await whose(app, kind, record_id, customer))

    return found_or_fail(do(owned), kind, record_id)


async def whose(app: App, kind: RecordKind, record_id: uuid.UUID, customer: uuid.UUID | None) -> uuid.UUID:
    """The customer who was named or, as ids are the same nowhere twice, the one that the record belongs to."""
    found = customer or await operator.customer_of(app.database, kind, record_id)
    if found is None:
        raise CommandFailed(f"there is no {kind} {record_id}", Exit.NOT_FOUND)
    return found


def found_or_fail(record: Result | None, what: str, record_id: uuid.UUID) -> Result:
    if record is None or record is False:
        raise CommandFailed(f"there is no {what} {record_id}", Exit.NOT_FOUND)
    return record


def plain(record: object) -> dict[str, object]:
    """A record's fields but for sealed secrets, of which only is said whether they are set."""
    row: dict[str, object] = {}
    for column in fields(record):  # type: ignore[arg-type]  # every record of the store is a dataclass
        value = getattr(record, column.name)
        if column.name.endswith("_sealed"):
            row[f"has_{column.name.removesuffix('_sealed')}"] = value is not None
        else:
            row[column.name] = value
    return row


def rows(records: Sequence[object], columns: Sequence[str], what: str, *, as_json: bool) -> None:
    print_rows([plain(record) for record in records], columns, as_json=as_json, empty=f"no {what}")


def ask(question: str, sure: bool) -> None:
    if not sure:
        typer.confirm(question, abort=True)


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE; a value of @FILE is the file's text, so that secrets need not stand on a command line."""
    pairs: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CommandFailed(f"{option} reads NAME=VALUE, or NAME=@FILE", Exit.WRONG_CALL)
        pairs[name] = text_of(value)
    return pairs


def text_of(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{value[1:]} cannot be read: {error}", Exit.WRONG_CALL) from error


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation as error:
        raise CommandFailed(f"a price is a number of dollars, as 49.99, not {text!r}", Exit.WRONG_CALL) from error
    if not 0 <= price < 10**10:
        raise CommandFailed(f"a price is not negative and below ten billion: {text}", Exit.WRONG_CALL)
    return price


# Customers.

_CUSTOMER_COLUMNS = ("id", "name", "plan", "monthly_price", "created_at")


@customers_group.command("create")
def create_customer(
    name: Annotated[str, typer.Option(help="The business.")],
    price: Annotated[str, typer.Option(help="Dollars a month: Premium from 100, Pro from 50, Basic below.")] = "0",
    as_json: AsJson = False,
) -> None:
    """Add a customer, with a first API key, which is shown this once."""

    async def work(app: App) -> dict[str, object]:
        customer = await customers.create(app.database, name=name, monthly_price=_price(price))
        made = found_or_fail(
            await api_keys.create(app.database, customer_id=customer.id, name="first"), "customer", customer.id
        )
        return {**plain(customer), "api_key": made[1]}

    print_record(do(work), as_json=as_json)


@customers_group.command("list")
def list_customers(limit: Annotated[int, typer.Option(min=1, max=1000)] = 200, as_json: AsJson = False) -> None:
    """List customers, oldest first."""
    rows(
        do(lambda app: customers.list_page(app.database, limit=limit)), _CUSTOMER_COLUMNS, "customers", as_json=as_json
    )


@customers_group.command("show")
def show_customer(record_id: Id, as_json: AsJson = False) -> None:
    """Show one customer."""
    customer = do(lambda app: customers.get(app.database, customer_id=record_id))
    print_record(plain(found_or_fail(customer, "customer", record_id)), as_json=as_json)


@customers_group.command("set")
def set_customer(
    record_id: Id,
    name: Annotated[str | None, typer.Option()] = None,
    price: Annotated[str | None, typer.Option(help="Dollars a month.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a customer's name or price; a new plan counts for jobs made from now on."""
    changes: CustomerChanges = {}
    if name is not None:
        changes["name"] = name
    if price is not None:
        changes["monthly_price"] = _price(price)
    customer = do(lambda app: customers.update(app.database, customer_id=record_id, changes=changes))
    print_record(plain(found_or_fail(customer, "customer", record_id)), as_json=as_json)


@customers_group.command("new-key")
def new_key(
    record_id: Id, name: Annotated[str, typer.Option(help="What it is for.")] = "key", as_json: AsJson = False
) -> None:
    """Make another API key for a customer; it is shown this once."""
    made = do(lambda app: api_keys.create(app.database, customer_id=record_id, name=name))
    key, secret = found_or_fail(made, "customer", record_id)
    print_record({"id": key.id, "name": key.name, "api_key": secret}, as_json=as_json)


@customers_group.command("delete")
def delete_customer(record_id: Id, yes: Sure = False) -> None:
    """Delete a customer with everything of theirs; what takes long is done by the workers (`customers deletions`)."""
    ask(f"Delete customer {record_id} with all conversations, messages and usage?", yes)
    found_or_fail(do(lambda app: customers.delete(app.database, customer_id=record_id)), "customer", record_id)


@customers_group.command("deletions")
def list_deletions(as_json: AsJson = False) -> None:
    """Show which customers were deleted or are being deleted, newest first, and how far that is."""
    found = do(lambda app: customer_deletions.list_newest(app.database))
    columns = ("customer_id", "name", "requested_at", "deleted_rows", "finished_at")
    rows(found, columns, "deletions of customers", as_json=as_json)


# Chatbots.

Provider = Annotated[str | None, typer.Option(help=f"One of {', '.join(PROVIDERS)}.")]
ExternalReference = Annotated[
    str | None, typer.Option("--reference", help="What BullMQ producers call it, instead of its id; '' takes it away.")
]


@chatbots_group.command("create")
def create_chatbot(
    customer: Customer,
    name: Annotated[str, typer.Option()],
    *,
    instructions: Annotated[str | None, typer.Option(help="What the bot is told; @FILE reads a file.")] = None,
    provider: Provider = None,
    model: Annotated[str | None, typer.Option()] = None,
    base_url: Annotated[str | None, typer.Option(help="Of an OpenAI-compatible server.")] = None,
    provider_key: Annotated[str | None, typer.Option(help="@FILE reads a file.")] = None,
    fallback_text: Annotated[str | None, typer.Option(help="Said when no answer can be had.")] = None,
    quiet_window: Annotated[float | None, typer.Option(help="Seconds to wait for more messages; 0 is off.")] = None,
    reference: ExternalReference = None,
    as_json: AsJson = False,
) -> None:
    """Add a chatbot; by default it answers from its knowledge base alone."""
    changes = _chatbot_changes(instructions, provider, model, base_url, provider_key, fallback_text, quiet_window)
    if reference is not None:
        changes["external_reference"] = reference or None
    chatbot = do(
        lambda app: chatbots.create(app.database, app.vault, customer_id=customer, name=name, settings=changes)
    )
    print_record(plain(chatbot), as_json=as_json)


@chatbots_group.command("list")
def list_chatbots(customer: Customer, as_json: AsJson = False) -> None:
    """List a customer's chatbots."""
    found = do(lambda app: chatbots.list_page(app.database, customer_id=customer, limit=1000))
    rows(found, ("id", "name", "external_reference", "provider", "model", "created_at"), "chatbots", as_json=as_json)


@chatbots_group.command("show")
def show_chatbot(record_id: Id, customer: AnyCustomer = None, as_json: AsJson = False) -> None:
    """Show one chatbot; its provider key stays sealed."""
    chatbot = do_for(
        "chatbot", record_id, customer, lambda app, owner: chatbots.get(app.database, record_id, customer_id=owner)
    )
    print_record(plain(chatbot), as_json=as_json)


@chatbots_group.command("set")
def set_chatbot(
    record_id: Id,
    customer: AnyCustomer = None,
    *,
    name: Annotated[str | None, typer.Option()] = None,
    instructions: Annotated[str | None, typer.Option(help="@FILE reads a file.")] = None,
    provider: Provider = None,
    model: Annotated[str | None, typer.Option()] = None,
    base_url: Annotated[str | None, typer.Option()] = None,
    provider_key: Annotated[str | None, typer.Option(help="@FILE reads a file.")] = None,
    fallback_text: Annotated[str | None, typer.Option()] = None,
    quiet_window: Annotated[float | None, typer.Option(help="Seconds; 0 is off.")] = None,
    vision: Annotated[bool | None, typer.Option("--vision/--no-vision", help="Show pictures to the model.")] = None,
    unsupported_text: Annotated[str | None, typer.Option(help="Said to what cannot be read, once an hour.")] = None,
    takeover: Annotated[
        bool | None, typer.Option("--takeover/--no-takeover", help="A human on the telephone silences the bot.")
    ] = None,
    human_hold: Annotated[float | None, typer.Option(help="For so many seconds; 0 until given back.")] = None,
    reference: ExternalReference = None,
    as_json: AsJson = False,
) -> None:
    """Change a chatbot; what is left out stays."""
    changes = _chatbot_changes(instructions, provider, model, base_url, provider_key, fallback_text, quiet_window)
    if name is not None:
        changes["name"] = name
    if vision is not None:
        changes["vision"] = vision
    if unsupported_text is not None:
        changes["unsupported_text"] = unsupported_text
    if takeover is not None:
        changes["human_takeover"] = takeover
    if human_hold is not None:
        changes["human_hold_s"] = human_hold
    if reference is not None:
        changes["external_reference"] = reference or None
    chatbot = do_for(
        "chatbot",
        record_id,
        customer,
        lambda app, owner: chatbots.update(app.database, app.vault, record_id, customer_id=owner, changes=changes),
    )
    print_record(plain(chatbot), as_json=as_json)


@chatbots_group.command("delete")
def delete_chatbot(record_id: Id, customer: AnyCustomer = None, yes: Sure = False) -> None:
    """Delete a chatbot with its channels, conversations and knowledge."""
    ask(f"Delete chatbot {record_id} with its channels, conversations and knowledge?", yes)
    do_for(
        "chatbot", record_id, customer, lambda app, owner: chatbots.delete(app.database, record_id, customer_id=owner)
    )


def _chatbot_changes(  # noqa: PLR0917  one for each option, in their order
    instructions: str | None,
    provider: str | None,
    model: str | None,
    base_url: str | None,
    provider_key: str | None,
    fallback_text: str | None,
    quiet_window: float | None,
) -> ChatbotChanges:
    changes: ChatbotChanges = {}
    if provider is not None:
        if provider not in PROVIDERS:
            raise CommandFailed(f"no such provider: {provider}; there are {', '.join(PROVIDERS)}", Exit.WRONG_CALL)
        changes["provider"] = provider
    if instructions is not None:
        changes["instructions"] = text_of(instructions)
    if model is not None:
        changes["model"] = model
    if base_url is not None:
        changes["provider_base_url"] = base_url
    if provider_key is not None:
        changes["provider_key"] = text_of(provider_key)
    if fallback_text is not None:
        changes["fallback_text"] = fallback_text
    if quiet_window is not None:
        changes["quiet_window_widget_s"] = changes["quiet_window_whatsapp_s"] = quiet_window
    return changes
