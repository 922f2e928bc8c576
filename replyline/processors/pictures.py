"""Pictures that people sent, for a model that can look at them; a turn waits for one a little, never for long."""

from replyline.app import App
from replyline.errors import RateLimited
from replyline.files import FilesUnavailable
from replyline.providers import Picture
from replyline.store import media
from replyline.store.media import Media
from replyline.store.turns import Turn

MOST = 4
"""Pictures that a turn shows its model at most; the oldest ones."""
_MAX_BYTES = 5_000_000
_LOOK_AGAIN_S = 0.5
_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})


async def pictures_of(turn: Turn, app: App) -> tuple[Picture, ...]:
    """The pictures of the messages to be answered, if the chatbot's model is to see them.

    Raises:
        RateLimited: one is still being fetched, and `media_wait_s` is not over.
    """
    if not turn.vision:
        return ()
    found = await media.of_turn(
        app.database,
        conversation_id=turn.conversation_id,
        customer_id=turn.customer_id,
        after_seq=turn.after_seq,
        through_seq=turn.through_seq,
        kind="image",
        limit=MOST,
    )
    waiting = [one for one in found if one.state == "PENDING" and one.age_s < app.settings.media_wait_s]
    if waiting:
        raise RateLimited("a picture is still being fetched", after=_LOOK_AGAIN_S, reason="picture_pending")
    loaded = [await _load(one, app) for one in found if one.state == "STORED"]
    return tuple(picture for picture in loaded if picture is not None)


async def _load(one: Media, app: App) -> Picture | None:
    """None where it cannot be shown: the words say that there is a picture, and the turn is answered without it."""
    mime_type = (one.mime_type or "image/jpeg").partition(";")[0].strip().lower()
    if one.path is None or mime_type not in _TYPES or (one.size or 0) > _MAX_BYTES:
        return None
    data = bytearray()
    try:
        async for chunk in app.files.read(one.path):
            data += chunk
    except (FileNotFoundError, FilesUnavailable):
        return None
    return Picture(mime_type, bytes(data))
