"""media-fetch: fetch a file that a person sent from its channel, and keep it."""

from replyline import metrics
from replyline.app import App
from replyline.channels import CHANNELS
from replyline.errors import Permanent
from replyline.jobs import MediaFetchJob
from replyline.store import deletions, media
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.media import keep_file
from replyline.store.moves.work import Run


async def process(job: MediaFetchJob, run: Run, app: App) -> None:
    """Fetch and keep the file; a repeat writes the same file again."""
    if job.customer_id is None:
        raise Permanent("the job names no customer", reason="unreadable_payload")
    found = await media.get(app.database, job.media_id, customer_id=job.customer_id)
    account = await app.account(found.channel_id) if found is not None else None
    if found is None or account is None:
        raise Permanent("the file's message or channel no longer exists", reason="unknown_media")
    path = f"{found.customer_id}/{found.channel_id}/{found.id}"
    channel = CHANNELS[account.kind]
    http = app.gateway_files_http if channel.files_come_from_a_gateway else app.media_http
    size = await app.files.write(path, channel.fetch_media(account, found.ref, http))
    async with app.database.transaction() as connection:
        kept = await keep_file(connection, run, found.id, path=path, size=size)
    if await media.get(app.database, found.id, customer_id=found.customer_id) is None:  # deleted while it was fetched
        await deletions.note_file(app.database, path)
    elif kept:
        metrics.media_total.labels(account.kind, "stored").inc()


async def give_up(job: MediaFetchJob, _run: Run, _app: App) -> Consequence:
    """The file is marked FAILED; its message stays, and was answered without it."""
    return Consequence(failed_media_id=job.media_id)
