"""Deletes what rows have left behind: files, and sessions at gateways. An outage puts it off and loses nothing."""

import asyncio

import structlog

from replyline.app import App
from replyline.channels import ChannelAccount
from replyline.channels.whatsapp_qr.gateway import delete_session
from replyline.errors import JobError
from replyline.files import FilesUnavailable
from replyline.redaction import redact
from replyline.store import deletions
from replyline.store.database import StoreUnavailable
from replyline.store.deletions import SessionToDelete
from replyline.vault import UnreadableSecret

log = structlog.get_logger(__name__)

_FILES = 200
_ROUNDS = 5
_FILES_AT_ONCE = 20
_SESSIONS = 20


class Deletions:
    """Looks every few seconds. Not part of the sweeper, which must not wait for a gateway or a bucket."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def run(self) -> None:
        """Delete what is due until cancelled; an absent store is waited for. Any other error is raised."""
        while True:
            try:
                await delete_left_behind(self._app)
            except StoreUnavailable as error:
                log.warning("deletions.store_away", error=str(error))
            await asyncio.sleep(self._app.settings.sweep_every_s)


async def delete_left_behind(app: App) -> None:
    """Delete what is due: at most 1,000 files and 20 sessions. Any number of processes may; each thing is one process's."""
    for _ in range(_ROUNDS):
        if await _delete_files(app) < _FILES:
            break
    sessions = await deletions.claim_sessions(app.database, limit=_SESSIONS)
    await asyncio.gather(*(_delete_session(app, session) for session in sessions))


async def _delete_files(app: App) -> int:
    paths = await deletions.claim_files(app.database, limit=_FILES)
    for start in range(0, len(paths), _FILES_AT_ONCE):
        some = paths[start : start + _FILES_AT_ONCE]
        results = await asyncio.gather(*(app.files.delete(path) for path in some), return_exceptions=True)
        failed = {path: result for path, result in zip(some, results, strict=True) if result is not None}
        if deleted := [path for path in some if path not in failed]:
            await deletions.files_deleted(app.database, deleted)
        for path, error in failed.items():
            if not isinstance(error, FilesUnavailable):
                raise error
            log.error("deletions.file_stays", path=path, error=str(error))
        if len(failed) == len(some):  # the place is away: the rest would fail alike
            return 0
    return len(paths)


async def _delete_session(app: App, session: SessionToDelete) -> None:
    try:
        account = ChannelAccount(
            id=session.id,
            customer_id=session.id,  # it may be gone; nothing of it is used
            chatbot_id=session.id,
            kind="WHATSAPP_QR",
            channel_key="",
            external_id=session.session,
            config={"gateway_url": session.gateway_url},
            secrets=session.open_secrets(app.vault),
        )
        await delete_session(account, app.http)
    except (JobError, UnreadableSecret) as error:
        said = redact(str(error))[:1000]
        log.warning("deletions.session_stays", session=session.session, tries=session.tries, error=said)
        await deletions.postpone_session(app.database, session.id, said)
    else:
        await deletions.session_deleted(app.database, session.id)
