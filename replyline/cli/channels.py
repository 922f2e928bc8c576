"""The commands of channels: connect, change, see what is wrong with one, let it go on, and pair a telephone."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated

import msgspec
import segno
import typer

from replyline.app import App
from replyline.channels import ChannelAccount
from replyline.channels.whatsapp_qr.gateway import (
    Session,
    change_session,
    connect_session,
    pair_session,
    show_session,
)
from replyline.cli.output import console, errors, print_json, print_record, print_rows
from replyline.cli.records import (
    AnyCustomer,
    AsJson,
    Customer,
    Id,
    Pairs,
    Sure,
    ask,
    do,
    do_for,
    found_or_fail,
    group,
    pairs,
    plain,
    rows,
)
from replyline.cli.running import CommandFailed, Exit, read_ready
from replyline.errors import JobError
from replyline.store import channels, operator, unread
from replyline.store.channel_forms import FORMS
from replyline.store.channels import ChannelChanges

channels_group = group("channels", "Connected accounts: widgets, WhatsApp numbers, QR sessions.")

_LOOK_EVERY_S = 2.0
_PAIRING_S = 180.0


class Kind(StrEnum):
    """The kinds of channel."""

    WIDGET = "WIDGET"
    WHATSAPP_CLOUD = "WHATSAPP_CLOUD"
    WHATSAPP_QR = "WHATSAPP_QR"


@channels_group.command("create")
def create_channel(
    customer: Customer,
    chatbot: Annotated[uuid.UUID, typer.Option(help="The bot that answers there.", metavar="ID")],
    kind: Annotated[Kind, typer.Option(case_sensitive=False)],
    *,
    name: Annotated[str | None, typer.Option()] = None,
    external_id: Annotated[
        str | None, typer.Option(help="phone_number_id of a Cloud number, session of a QR account.")
    ] = None,
    config: Pairs = None,
    secret: Pairs = None,
    as_json: AsJson = False,
) -> None:
    """Connect an account. A secret given as NAME=@FILE is read from the file.

    Cloud needs --secret app_secret, verify_token and access_token; QR needs --config gateway_url and --secret secret.
    `replyline channels config KIND` lists all there is.
    """
    channel = do(
        lambda app: channels.create(
            app.database,
            app.vault,
            customer_id=customer,
            chatbot_id=chatbot,
            kind=kind.value,
            name=name or kind.value,
            external_id=external_id,
            config=pairs(config, "--config"),
            secrets=pairs(secret, "--secret"),
        )
    )
    print_record(plain(channel), as_json=as_json)


@channels_group.command("list")
def list_channels(
    customer: AnyCustomer = None,
    *,
    unhealthy: Annotated[
        bool, typer.Option("--unhealthy", help="Only those that cannot send, and since when.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    as_json: AsJson = False,
) -> None:
    """List the channels of one customer, or those of all with their health: what has been unhealthy for longest is first."""
    if customer is None or unhealthy:
        _list_health(customer, unhealthy=unhealthy, limit=limit, as_json=as_json)
        return
    found = do(lambda app: channels.list_page(app.database, customer_id=customer, limit=limit))
    rows(
        found,
        ("id", "kind", "name", "external_id", "enabled", "health", "health_reason", "channel_key"),
        "channels",
        as_json=as_json,
    )


def _list_health(customer: uuid.UUID | None, *, unhealthy: bool, limit: int, as_json: bool) -> None:
    found = do(
        lambda app: operator.channels_health(app.database, customer_id=customer, unhealthy=unhealthy, limit=limit)
    )
    columns = ("id", "customer", "kind", "name", "health", "health_reason", "unhealthy_since")
    rows(found, columns, "unhealthy channels" if unhealthy else "channels", as_json=as_json)


@channels_group.command("show")
def show_channel(record_id: Id, customer: AnyCustomer = None, as_json: AsJson = False) -> None:
    """Show one channel and where its callbacks go; its secrets stay sealed."""
    channel = do_for(
        "channel", record_id, customer, lambda app, owner: channels.get(app.database, record_id, customer_id=owner)
    )
    callback = {"WHATSAPP_CLOUD": "whatsapp-cloud", "WHATSAPP_QR": "whatsapp-qr"}.get(channel.kind)
    path = None if callback is None else f"/callbacks/{callback}/{channel.channel_key}"
    print_record({**plain(channel), "callback": path}, as_json=as_json)


@channels_group.command("set")
def set_channel(
    record_id: Id,
    customer: AnyCustomer = None,
    *,
    name: Annotated[str | None, typer.Option()] = None,
    config: Pairs = None,
    secret: Pairs = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a channel; secrets that are left out stay."""
    changes: ChannelChanges = {}
    if name is not None:
        changes["name"] = name
    if config:
        changes["config"] = pairs(config, "--config")
    if secret:
        changes["secrets"] = pairs(secret, "--secret")
    if enabled is not None:
        changes["enabled"] = enabled
    channel = do_for(
        "channel",
        record_id,
        customer,
        lambda app, owner: channels.update(app.database, app.vault, record_id, customer_id=owner, changes=changes),
    )
    print_record(plain(channel), as_json=as_json)


@channels_group.command("delete")
def delete_channel(record_id: Id, customer: AnyCustomer = None, yes: Sure = False) -> None:
    """Delete a channel with its conversations."""
    ask(f"Delete channel {record_id} with its conversations?", yes)
    do_for(
        "channel", record_id, customer, lambda app, owner: channels.delete(app.database, record_id, customer_id=owner)
    )


@channels_group.command("config")
def show_config(kind: Annotated[Kind, typer.Argument(case_sensitive=False)]) -> None:
    """List what a kind of channel can be configured with."""
    form = FORMS[kind.value]
    settings = [{"name": name, "meaning": meaning} for name, (_, meaning) in form.config.items()]
    settings += [{"name": name, "meaning": "a secret (--secret)"} for name in sorted(form.secrets)]
    rows_of = [{**row, "needed": "yes" if row["name"] in form.required else ""} for row in settings]
    print_rows(rows_of, ("name", "needed", "meaning"), as_json=False, empty="nothing")


@channels_group.command("resume")
def resume_channel(record_id: Id, customer: AnyCustomer = None) -> None:
    """Say that an unhealthy channel is mended: what it holds goes out, at the pace of its limits."""

    async def work(app: App, owner: uuid.UUID) -> str:
        found_or_fail(await channels.get(app.database, record_id, customer_id=owner), "channel", record_id)
        healed = await app.heal_channel(record_id, customer_id=owner)
        return "the channel goes on" if healed else "the channel was healthy already"

    console.print(do_for("channel", record_id, customer, work), style="dim")


@channels_group.command("unread")
def list_unread(
    record_id: Id,
    customer: AnyCustomer = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show callbacks that were not understood, newest first; they are kept for a week."""
    found = do_for(
        "channel",
        record_id,
        customer,
        lambda app, owner: unread.list_page(app.database, customer_id=owner, channel_id=record_id, limit=limit),
    )
    rows(found, ("received_at", "reason", "body"), "unread callbacks", as_json=as_json)


# Sessions.


class Change(StrEnum):
    """What can be done to a session."""

    START = "start"
    RESTART = "restart"
    LOGOUT = "logout"


@channels_group.command("session")
def session(
    record_id: Id,
    customer: AnyCustomer = None,
    *,
    change: Annotated[Change | None, typer.Argument(help="Nothing: show it.")] = None,
    pair: Annotated[
        str | None, typer.Option(help="Pair by a code for this telephone, not by a picture.", metavar="PHONE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the session of a QR channel, or start, restart or log it out.

    `start` shows the code to scan (WhatsApp, Linked devices) until the telephone is paired, for three minutes at most.
    """
    if change is Change.START and not as_json:
        do_for("channel", record_id, customer, lambda app, owner: _pair(app, record_id, owner, pair))
        return
    found = do_for(
        "channel",
        record_id,
        customer,
        lambda app, owner: _with_account(app, record_id, owner, lambda account: _changed(app, account, change, pair)),
    )
    _show(found, as_json=as_json)


async def _changed(app: App, account: ChannelAccount, change: Change | None, phone: str | None) -> Session:
    match change:
        case Change.START:
            started = await _start(app, account)
            return await pair_session(account, app.http, phone=_digits(phone)) if phone else started
        case Change.RESTART | Change.LOGOUT:
            return await change_session(account, app.http, change.value)
        case None:
            return await show_session(account, app.http)


async def _start(app: App, account: ChannelAccount) -> Session:
    ready = read_ready(app.settings) or {}
    api = app.settings.public_url or str(ready.get("api") or app.settings.reached_at)
    url = f"{api.rstrip('/')}/callbacks/whatsapp-qr/{account.channel_key}"
    return await connect_session(account, app.http, callback_url=url, label=account.external_id)


async def _pair(app: App, channel_id: uuid.UUID, customer: uuid.UUID, phone: str | None) -> bool:
    """Show each new code until the telephone is paired; True then."""
    found = await _with_account(app, channel_id, customer, lambda account: _changed(app, account, Change.START, phone))
    shown = said = ""
    deadline = time.monotonic() + _PAIRING_S
    while found.state != "open":
        code = _code(found)
        if code and code != shown:
            shown = code
            _show_code(found)
        elif not code and (state := _state(found)) != said:
            said = state
            console.print(state, style="dim")
        if time.monotonic() > deadline:
            raise CommandFailed(f"nobody paired within {_PAIRING_S:g} s; the session is {found.state}", Exit.FAILED)
        await asyncio.sleep(_LOOK_EVERY_S)
        found = await _with_account(app, channel_id, customer, lambda account: show_session(account, app.http))
    console.print(f"paired with {found.phone or 'a telephone'}: the session is open", style="green")
    return True


async def _with_account(
    app: App, channel_id: uuid.UUID, customer: uuid.UUID, work: Callable[[ChannelAccount], Awaitable[Session]]
) -> Session:
    found_or_fail(await channels.get(app.database, channel_id, customer_id=customer), "channel", channel_id)
    account = found_or_fail(await app.account(channel_id), "channel", channel_id)
    if account.kind != "WHATSAPP_QR":
        raise CommandFailed(f"a channel {account.kind} has no session", Exit.WRONG_CALL)
    try:
        return await work(account)
    except JobError as error:
        raise CommandFailed(str(error), Exit.UNAVAILABLE) from error


def _state(found: Session) -> str:
    why = f": {found.last_error.message}" if found.last_error is not None else ""
    return f"the session is {found.state}{why}"


def _digits(phone: str) -> str:
    digits = phone.removeprefix("+").replace(" ", "").replace("-", "")
    if not digits.isdecimal() or not 6 <= len(digits) <= 20:
        raise CommandFailed(f"a telephone number is digits with the country code, not {phone!r}", Exit.WRONG_CALL)
    return digits


def _code(found: Session) -> str:
    code = found.pairing_code or found.qr
    return code.code if code is not None else ""


def _show_code(found: Session) -> None:
    if found.pairing_code is not None:
        console.print("On the telephone: Linked devices, Link with phone number, and type", found.pairing_code.code)
    elif found.qr is not None:
        console.print("On the telephone: WhatsApp, Linked devices, Link a device, and scan")
        segno.make(found.qr.code, error="l").terminal(compact=True)


def _show(found: Session, *, as_json: bool) -> None:
    shown = msgspec.to_builtins(found)
    if as_json:
        print_json(shown)
        return
    print_record({name: value for name, value in shown.items() if name not in {"qr", "pairing_code"}}, as_json=False)
    if _code(found):
        _show_code(found)
    if found.state in {"logged_out", "banned"}:
        errors.print("nothing is sent until a telephone is paired: replyline channels session … start", style="yellow")
