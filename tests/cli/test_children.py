"""What `replyline start` tells the programs that it runs beside API and workers."""

import sys
from pathlib import Path

import pytest

from replyline.cli.children import Children
from replyline.settings import load
from tests.waiting import until

_SECRETS = {
    "REPLYLINE_ADMIN_KEY": "the-operators-own-key",
    "REPLYLINE_SECRET_KEY": "x5s1X0xZ5xq1m4y3k2j1h0g9f8e7d6c5b4a3Z2Y1X0Q=",
    "DATABASE_URL": "postgresql://someone:hidden@127.0.0.1:9/none",
    "REDIS_URL": "redis://:hidden@127.0.0.1:9/0",
    "AWS_SECRET_ACCESS_KEY": "the-buckets-key",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_stand_ins_are_told_no_key_and_no_address_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Failed before: they had the whole environment of `replyline start`, and the database and secret key besides."""
    for name, value in _SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    (tmp_path / "processes").mkdir()
    children = Children(load(data=tmp_path), port=0, demo=True)
    try:
        assert "openai" in await children.start_standins(30)
        (pid,) = (tmp_path / "processes" / "standins.pid").read_text(encoding="utf-8").split()[:1]
        environment = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")  # noqa: ASYNC240  a test may look
    finally:
        await children.stop(0)
    assert {"LC_ALL=C.UTF-8", f"REPLYLINE_DATA={tmp_path}"} <= set(environment)
    for name, value in _SECRETS.items():
        assert not [one for one in environment if one.startswith(f"{name}=") or value in one]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_workers_do_not_have_the_operators_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Failed before: a key that the environment named was in every worker's environment, which has no use for it."""
    for name, value in _SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "processes").mkdir()
    children = Children(load(data=tmp_path), port=0, demo=False)
    try:
        await children.start_serving()
        holders = {name: "REPLYLINE_ADMIN_KEY" in await _environment(tmp_path, name) for name in ("api", "worker-0")}
    finally:
        await children.stop(0)
    assert holders == {"api": True, "worker-0": False}


async def _environment(data: Path, name: str) -> dict[str, str]:
    """That of the process, which writes its id as soon as it runs."""
    file = data / "processes" / f"{name}.pid"
    await until(lambda: file.read_text(encoding="utf-8").strip(), what="a process id")
    pid = file.read_text(encoding="utf-8").strip()
    told = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")  # noqa: ASYNC240  a test may look
    return dict(one.partition("=")[::2] for one in told if one)
