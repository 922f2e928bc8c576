"""What a statement costs Postgres: the pages that it read, which no busy machine changes."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from replyline.store.database import Connection


@asynccontextmanager
async def explained(connection: Connection) -> AsyncIterator[list[tuple[str, int]]]:
    """Every statement that runs inside, with the pages that it read, told by Postgres itself (auto_explain)."""
    found: list[tuple[str, int]] = []

    def note(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
        match = re.search(r"plan:\n(\{.*\})", str(message.message), re.DOTALL)
        if match is not None:
            plan = msgspec.json.decode(match[1], type=dict[str, object])
            root = msgspec.convert(plan["Plan"], dict[str, object])
            pages = msgspec.convert(root["Shared Hit Blocks"], int) + msgspec.convert(root["Shared Read Blocks"], int)
            found.append((str(plan["Query Text"]), pages))

    await connection.execute("LOAD 'auto_explain'")
    for setting, value in (
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_buffers", "on"),
        ("auto_explain.log_timing", "off"),
        ("auto_explain.log_format", "json"),
        ("client_min_messages", "log"),
    ):
        await connection.execute(f"SET {setting} = '{value}'")
    connection.add_log_listener(note)
    try:
        yield found
    finally:
        connection.remove_log_listener(note)
        await connection.execute("RESET ALL")
