"""What the adapter must not forget, in one SQLite file: sessions, sends with their outcome, what was seen, and events to be told.

Evolution keeps its own retries in memory and knows no idempotency key (Evolution API v2.3): both are made up for here.
"""

import asyncio
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

KEPT_S = 86_400.0
"""How long a send's key is remembered, an event is repeated, and a message is recognised."""
MAX_WAITING = 100_000
"""Events of one session that wait at most; the oldest make room."""

Result = TypeVar("Result")

_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sends (
    session TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, chat TEXT NOT NULL, text TEXT NOT NULL,
    wa_id TEXT, started_at REAL NOT NULL, PRIMARY KEY (session, key)
);
CREATE INDEX IF NOT EXISTS sends_wa_id ON sends (session, wa_id);
CREATE TABLE IF NOT EXISTS messages (
    session TEXT NOT NULL, id TEXT NOT NULL, jid TEXT NOT NULL, alt TEXT, from_me INTEGER NOT NULL, file BLOB,
    at REAL NOT NULL, PRIMARY KEY (session, id)
);
CREATE TABLE IF NOT EXISTS seen (session TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (session, id));
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, body BLOB NOT NULL, at REAL NOT NULL,
    aside INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS outbox_session ON outbox (session, seq) WHERE aside = 0;
"""


class Session(msgspec.Struct):
    """One instance of Evolution's as the contract shows it, and what is needed to speak for it."""

    id: str
    webhook_url: str
    webhook_secret: str
    label: str | None = None
    path_token: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    """The last part of the address that Evolution is told: nobody else knows it."""
    header_token: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    state: str = "connecting"
    phone: str | None = None
    qr: str | None = None
    pairing_code: str | None = None
    code_expires_at: float = 0.0
    last_error: dict[str, object] | None = None
    told_at: str = ""
    """When Evolution wrote what it last told of the connection (ISO 8601): what is older came late."""


class Send(msgspec.Struct):
    """One send as it is remembered; without `wa_id` its outcome is not known."""

    digest: bytes
    chat: str
    text: str
    wa_id: str | None
    started_at: float


class Seen(msgspec.Struct):
    """A message that was told, by its WhatsApp id: whose chat it stands in."""

    id: str
    jid: str
    alt: str | None
    from_me: bool
    file: bytes | None = None
    """For a message with a file: what Evolution needs to fetch it again, as JSON."""


class Waiting(msgspec.Struct):
    """One event that waits to be told."""

    seq: int
    body: bytes
    at: float


class Memory:
    """The file. Every call is one transaction, in a thread."""

    def __init__(self, folder: Path) -> None:
        """Open or make it. Raises OSError, sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "evolution.db"
        file.touch(mode=stat.S_IRUSR | stat.S_IWUSR)  # it holds secrets, and what people wrote
        os.chmod(file, stat.S_IRUSR | stat.S_IWUSR)
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_TABLES)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    async def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.to_thread(self._transaction, work)

    def _transaction(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            return result

    async def check(self) -> None:
        """Write something. Raises sqlite3.Error where nothing can be kept."""
        now = time.time()
        await self._do(lambda db: db.execute("INSERT OR REPLACE INTO seen VALUES ('', 'health', ?)", (now,)))

    # Sessions.

    async def sessions(self) -> list[Session]:
        """All of them."""
        rows = await self._do(lambda db: db.execute("SELECT data FROM sessions ORDER BY id").fetchall())
        return [msgspec.json.decode(row[0], type=Session) for row in rows]

    async def keep_session(self, session: Session) -> None:
        """Write a session."""
        data = msgspec.json.encode(session)
        await self._do(lambda db: db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?)", (session.id, data)))

    async def forget_session(self, session_id: str) -> None:
        """Delete a session with all that is remembered of it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
            for table in ("sends", "messages", "seen", "outbox"):
                db.execute(f"DELETE FROM {table} WHERE session = ?", (session_id,))  # noqa: S608  the names are above

        await self._do(work)

    # Sends.

    async def begin_send(self, session: str, key: str, send: Send) -> Send | None:
        """Remember a send before it is tried; what is known of it already, else None."""

        def work(db: sqlite3.Connection) -> Send | None:
            row = db.execute(
                "SELECT digest, chat, text, wa_id, started_at FROM sends WHERE session = ? AND key = ?", (session, key)
            ).fetchone()
            if row is not None:
                return Send(*row)
            db.execute(
                "INSERT INTO sends VALUES (?, ?, ?, ?, ?, ?, ?)",
                (session, key, send.digest, send.chat, send.text, send.wa_id, send.started_at),
            )
            return None

        return await self._do(work)

    async def try_again(self, session: str, key: str) -> None:
        """The send of unknown outcome is tried once more, from now on."""
        now = time.time()
        await self._do(
            lambda db: db.execute("UPDATE sends SET started_at = ? WHERE session = ? AND key = ?", (now, session, key))
        )

    async def end_send(self, session: str, key: str, wa_id: str) -> None:
        """Evolution took the message under this id."""
        await self._do(
            lambda db: db.execute(
                "UPDATE sends SET wa_id = coalesce(wa_id, ?) WHERE session = ? AND key = ?", (wa_id, session, key)
            )
        )

    async def forget_send(self, session: str, key: str) -> None:
        """Evolution surely did not take it."""
        await self._do(
            lambda db: db.execute("DELETE FROM sends WHERE session = ? AND key = ? AND wa_id IS NULL", (session, key))
        )

    async def claim_sent(self, session: str, chat: str, text: str, wa_id: str) -> str | None:
        """Evolution reports a message of its own API: the key of the send of unknown outcome that it must be, if any."""

        def work(db: sqlite3.Connection) -> str | None:
            known = db.execute("SELECT key FROM sends WHERE session = ? AND wa_id = ?", (session, wa_id)).fetchone()
            if known is not None:
                return str(known[0])
            row = db.execute(
                "SELECT key FROM sends WHERE session = ? AND wa_id IS NULL AND chat = ? AND text = ? "
                "ORDER BY started_at LIMIT 1",
                (session, chat, text),
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE sends SET wa_id = ? WHERE session = ? AND key = ?", (wa_id, session, row[0]))
            return str(row[0])

        return await self._do(work)

    async def key_of(self, session: str, wa_id: str) -> str | None:
        """The key that a message of ours was sent with."""
        row = await self._do(
            lambda db: db.execute("SELECT key FROM sends WHERE session = ? AND wa_id = ?", (session, wa_id)).fetchone()
        )
        return None if row is None else str(row[0])

    # Events.

    async def tell(
        self, session: str, bodies: list[bytes], *, once: str | None = None, seen: Seen | None = None
    ) -> bool:
        """Put events into the outbox, and remember the message; with `once`, only if that was never seen. False where it was."""

        def work(db: sqlite3.Connection) -> bool:
            now = time.time()
            if once is not None:
                fresh = db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (session, once, now)).rowcount
                if not fresh:
                    return False
            if seen is not None:
                db.execute(
                    "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (session, seen.id, seen.jid, seen.alt, seen.from_me, seen.file, now),
                )
            db.executemany(
                "INSERT INTO outbox (session, body, at) VALUES (?, ?, ?)", [(session, b, now) for b in bodies]
            )
            db.execute(
                "DELETE FROM outbox WHERE session = ? AND seq <= ("
                "SELECT seq FROM outbox WHERE session = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (session, session, MAX_WAITING),
            )
            return True

        return await self._do(work)

    async def seen(self, session: str, message_id: str) -> Seen | None:
        """A message that was told within a day."""
        row = await self._do(
            lambda db: db.execute(
                "SELECT id, jid, alt, from_me, file FROM messages WHERE session = ? AND id = ?", (session, message_id)
            ).fetchone()
        )
        return None if row is None else Seen(row[0], row[1], row[2], bool(row[3]), row[4])

    async def next_event(self, session: str) -> Waiting | None:
        """The oldest event that waits."""
        row = await self._do(
            lambda db: db.execute(
                "SELECT seq, body, at FROM outbox WHERE session = ? AND aside = 0 ORDER BY seq LIMIT 1", (session,)
            ).fetchone()
        )
        return None if row is None else Waiting(*row)

    async def told(self, seq: int) -> None:
        """It was taken, or is too old."""
        await self._do(lambda db: db.execute("DELETE FROM outbox WHERE seq = ?", (seq,)))

    async def put_aside(self, seq: int) -> None:
        """It is refused again and again: the others go on."""
        await self._do(lambda db: db.execute("UPDATE outbox SET aside = 1 WHERE seq = ?", (seq,)))

    async def waiting(self, session: str) -> int:
        """How many events wait."""
        row = await self._do(
            lambda db: db.execute("SELECT count(*) FROM outbox WHERE session = ? AND aside = 0", (session,)).fetchone()
        )
        return int(row[0])

    async def purge(self) -> None:
        """Forget what is older than a day."""
        before = time.time() - KEPT_S

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM sends WHERE started_at < ?", (before,))
            db.execute("DELETE FROM messages WHERE at < ?", (before,))
            db.execute("DELETE FROM seen WHERE at < ?", (before,))
            db.execute("DELETE FROM outbox WHERE at < ?", (before,))

        await self._do(work)
