"""`replyline workers`: who works the queues, as their connections say."""

from replyline.app import App
from replyline.broker import CommandRefused
from replyline.cli.output import print_rows
from replyline.cli.records import AsJson, do
from replyline.cli.running import CommandFailed
from replyline.jobs import QUEUE_NAMES


def workers(as_json: AsJson = False) -> None:
    """List the connected workers and the queues that each takes jobs from; `trace` names a worker by the same name.

    Workers of BullMQ for Node are in the list too. A worker without a connection to Redis is not.
    """
    columns = ("worker", "queues", "connected_s", "address")
    print_rows(
        do(_workers), columns, as_json=as_json, empty="no worker is connected: start one with `replyline worker`"
    )


async def _workers(app: App) -> list[dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    taken: dict[str, list[str]] = {}
    try:
        for queue in QUEUE_NAMES:
            for client in await app.broker.workers(queue):
                name = client.worker or client.address
                taken.setdefault(name, []).append(queue)
                found[name] = {"worker": name, "connected_s": client.connected_s, "address": client.address}
    except CommandRefused as error:
        raise CommandFailed(f"this Redis user may not list connections (CLIENT LIST): {error}") from error
    return [{**row, "queues": taken[name]} for name, row in found.items()]
