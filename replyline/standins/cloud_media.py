"""The files that Meta keeps: described by id, had for five minutes at an address that wants the token (contracts §1.4)."""

import base64
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass

import msgspec

from replyline.standins.graph_errors import graph_error, unknown_object
from replyline.standins.server import BadControl, Reply, read_control

ADDRESS_LIVES_S = 300.0
MAX_FILES = 10_000
MAX_BYTES = 256_000_000
"""Of all files together; the oldest go first."""
_MB = 1_000_000
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_NAME = re.compile(rb'\bname="([^"]*)"')
_TYPE = re.compile(rb"(?im)^content-type:\s*([^\s;]+)")

# What may be uploaded, and how large (WhatsApp Cloud API, "Media: supported types").
_SIZES = {
    **dict.fromkeys(("image/jpeg", "image/png"), 5 * _MB),
    **dict.fromkeys(("audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"), 16 * _MB),
    **dict.fromkeys(("video/mp4", "video/3gpp"), 16 * _MB),
    "image/webp": 500_000,
    **dict.fromkeys(
        (
            "text/plain",
            "application/pdf",
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.ms-powerpoint",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ),
        100 * _MB,
    ),
}


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
    """A file; `sha256` and `file_size` are what Meta says of it."""

    number_id: str
    mime_type: str
    data: bytes
    sha256: str
    file_size: int
    expired: bool = False
    redirect: bool = False


class CloudMedia:
    """All files of a stand-in."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._bytes = 0
        self._addresses: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def put(self, raw: bytes, numbers: Container[str]) -> dict[str, str]:
        """Take a file as if a person had sent it; its true hash is given in base64, as callbacks have it. Raises BadControl."""
        given = read_control(raw, PutFile)
        if given.phone_number_id not in numbers:
            raise BadControl("no such number")
        try:
            data = base64.b64decode(given.data, validate=True)
        except ValueError as error:
            raise BadControl("data is not base64") from error
        digest = hashlib.sha256(data)
        said, size = given.sha256 or digest.hexdigest(), len(data) if given.file_size is None else given.file_size
        file = _File(given.phone_number_id, given.mime_type, data, said, size, given.expired, given.redirect)
        return {"id": self._keep(file), "sha256": base64.b64encode(digest.digest()).decode()}

    def upload(self, number_id: str, raw: bytes, content_type: str) -> Reply:
        """Take a file from us (WhatsApp Cloud API, "Media: upload")."""
        form = _read_form(raw, content_type)
        if form is None:
            return graph_error(100, "The body is not multipart/form-data")
        fields = {name: value.decode(errors="replace") for name, (value, _) in form.items() if name != "file"}
        if fields.get("messaging_product") != "whatsapp":
            return graph_error(100, "Param `messaging_product` must be whatsapp")
        if "file" not in form:
            return graph_error(131008, "Required parameter `file`")
        data, part_type = form["file"]
        mime_type = fields.get("type", part_type).partition(";")[0].strip().lower()
        if mime_type not in _SIZES:
            return graph_error(100, f"Param `file` must be of one of the types {', '.join(sorted(_SIZES))}")
        if not data or len(data) > _SIZES[mime_type]:
            return graph_error(131053, f"`file` must have 1 to {_SIZES[mime_type]} bytes")
        file = _File(number_id, mime_type, data, hashlib.sha256(data).hexdigest(), len(data))
        return Reply(200, {"id": self._keep(file)})

    def describe(self, media_id: str, numbers: Container[str], number_id: str | None, url: str) -> Reply:
        """Where a file is to be had, from now on for five minutes; `numbers` are those whose files the caller may see."""
        file = self._files.get(media_id)
        if file is None or file.number_id not in numbers or number_id not in {None, file.number_id}:
            return unknown_object(media_id, "GET")
        address, now = secrets.token_urlsafe(24), time.time()
        self._addresses[address] = (media_id, now + ADDRESS_LIVES_S)
        while next(iter(self._addresses.values()))[1] < now:
            self._addresses.popitem(last=False)
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

    def fetch(self, address: str, numbers: Container[str], url: str) -> Reply:
        """The file itself; a redirect leads to the same file, once."""
        media_id, until = self._addresses.get(address, ("", 0.0))
        file = self._files.get(media_id)
        if file is not None and file.number_id not in numbers:
            return Reply(401, "Unauthorized")
        if file is None or file.expired or time.time() > until:
            return Reply(404, "Not Found")
        if file.redirect:
            file.redirect = False
            return Reply(302, "", {"Location": f"{url}/files/{address}"})
        return Reply(200, file.data, {"Content-Type": file.mime_type})

    def delete(self, media_id: str, numbers: Container[str]) -> Reply:
        """Forget a file."""
        file = self._files.get(media_id)
        if file is None or file.number_id not in numbers:
            return unknown_object(media_id, "DELETE")
        self._forget(media_id)
        return Reply(200, {"success": True})

    def _keep(self, file: _File) -> str:
        media_id = str(10**14 + secrets.randbelow(9 * 10**14))
        self._files[media_id] = file
        self._bytes += len(file.data)
        while len(self._files) > MAX_FILES or self._bytes > MAX_BYTES:
            self._forget(next(iter(self._files)))
        return media_id

    def _forget(self, media_id: str) -> None:
        self._bytes -= len(self._files.pop(media_id).data)


def _read_form(raw: bytes, content_type: str) -> dict[str, tuple[bytes, str]] | None:
    """The fields of a form, each with its type; None where it is no form (RFC 7578)."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        return None
    form: dict[str, tuple[bytes, str]] = {}
    for piece in (b"\r\n" + raw).split(b"\r\n--" + boundary.group(1).encode())[1:-1]:
        head, _, value = piece.partition(b"\r\n\r\n")
        if (name := _NAME.search(head)) is not None:
            kind = _TYPE.search(head)
            form[name.group(1).decode(errors="replace")] = (value, kind.group(1).decode() if kind else "text/plain")
    return form
