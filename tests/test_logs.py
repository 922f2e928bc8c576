"""Logs: one line an event, in one form, whoever writes it."""

import json
import subprocess
import sys

_PROGRAM = """
import asyncio, logging, warnings
import structlog
from replyline import logs

logs.configure("info", "json")
structlog.get_logger().info("ours", job="1")
try:
    raise ConnectionResetError("gone: postgresql://me:hunter2@db/x")
except ConnectionResetError:
    logging.getLogger("asyncpg").exception("Unhandled exception\\nin a driver")
logging.getLogger("granian").warning("a %s", "server")
logging.getLogger("granian").info("not worth a line")
warnings.warn("an old call")

async def main():
    async def fail():
        raise ValueError("nobody asked")
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task

asyncio.run(main())
"""


def test_foreign_loggers_write_json_lines_as_ours_do() -> None:
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [(line["level"], line.get("logger")) for line in lines] == [
        ("info", None),
        ("error", "asyncpg"),
        ("warning", "granian"),
        ("warning", "py.warnings"),
        ("error", "asyncio"),
    ]
    assert all(line["timestamp"] for line in lines)
    assert lines[1]["event"] == "Unhandled exception\nin a driver"
    assert "ConnectionResetError" in lines[1]["exception"]
    assert "hunter2" not in run.stderr
    assert "nobody asked" in lines[4]["exception"]
