"""The files that Meta keeps: described by id, had for five minutes at an address that wants the token (contracts §1.4)."""

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass

import msgspec

from replyline.standins.graph_errors import unknown_object
from replyline.standins.server import BadControl, Reply, read_control

ADDRESS_LIVES_S = 300.0
MAX_FILES = 10_000


class PutFile(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /_media`: a file that a person sent; some of what is said of it may be a lie."""

    phone_number_id: str
    mime_type: str
    data: str
    sha256: str | None = None
    file_size: int | None = None
    expired: bool = False
    redirect: bool = False


@dataclass(slots=True)
class _File:
    number_id: str
    mime_type: str
    data: bytes
    sha256: str
    file_size: int
    redirect: bool
    expired: bool


class CloudMedia:
    """All files of a stand-in."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._addresses: dict[str, tuple[str, float]] = {}

    def put(self, raw: bytes) -> dict[str, str]:
        """Take a file as if a person had sent it. Raises BadControl."""
        given = read_control(raw, PutFile)
        try:
            data = base64.b64decode(given.data, validate=True)
        except ValueError as error:
            raise BadControl("data is not base64") from error
        return self._keep(given, data)

    def _keep(self, given: PutFile, data: bytes) -> dict[str, str]:
        if len(self._files) >= MAX_FILES:
            raise BadControl(f"at most {MAX_FILES} files")
        media_id = str(secrets.randbelow(10**15))
        digest = hashlib.sha256(data).hexdigest()
        self._files[media_id] = _File(
            given.phone_number_id,
            given.mime_type,
            data,
            given.sha256 or digest,
            given.file_size if given.file_size is not None else len(data),
            given.redirect,
            given.expired,
        )
        return {"id": media_id, "sha256": base64.b64encode(hashlib.sha256(data).digest()).decode()}

    def describe(self, media_id: str, number_id: str | None, url: str) -> Reply:
        """Where a file is to be had, from now on for five minutes."""
        file = self._files.get(media_id)
        if file is None or number_id not in {None, file.number_id}:
            return unknown_object(media_id, "GET")
        now = time.time()
        self._addresses = {known: found for known, found in self._addresses.items() if found[1] > now}
        address = secrets.token_urlsafe(24)
        self._addresses[address] = (media_id, now + ADDRESS_LIVES_S)
        return Reply(
            200,
            {
                "messaging_product": "whatsapp",
                "url": f"{url}/files/{address}",
                "mime_type": file.mime_type,
                "sha256": file.sha256,
                "file_size": str(file.file_size),
                "id": media_id,
            },
        )

    def fetch(self, address: str, *, allowed: bool, url: str) -> Reply:
        """The file itself."""
        media_id, until = self._addresses.get(address, ("", 0.0))
        file = self._files.get(media_id)
        if not allowed:
            return Reply(401, "Unauthorized")
        if file is None or file.expired or time.time() > until:
            return Reply(404, "Not Found")
        if file.redirect:
            file.redirect = False
            return Reply(302, "", {"Location": f"{url}/files/{address}"})
        return Reply(200, file.data, {"Content-Type": file.mime_type})

    def delete(self, media_id: str) -> Reply:
        """Forget a file."""
        if self._files.pop(media_id, None) is None:
            return unknown_object(media_id, "DELETE")
        return Reply(200, {"success": True})

    def upload(self, number_id: str, data: bytes, mime_type: str) -> Reply:
        """Take a file from us."""
        given = PutFile(number_id, mime_type, "")
        return Reply(200, {"id": self._keep(given, data)["id"]})
