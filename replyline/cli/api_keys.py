"""The commands of API keys: which there are, when each was last used, and who made and revoked them."""

import uuid
from typing import Annotated

import typer

from replyline.cli.output import print_record
from replyline.cli.records import AsJson, Customer, Id, do, found_or_fail, group, rows
from replyline.store import api_keys, audit

keys_group = group("api-keys", "API keys of customers: when each was last used; revoke one.")
_LIMIT = typer.Option(min=1, max=1000)


@keys_group.command("list")
def list_keys(customer: Customer, limit: Annotated[int, _LIMIT] = 200, as_json: AsJson = False) -> None:
    """List a customer's keys, oldest first, revoked ones too."""
    found = do(lambda app: api_keys.list_page(app.database, customer_id=customer, limit=limit))
    columns = ("id", "name", "key_prefix", "created_at", "last_used_at", "revoked_at")
    rows(found, columns, "keys", as_json=as_json)


@keys_group.command("revoke")
def revoke_key(record_id: Id, customer: Customer) -> None:
    """Revoke a key; it is refused everywhere within 5 seconds."""
    revoked = do(lambda app: api_keys.revoke(app.database, record_id, customer_id=customer))
    found_or_fail(revoked, "live key", record_id)
    print_record({"id": record_id, "revoked": True}, as_json=False)


def audit_trail(
    customer: Annotated[uuid.UUID | None, typer.Option("--customer", help="Only this one's.", metavar="ID")] = None,
    limit: Annotated[int, _LIMIT] = 200,
    as_json: AsJson = False,
) -> None:
    """Show which API keys were made and revoked, by whom, newest first."""
    found = do(lambda app: audit.list_page(app.database, customer_id=customer, limit=limit))
    columns = ("created_at", "customer_id", "actor", "action", "subject_name", "subject_id")
    rows(found, columns, "events", as_json=as_json)
