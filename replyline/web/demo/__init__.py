"""/demo: the whole system at work on one page; only where `replyline start --demo` runs, for browsers on this machine."""

import ipaddress
import uuid
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import StringConstraints

from replyline.store import timeline
from replyline.store.moves.dead_letters import NotReplayable
from replyline.web.auth import Here
from replyline.web.demo.own_servers import kill_worker, wipe_redis
from replyline.web.demo.phones import PHONES, Demo, FaultName, PhoneName, Phones
from replyline.web.guards import OpenRoute
from replyline.web.messages import TimelineOut
from replyline.web.problems import Problem, not_found
from replyline.web.widget.origins import is_ours
from replyline.web.wire import In, Out, Text

router = APIRouter(include_in_schema=False, route_class=OpenRoute)

SUGGESTIONS = (
    "What are your opening hours?",
    "Do you deliver on Sundays?",
    "How do I order a birthday cake?",
    "Which bread is gluten-free?",
)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_OF_PROXIES = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via")
_PAGE = files("replyline.web.demo") / "page"

Person = Annotated[str, StringConstraints(pattern=r"^\d{7,15}$")]


async def _running(request: Request, app: Here) -> Demo:
    """The demo that runs beside us, for a browser on this machine: the page acts as the demo's customer.

    Raises:
        Problem: 404, none runs; 403, the call comes from elsewhere or from a page of another site.
    """
    demo = Demo.read(app.settings)
    if demo is None:
        raise Problem(404, "no_demo", "the demo does not run here: start it with `replyline start --demo`")
    if not _is_local(request, app.settings.host):
        raise Problem(403, "not_local", "the demo is for browsers on the machine that it runs on")
    if request.method != "GET" and not _is_own_page(request):
        raise Problem(403, "origin_not_allowed", "only the demo's own page may do this")
    return demo


def _is_local(request: Request, own_host: str) -> bool:
    """Whether a browser on this machine calls: from here, under a name of here, and through no proxy, which anybody may use."""
    peer = request.client.host if request.client else ""
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname
        from_here = peer == own_host or ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
    if any(name in request.headers for name in _OF_PROXIES):
        return False
    return from_here and name in {"127.0.0.1", "localhost", "::1", own_host}


def _is_own_page(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") == "same-origin"
    return is_ours(origin, request.headers, public_url=None)


Running = Annotated[Demo, Depends(_running)]


class SetupOut(Out):
    """What the page shows before anything was written."""

    site_key: str
    business: str
    cloud: dict[str, str]
    qr: dict[str, str]
    suggestions: tuple[str, ...]


class WriteIn(In):
    """What the person on a phone writes."""

    person: Person
    text: Annotated[Text, StringConstraints(min_length=1, max_length=1000)]


class WrittenOut(Out):
    """The message as the pipeline knows it, and as the channel does."""

    message_id: uuid.UUID
    external_id: str


class PhoneMessageOut(Out):
    """One bubble on a phone; `inbound` is what the person wrote. `at` in Unix seconds."""

    id: str
    at: float
    text: str
    inbound: bool


class PhoneOut(Out):
    """What a phone shows."""

    messages: list[PhoneMessageOut]
    typing: bool
    read: bool


class LiveOut(Out):
    """Everything that moves on the page."""

    phones: dict[str, PhoneOut]
    timeline: TimelineOut | None


class FaultIn(In):
    """What goes wrong next."""

    kind: FaultName


@router.get("/", response_class=Response)
async def front(request: Request, app: Here) -> Response:
    """Where somebody goes who knows only the address: to the demo where it runs for them, else to the list of routes."""
    runs = Demo.read(app.settings) is not None and _is_local(request, app.settings.host)
    return Response(status_code=307, headers={"Location": "/demo" if runs else "/docs", "Cache-Control": "no-store"})


@router.get("/demo", response_class=Response)
async def page(_: Running) -> Response:
    """The page."""
    return _file("index.html")


@router.get("/demo/setup")
async def setup(demo: Running) -> SetupOut:
    """What the page shows before anything was written."""
    return SetupOut(
        site_key=demo.site_key,
        business="Blum's Bakery",
        cloud={"id": demo.phone_number_id},
        qr={"session": demo.session},
        suggestions=SUGGESTIONS,
    )


@router.get("/demo/live")
async def live(
    demo: Running, app: Here, person: Annotated[Person, Query()], message: Annotated[uuid.UUID | None, Query()] = None
) -> LiveOut:
    """What both phones of a person show, and where the message is."""
    phones = Phones(app, demo)
    screens: dict[str, PhoneOut] = {name: PhoneOut.model_validate(await phones.screen(name, person)) for name in PHONES}
    found = None
    if message is not None:
        found = await timeline.trace(app.database, message, customer_id=demo.customer_id)
    return LiveOut(phones=screens, timeline=None if found is None else _for_people(found))


@router.post("/demo/phones/{name}/messages", status_code=202)
async def write(name: PhoneName, body: WriteIn, demo: Running, app: Here) -> WrittenOut:
    """The person writes on a phone: its stand-in posts a signed callback to our door, as the real one would."""
    message_id, external_id = await Phones(app, demo).write(name, body.person, body.text)
    return WrittenOut(message_id=message_id, external_id=external_id)


@router.post("/demo/faults", status_code=204)
async def break_something(body: FaultIn, demo: Running, app: Here) -> None:
    """Let something outside fail."""
    await Phones(app, demo).fail(body.kind)


@router.post("/demo/worker/kill", status_code=204)
async def kill_a_worker(demo: Running, app: Here) -> None:
    """End a worker process as the kernel would when memory runs out."""
    await kill_worker(app, demo)


@router.post("/demo/redis/wipe", status_code=204)
async def wipe(demo: Running, app: Here) -> None:
    """Empty Redis, as if its disk were lost."""
    await wipe_redis(app, demo)


@router.post("/demo/dead-letters/{job_id}/replay", status_code=204)
async def replay(job_id: uuid.UUID, demo: Running, app: Here) -> None:
    """Run a job again that was given up."""
    try:
        await app.replay(job_id, customer_id=demo.customer_id)
    except NotReplayable as error:
        raise Problem(409, "not_replayable", str(error)) from error


@router.get("/demo/{name}", response_class=Response)
async def part(name: str, _: Running) -> Response:
    """A file of the page."""
    return _file(name)


def _for_people(found: timeline.Timeline) -> TimelineOut:
    """Without where in our code it happened."""
    shown = TimelineOut.model_validate(found)
    for job in shown.jobs:
        for error in job.errors:
            error.stack = ""
    return shown


def _file(name: str) -> Response:
    suffix = PurePosixPath(name).suffix
    file = _PAGE / name
    if suffix not in _TYPES or "/" in name or not file.is_file():
        raise not_found("page")
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
    return Response(file.read_bytes(), headers=headers, media_type=f"{_TYPES[suffix]}; charset=utf-8")
