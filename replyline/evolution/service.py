"""The adapter's HTTP side: our gateway contract for Replyline, and a webhook for Evolution."""

import asyncio
import hmac
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec
import structlog
from aiohttp import web

from replyline.evolution import events, requests
from replyline.evolution.api import EvolutionApi, Unknown
from replyline.evolution.files import SentFile
from replyline.evolution.links import fetch_link
from replyline.evolution.memory import Memory, Send, Session
from replyline.evolution.outbox import Outbox
from replyline.evolution.refusal import Refusal
from replyline.external_ids import SESSION
from replyline.supervision import BackgroundTask, Supervisor

log = structlog.get_logger(__name__)

_KEY = re.compile(r"^[\x21-\x7e]{1,128}$")
_JID = re.compile(r"^\+?\d{5,20}(?::\d+)?(?:@(?:s\.whatsapp\.net|c\.us|lid))?$")
_MAX_BODY_BYTES = 4_000_000
_MAX_EVENT_BYTES = 100_000_000
_FILES_AT_ONCE = 4
_PURGE_EVERY_S = 600.0
_STILL_ASKING_MS = 1_000
_TYPING_S = 8.0
_KEPT_FOR_S = 1.0
_KEEPS_WITHIN_S = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Known = TypeVar("Known", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an adapter is told; times in seconds."""

    url: str
    api_key: str
    token: str
    public_url: str
    """Where Evolution reaches this adapter, without a slash at the end."""
    grace_s: float = 20.0
    """How long a send of unknown outcome waits for Evolution to report it, before it is tried again."""
    timeout_s: float = 30.0
    first_wait_s: float = 1.0


class Adapter:
    """Everything that is open."""

    def __init__(
        self, settings: AdapterSettings, memory: Memory, http: aiohttp.ClientSession, link_http: aiohttp.ClientSession
    ) -> None:
        """`link_http` fetches what customers name: it must not reach private addresses."""
        self._settings = settings
        self._memory = memory
        self._http = http
        self._link_http = link_http
        # A file is held whole, and in base64 beside that: few at a time.
        self._files = asyncio.Semaphore(_FILES_AT_ONCE)
        self._api = EvolutionApi(http, settings.url, settings.api_key, timeout_s=settings.timeout_s)
        self._sessions: dict[str, Session] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._sending: set[tuple[str, str]] = set()
        self._public_url = settings.public_url
        self._typing_shown: set[asyncio.Task[None]] = set()
        self._supervisor = Supervisor()
        self._purging: BackgroundTask | None = None
        self._kept_at = -_KEPT_FOR_S

    def reached_at(self, url: str) -> None:
        """Where Evolution reaches this adapter, once that is known."""
        self._public_url = url

    async def open(self) -> None:
        """Take up every session that is remembered."""
        for session in await self._memory.sessions():
            self._take_up(session)
        self._purging = self._supervisor.start("evolution purge", self._purge, vital=False)

    async def close(self) -> None:
        """Stop telling."""
        for shown in self._typing_shown:
            shown.cancel()
        await asyncio.gather(*self._typing_shown, return_exceptions=True)
        if self._purging is not None:
            await self._purging.stop()
        for outbox in self._outboxes.values():
            await outbox.close()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        at = "/v1/sessions/{id}"
        routes: list[tuple[str, str, Handler]] = [
            ("PUT", at, self._put),
            ("GET", at, self._get),
            ("DELETE", at, self._delete),
            ("POST", f"{at}/pair", self._pair),
            ("POST", f"{at}/restart", self._restart),
            ("POST", f"{at}/logout", self._logout),
            ("POST", f"{at}/messages", self._send),
            ("GET", f"{at}/media/{{wa_id}}", self._file),
            ("POST", f"{at}/read", self._read),
            ("POST", f"{at}/typing", self._typing),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, self._guarded(handler))
        app.router.add_get("/health", self._health)
        app.router.add_post("/evolution/{token}", self._hear)
        app.router.add_route("*", "/{path:.*}", _nowhere)
        return app

    # Sessions.

    async def _put(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        if name not in SESSION:
            raise Refusal("invalid", f"a session id must be {SESSION.meaning}")
        put = await _body(request, requests.Put)
        session = self._sessions.get(name) or Session(name, put.webhook_url, put.webhook_secret)
        session.webhook_url, session.webhook_secret, session.label = put.webhook_url, put.webhook_secret, put.label
        await self._memory.keep_session(session)
        self._take_up(session)
        await self._api.create(name, f"{self._public_url}/evolution/{session.path_token}", session.header_token)
        await self._connect(session)
        return await self._shown(session)

    async def _connect(self, session: Session, phone: str | None = None) -> None:
        if await self._api.state(session.id) == "open":
            if session.state != "open":
                await events.change_state(self._memory, session, "open")
        else:
            code, pairing_code = await self._api.connect(session.id, phone)
            await events.show_code(self._memory, session, code, pairing_code)
        self._outboxes[session.id].poke()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Where it does not look open, Evolution is asked: its webhook may have been lost."""
        session = self._known(request)
        if session.state not in {"open", "logged_out", "banned"}:
            await self._look(session)
        return await self._shown(session)

    async def _look(self, session: Session) -> None:
        try:
            state = await self._api.state(session.id)
        except Refusal as error:
            log.info("evolution.no_state", session=session.id, code=error.code)
            return
        if state == "open":
            await events.change_state(self._memory, session, "open")
            self._outboxes[session.id].poke()

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        session = self._known(request)
        await self._api.change("DELETE", "logout", session.id)
        await self._api.change("DELETE", "delete", session.id)
        await self._outboxes.pop(session.id).close()
        del self._sessions[session.id]
        await self._memory.forget_session(session.id)
        return web.Response(status=204)

    async def _pair(self, request: web.Request) -> web.StreamResponse:
        session = self._known(request)
        pair = await _body(request, requests.Pair)
        if session.state == "open":
            raise Refusal("already_open", "the session is open")
        await self._connect(session, pair.phone)
        return await self._shown(session)

    async def _restart(self, request: web.Request) -> web.StreamResponse:
        session = self._known(request)
        if session.state not in {"logged_out", "banned"}:
            await self._api.change("POST", "restart", session.id)
        await self._connect(session)
        return await self._shown(session)

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        session = self._known(request)
        await self._api.change("DELETE", "logout", session.id)
        session.phone = None
        await events.change_state(self._memory, session, "logged_out")
        self._outboxes[session.id].poke()
        return await self._shown(session)

    # Messages.

    async def _send(self, request: web.Request) -> web.StreamResponse:
        session = self._known(request)
        key = request.headers.get("Idempotency-Key", "")
        if not _KEY.match(key):
            raise Refusal("invalid", "Idempotency-Key is missing, or not 1 to 128 visible characters")
        message = await _message(request)
        if not _JID.match(message.to):
            raise Refusal("invalid", "`to` is neither a phone number nor a WhatsApp address")
        if (session.id, key) in self._sending:
            raise Refusal("in_flight", "the same key is being sent", retry_after_ms=_STILL_ASKING_MS)
        self._sending.add((session.id, key))
        try:
            return await self._send_once(session, key, message)
        finally:
            self._sending.discard((session.id, key))

    async def _send_once(self, session: Session, key: str, message: requests.Message) -> web.StreamResponse:
        digest = message.digest
        chat = message.to.partition("@")[0].partition(":")[0].lstrip("+")
        known = await self._memory.begin_send(
            session.id, key, Send(digest, chat, message.recognised_by, None, time.time())
        )
        if known is not None:
            if known.digest != digest:
                raise Refusal("key_reused", "the key came with another message before")
            if known.wa_id is not None:
                return _json(200, {"message_id": key, "wa_id": known.wa_id})
            left_s = self._settings.grace_s - (time.time() - known.started_at)
            if left_s > 0:  # Evolution may still report it (`send.message`)
                wait_ms = min(round(left_s * 1000) + 1, _STILL_ASKING_MS)
                raise Refusal("in_flight", "it is not known whether it went out", retry_after_ms=wait_ms)
            await self._memory.try_again(session.id, key)
        if session.state in {"logged_out", "banned"}:
            if known is None:
                await self._memory.forget_send(session.id, key)
            raise Refusal("banned" if session.state == "banned" else "logged_out", f"the session is {session.state}")
        try:
            wa_id = await self._deliver(session.id, message)
        except Refusal:
            await self._memory.forget_send(session.id, key)
            raise
        except Unknown as error:
            await self._memory.try_again(session.id, key)  # Evolution has the whole grace from now on to report it
            raise Refusal("in_flight", str(error), retry_after_ms=_STILL_ASKING_MS) from error
        await self._memory.end_send(session.id, key, wa_id)
        return _json(202, {"message_id": key, "wa_id": wa_id})

    async def _deliver(self, name: str, message: requests.Message) -> str:
        """Send; its WhatsApp id. Raises Refusal, Unknown."""
        to, reply_to, typing_ms = message.to, message.reply_to, message.typing_ms
        if isinstance(message, requests.Text):
            return await self._api.send(name, to, message.text, reply_to=reply_to, typing_ms=typing_ms)
        async with self._files:
            file = await fetch_link(self._link_http, message.link, message.kind)
            sent = SentFile(message.kind, file.data, file.mime, message.filename or file.name, message.caption)
            return await self._api.send_file(name, to, sent, reply_to=reply_to, typing_ms=typing_ms)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """The file that came with a message: Evolution fetches it from WhatsApp."""
        session = self._known(request)
        seen = await self._memory.seen(session.id, request.match_info["wa_id"])
        if seen is None or seen.file is None:
            raise Refusal("unknown_media", "no such file is known, or no longer")
        async with self._files:
            data = await self._api.file(session.id, msgspec.Raw(seen.file), seen.id)
        return web.Response(body=data, content_type="application/octet-stream")

    async def _read(self, request: web.Request) -> web.StreamResponse:
        session, read = self._known(request), await _body(request, requests.Read)
        await self._api.read(session.id, read.to, read.message_ids)
        return _json(202, {})

    async def _typing(self, request: web.Request) -> web.StreamResponse:
        """Evolution holds the call as long as it shows "typing": nobody waits for that here."""
        session, typing = self._known(request), await _body(request, requests.Typing)
        shown = asyncio.create_task(self._show_typing(session.id, typing))
        self._typing_shown.add(shown)
        shown.add_done_callback(self._typing_shown.discard)
        return _json(202, {})

    async def _show_typing(self, name: str, typing: requests.Typing) -> None:
        try:
            await self._api.typing(name, typing.to, on=typing.on, for_s=_TYPING_S)
        except Refusal as error:
            log.info("evolution.no_typing", session=name, code=error.code)

    # Evolution's webhook.

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        """What Evolution tells. It repeats what is answered 5xx, but not what is answered 400 to 404 or 422 (contracts §3.2)."""
        token = request.match_info["token"]
        session = next((one for one in self._sessions.values() if _same(one.path_token, token)), None)
        if session is None or not _same(session.header_token, request.headers.get("x-replyline-secret", "")):
            return _json(401, {})
        # With base64 turned on for all of Evolution, a file comes along: it is not kept, but must not be refused either.
        raw = await request.clone(client_max_size=_MAX_EVENT_BYTES).read()
        try:
            await events.take(self._memory, session, msgspec.json.decode(raw, type=events.Envelope))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("evolution.not_understood", session=session.id, error=str(error)[:200])
        self._outboxes[session.id].poke()
        return _json(200, {})

    async def _health(self, _: web.Request) -> web.StreamResponse:
        """Whether what is told here is kept and told on. Evolution's own health is not ours: a restart would not mend it."""
        failing = sorted({*self._supervisor.troubles, *([] if await self._can_keep() else ["memory"])})
        return _json(503, {"status": "failing", "failing": failing}) if failing else _json(200, {"status": "ok"})

    async def _can_keep(self) -> bool:
        """Looked at once a second at most: anybody may ask."""
        if time.monotonic() - self._kept_at < _KEPT_FOR_S:
            return True
        try:
            async with asyncio.timeout(_KEEPS_WITHIN_S):
                await self._memory.check()
        except (sqlite3.Error, TimeoutError) as error:
            log.warning("evolution.memory_failed", error=str(error) or "no answer in time")
            return False
        self._kept_at = time.monotonic()
        return True

    # What all have in common.

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            kind, _, token = request.headers.get("Authorization", "").partition(" ")
            try:
                if kind != "Bearer" or not _same(self._settings.token, token):
                    raise Refusal("unauthorized", "wrong token")
                return await handler(request)
            except Refusal as error:
                return _json(error.status, error.body())
            except web.HTTPRequestEntityTooLarge:
                large = Refusal("too_large", f"a body has at most {_MAX_BODY_BYTES} bytes")
                return _json(large.status, large.body())
            except web.HTTPException:
                raise
            except Exception:
                log.exception("evolution.failed", path=request.path)
                failed = Refusal("internal", "the adapter failed", retry_after_ms=1_000)
                return _json(failed.status, failed.body())

        return guarded

    def _known(self, request: web.Request) -> Session:
        session = self._sessions.get(request.match_info["id"])
        if session is None:
            raise Refusal("unknown_session", "there is no such session")
        return session

    def _take_up(self, session: Session) -> None:
        self._sessions[session.id] = session
        if session.id not in self._outboxes:
            self._outboxes[session.id] = Outbox(
                self._memory, session, self._http, self._supervisor, first_wait_s=self._settings.first_wait_s
            )

    async def _shown(self, session: Session) -> web.StreamResponse:
        return _json(200, events.shown(session, waiting_events=await self._memory.waiting(session.id)))

    async def _purge(self) -> None:
        while True:
            await self._memory.purge()
            await asyncio.sleep(_PURGE_EVERY_S)


async def _nowhere(request: web.Request) -> web.StreamResponse:
    error = Refusal("not_found", f"no route {request.method} {request.path}")
    return _json(error.status, error.body())


async def _message(request: web.Request) -> requests.Message:
    try:
        return msgspec.json.decode(await request.read(), type=requests.Text | requests.File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("invalid", str(error)) from error


async def _body(request: web.Request, kind: type[Known]) -> Known:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("invalid", str(error)) from error


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


def _same(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given.encode(errors="surrogatepass"))
