"""`replyline send`: one message put in at the door and watched to its reply."""

import asyncio
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import aiohttp
import msgspec
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from replyline.cli.opening import run
from replyline.cli.output import console, print_json
from replyline.cli.running import CommandFailed, Exit, read_ready
from replyline.cli.trace import stages
from replyline.settings import Settings, load
from replyline.store.timeline import Timeline

_LOOK_EVERY_S = 0.1
_LEAVING = ("QUEUED", "SENDING", "UNKNOWN")
_FINAL = ("SENT", "DELIVERED", "READ")


class ChannelName(StrEnum):
    """The kinds of channel."""

    WIDGET = "WIDGET"
    WHATSAPP_CLOUD = "WHATSAPP_CLOUD"
    WHATSAPP_QR = "WHATSAPP_QR"


class _Accepted(msgspec.Struct, rename="camel"):
    message_id: uuid.UUID


class _Message(msgspec.Struct, rename="camel"):
    content: str
    status: str


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


def send(
    text: Annotated[str, typer.Argument(help="What the person writes.")],
    channel: Annotated[ChannelName, typer.Option(case_sensitive=False, help="Where they write.")] = ChannelName.WIDGET,
    *,
    chatbot: Annotated[uuid.UUID | None, typer.Option(metavar="ID", help="Otherwise the demo's.")] = None,
    user: Annotated[str, typer.Option(help="Who writes.")] = "4915100000001",
    api: Annotated[str | None, typer.Option(help="Otherwise the one that runs here.", metavar="URL")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Otherwise the demo customer's.", envvar="REPLYLINE_API_KEY", show_envvar=False)
    ] = None,
    through: Annotated[
        uuid.UUID | None, typer.Option("--channel-id", help="Where the chatbot has several of a kind.", metavar="ID")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the reply.", min=1, max=3600)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="The whole timeline as JSON, when it is over.")] = False,
) -> None:
    """Try a message: put it in at the door and follow it live to its delivered reply, with each stage's wait and run time.

    Exits 0 when the reply was delivered, 1 when it failed or did not come in time.
    """
    door = _door(load(), api, api_key, chatbot)
    body = {
        "chatbotId": str(door.chatbot_id),
        "externalUserId": user,
        "content": text,
        "channel": channel.value,
    }
    channel_id = str(through) if through else door.channel_ids.get(channel.value)
    if channel_id:
        body["channelId"] = channel_id
    run(_send(door, body, timeout, as_json=as_json))


class _Door:
    """Where messages go in, and as whom."""

    def __init__(self, api: str, api_key: str, chatbot_id: str, channel_ids: Mapping[str, str]) -> None:
        self.api = api.rstrip("/")
        self.api_key = api_key
        self.chatbot_id = chatbot_id
        self.channel_ids = channel_ids


class _Demo(msgspec.Struct):
    api_key: str
    chatbot_id: str
    channels: dict[str, dict[str, str]] = {}


class _Ready(msgspec.Struct):
    api: str
    demo: _Demo | None = None


def _door(settings: Settings, api: str | None, api_key: str | None, chatbot: uuid.UUID | None) -> _Door:
    found = read_ready(settings)
    ready = msgspec.convert(found, _Ready) if found else None
    demo = ready.demo if ready else None
    api = api or (ready.api if ready else None)
    api_key = api_key or (demo.api_key if demo else None)
    chatbot_id = str(chatbot) if chatbot else (demo.chatbot_id if demo else None)
    if api is None:
        raise CommandFailed(
            f"nothing is running in {settings.data}: start `replyline start --demo`, or name a server with --api",
            Exit.UNAVAILABLE,
        )
    if api_key is None or chatbot_id is None:
        raise CommandFailed(
            "name a customer's key with --api-key (or REPLYLINE_API_KEY) and a bot with --chatbot; "
            "`replyline start --demo` has both ready",
            Exit.WRONG_CALL,
        )
    # Of the demo's own chatbot only: another has channels of its own.
    known = demo.channels if demo is not None and chatbot_id == demo.chatbot_id else {}
    ids = {kind: channel["channel_id"] for kind, channel in known.items() if "channel_id" in channel}
    return _Door(api, api_key, chatbot_id, ids)


async def _send(door: _Door, body: dict[str, str], timeout_s: float, *, as_json: bool) -> None:
    headers = {"Authorization": f"Bearer {door.api_key}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as http:
        try:
            async with http.post(f"{door.api}/v1/messages", json=body) as response:
                raw = await response.read()
                if response.status != 202:
                    raise CommandFailed(f"the door answered {response.status}: {_problem(raw)}", _code(response.status))
            message_id = msgspec.json.decode(raw, type=_Accepted).message_id
            seen = await _follow(http, door, message_id, timeout_s, live=not as_json)
            reply = await _reply(http, door, seen)
        except aiohttp.ClientError as error:
            raise CommandFailed(f"{door.api} cannot be reached: {error}", Exit.UNAVAILABLE) from error
    _conclude(message_id, seen, reply, timeout_s, as_json=as_json)


async def _follow(
    http: aiohttp.ClientSession, door: _Door, message_id: uuid.UUID, timeout_s: float, *, live: bool
) -> Timeline:
    deadline = asyncio.get_running_loop().time() + timeout_s
    with Live(console=console, refresh_per_second=10, transient=False) if live else _Quiet() as screen:
        while True:
            async with http.get(f"{door.api}/v1/messages/{message_id}/timeline") as response:
                raw = await response.read()
                if response.status != 200:
                    raise CommandFailed(f"the API answered {response.status}: {_problem(raw)}", _code(response.status))
            seen = _read_timeline(raw)
            screen.update(stages(seen))
            if _over(seen) or asyncio.get_running_loop().time() > deadline:
                return seen
            await asyncio.sleep(_LOOK_EVERY_S)


class _Quiet:
    """Shows nothing, where the output is for a program."""

    def __enter__(self) -> "_Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: Table) -> None:
        """Do not show it."""


def _read_timeline(raw: bytes) -> Timeline:
    """The API's camelCase as the store's record."""
    return msgspec.convert(_snake(msgspec.json.decode(raw)), Timeline, strict=False)


def _snake(value: object) -> object:
    if isinstance(value, dict):
        return {_snake_name(name): _snake(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_snake(entry) for entry in value]
    return value


def _snake_name(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _over(seen: Timeline) -> bool:
    """Whether the person has a reply, or will have none: nothing but webhooks may still be under way."""
    pending = [job for job in seen.jobs if job.state == "WAITING" and job.queue != "webhook-delivery"]
    # A reply behind another of its conversation has no job yet.
    leaving = [said for said in seen.messages if said.direction == "OUTBOUND" and said.status in _LEAVING]
    return bool(seen.jobs) and not pending and not leaving


async def _reply(http: aiohttp.ClientSession, door: _Door, seen: Timeline) -> _Message | None:
    ours = [message for message in seen.messages if message.direction == "OUTBOUND"]
    if not ours:
        return None
    async with http.get(f"{door.api}/v1/messages/{ours[-1].id}") as response:
        raw = await response.read()
        return msgspec.json.decode(raw, type=_Message) if response.status == 200 else None


def _conclude(
    message_id: uuid.UUID, seen: Timeline, reply: _Message | None, timeout_s: float, *, as_json: bool
) -> None:
    delivered = reply is not None and reply.status in _FINAL and _over(seen)
    if as_json:
        print_json(
            {
                "message_id": message_id,
                "delivered": delivered,
                "reply": None if reply is None else reply.content,
                "timeline": msgspec.to_builtins(seen),
            }
        )
    else:
        if reply is not None:
            console.print()
            console.print(Text(reply.content, style="bold" if delivered else "yellow"))
        console.print(f"\nmessage {message_id} · replyline trace {message_id}", style="dim")
    if delivered:
        return
    if not _over(seen):
        raise CommandFailed(f"no reply within {timeout_s:g} s; `replyline trace {message_id}` shows why it waits")
    dead = [job for job in seen.jobs if job.state == "DEAD"]
    why = f"{dead[0].queue} was given up: {dead[0].reason}" if dead else "there is no reply"
    raise CommandFailed(f"{why}; `replyline dead-letters list` shows it" if dead else why)


def _problem(raw: bytes) -> str:
    try:
        problem = msgspec.json.decode(raw, type=_Problem)
    except msgspec.MsgspecError:
        return raw[:200].decode(errors="replace")
    return problem.detail or problem.title


def _code(status: int) -> Exit:
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.UNAVAILABLE if status >= 500 else Exit.WRONG_CALL
