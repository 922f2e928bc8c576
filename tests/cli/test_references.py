"""`replyline chatbots --reference`, against a real database."""

import json
import os
import subprocess
import sys
from pathlib import Path

from replyline.store.database import Database
from tests.make import SECRET_KEY, make_customer


async def test_a_chatbots_reference_is_given_shown_and_taken_away(
    database: Database, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    customer = await make_customer(database)

    def replyline(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "replyline", *words, "--customer", str(customer.id)],
            env={
                **os.environ,
                "REDIS_URL": valkey_url,
                "DATABASE_URL": database_url,
                "REPLYLINE_SECRET_KEY": SECRET_KEY,
                "REPLYLINE_DATA": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    code, said = replyline("chatbots", "create", "--name", "bot", "--reference", "test-bot-id", "--json")
    assert code == 0, said
    made = json.loads(said)
    assert made["external_reference"] == "test-bot-id"
    code, said = replyline("chatbots", "create", "--name", "second", "--reference", "test-bot-id")
    assert code == 2
    assert "another chatbot has this external reference" in said
    code, said = replyline("chatbots", "set", made["id"], "--reference", "", "--json")
    assert (code, json.loads(said)["external_reference"]) == (0, None)
