"""`replyline chatbots --reference`, against a real database."""

import json
from pathlib import Path

from replyline.store.database import Database
from tests.cli.calling import calling
from tests.make import make_customer


async def test_a_chatbots_reference_is_given_shown_and_taken_away(
    database: Database, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    customer = await make_customer(database)
    async with calling(valkey_url, database_url, tmp_path) as call:
        created = await call(f"chatbots create --customer {customer.id} --name bot --reference test-bot-id --json")
        assert created.code == 0, created
        made = json.loads(created.out)
        assert made["external_reference"] == "test-bot-id"
        second = await call(f"chatbots create --customer {customer.id} --name second --reference test-bot-id")
        assert second.code == 2
        assert "another chatbot has this external reference" in second.err
        cleared = await call(f"chatbots set --customer {customer.id} {made['id']} --reference '' --json")
        assert (cleared.code, json.loads(cleared.out)["external_reference"]) == (0, None)
