"""Every command that README and docs show runs on real records, as a table and as JSON."""

import asyncio
import inspect
import json
import os
import pty
import re
import sys
from functools import cache
from pathlib import Path

import typer
from typer.core import TyperGroup

from replyline.cli import COMMANDS, make_app
from replyline.cli.reference import reference
from replyline.store.database import Database
from tests.cli.calling import calling, stores
from tests.cli.documented import ELSEWHERE, ROOT, documented, examples, options_of, path_of
from tests.make import make_channel, make_document
from tests.web.everything import make_everything


@cache
def _whole() -> TyperGroup:
    whole = typer.main.get_command(make_app())
    assert isinstance(whole, TyperGroup)
    return whole


def _commands() -> dict[str, frozenset[str]]:
    """Every command, and of a group what is in it."""
    return {name: frozenset(getattr(command, "commands", {})) for name, command in _whole().commands.items()}


def _can_print_json(path: str) -> bool:
    group, _, part = path.partition(" ")
    command = _whole().commands[group]
    if part:
        assert isinstance(command, TyperGroup)
        command = command.commands[part]
    return any("--json" in parameter.opts for parameter in command.params)


def test_every_command_of_the_pages_is_one_that_the_tests_run() -> None:
    commands = _commands()
    known: dict[str, set[str]] = {}
    for example in examples():
        known.setdefault(path_of(example, commands), set()).update(options_of(example))
    shown = list(documented())
    assert len(shown) > 30
    for page, call in shown:
        path = path_of(call, commands)
        assert path in known or path in ELSEWHERE, f"{page} shows a command that no test runs: {call}"
        if path in known:
            assert options_of(call) <= known[path] | {"--json"}, f"{page} shows options that no test uses: {call}"
    every = {f"{name} {part}" for name, parts in commands.items() for part in parts}
    every |= {name for name, parts in commands.items() if not parts}
    assert every - known.keys() - ELSEWHERE.keys() == set()
    assert all((ROOT / file).is_file() for file in ELSEWHERE.values())


def test_the_page_of_commands_is_what_they_say_of_themselves() -> None:
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == reference(), "run `make reference`"


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    for name, (_, line) in COMMANDS.items():
        own = _whole().commands[name].help
        assert inspect.cleandoc(own or "").splitlines()[0] == line


async def test_every_example_runs_as_a_table_and_as_json(
    database: Database, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    everything = await make_everything(database)
    spare = await make_channel(database, everything.scene.chatbot, "WIDGET")
    document = await make_document(database, everything.scene.chatbot, title="Spare")
    file = tmp_path / "key.txt"
    file.write_text("a-secret-of-more-than-thirty-two-characters")
    names = {name: str(value) for name, value in everything.ids.items()}
    names |= {"file": str(file), "spare_channel_id": str(spare.id), "spare_document_id": str(document.id)}
    commands = _commands()
    async with calling(valkey_url, database_url, tmp_path) as call:
        for example in examples():
            line = example.format(**names)
            called = await call(line)
            assert (called.code, called.err) == (0, ""), (line, called)
            if "--json" in line:
                json.loads(called.out)
                continue
            assert called.out or path_of(example, commands).endswith(("delete", "set")), line
            if _can_print_json(path_of(example, commands)):
                again = await call(f"{line} --json")
                if again.code == 4 and re.search(r"delete|create", line):
                    continue
                assert json.loads(again.out) is not None, (line, again)


_WRONG = {
    "dead-letters list --queue nope": "the queues are incoming-messages",
    "queues pause nope": "the queues are incoming-messages",
    "trace nope": "there is no message, trace or job nope",
    "channels show 0192f0c1-5b1a-7cc0-8000-000000000001": "there is no channel",
    "customers create --name X --price much": "a price is a number",
}


async def test_a_wrong_word_is_an_error_that_names_what_is_right(
    database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    async with calling(valkey_url, database_url, tmp_path) as call:
        for line, said in _WRONG.items():
            called = await call(line)
            assert called.code in {2, 4}, line
            assert said in called.err
            assert called.out == "", line


async def test_discarding_all_asks_and_deletes_nothing_without_a_yes(
    database: Database, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    everything = await make_everything(database)
    async with calling(valkey_url, database_url, tmp_path) as call:
        called = await call("dead-letters discard --all")
        assert called.code == 1
        assert "Delete 1 dead letter for good?" in called.out + called.err
        assert await everything.scene.value("SELECT count(*) FROM all_jobs WHERE state = 'DEAD'") == 1


async def test_a_contacts_name_cannot_steer_the_terminal(
    database: Database, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    everything = await make_everything(database)
    await everything.scene.value("UPDATE contacts SET name = E'Eve\\x1b]0;owned\\x07\\u009b31m'")
    async with calling(valkey_url, database_url, tmp_path) as call:
        lists = f"conversations list --customer {everything.scene.customer.id}"
        table, document = await call(lists), await call(f"{lists} --json")
    for shown in (table, document):
        assert shown.code == 0, shown
        assert "Eve" in shown.out
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown.out)
    assert json.loads(document.out)[0]["contact_name"] == "Eve\x1b]0;owned\x07\x9b31m"


async def test_the_version_and_the_list_of_commands_need_no_server_and_no_library_of_one(tmp_path: Path) -> None:
    async with calling("", "", tmp_path, REDIS_URL="redis://127.0.0.1:9", DATABASE_URL="") as call:
        version, listed = await call("--version"), await call("--help")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", version.out)
    assert all(name in listed.out for name in COMMANDS)


async def test_on_a_terminal_of_eighty_columns_an_id_stays_on_its_line(
    database: Database, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    everything = await make_everything(database)
    dead = str(everything.ids["job_id"])
    ours, theirs = pty.openpty()
    environment = {**stores(valkey_url, database_url, tmp_path), "COLUMNS": "80", "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "replyline", "dead-letters", "list"), env=environment, stdout=theirs
    )
    os.close(theirs)
    shown = await asyncio.to_thread(_read_all, ours)
    assert await process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\r\n")
    assert any(dead in line for line in lines), shown
    assert max(map(len, lines)) <= 80


def _read_all(terminal: int) -> str:
    with os.fdopen(terminal, "rb", buffering=0) as opened:
        parts = []
        while True:
            try:
                part = opened.read(4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode()
