"""A stand-in for a customer's webhook endpoint: checks the signature of what it is sent, and records it."""

import base64
import binascii
import hashlib
import hmac
import time
from typing import Annotated, ClassVar
from urllib.parse import unquote

import msgspec

from replyline.standins.faults import Error
from replyline.standins.server import BadControl, Reply, Request, Standin, merged, read_control

TOLERANCE_S = 300.0
"""How far `webhook-timestamp` may be from now (Standard Webhooks, "Verifying webhook authenticity")."""


class Endpoint(msgspec.Struct, forbid_unknown_fields=True):
    """One path and the secret that signs what comes there."""

    secret: Annotated[str, msgspec.Meta(min_length=1)]


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    endpoints: dict[str, dict[str, object]] = {}


class CustomerStandin(Standin):
    """Takes any POST with 200; where it knows the secret, only what is signed with it."""

    name: ClassVar[str] = "customer"

    def __init__(self) -> None:
        super().__init__()
        self._endpoints: dict[str, Endpoint] = {}
        self._keys: dict[str, bytes] = {}

    def configure(self, raw: bytes) -> None:
        """Endpoints by path."""
        endpoints = merged(self._endpoints, read_control(raw, _Configuration).endpoints, Endpoint)
        keys = {path: _key(path, endpoint.secret) for path, endpoint in endpoints.items()}
        self._endpoints, self._keys = endpoints, keys

    async def answer(self, request: Request) -> Reply:
        """200, or 401 for a signature that is not right."""
        if request.method != "POST":
            return Reply(405, {"error": "POST only"}, {"Allow": "POST"})
        key = self._keys.get(unquote(request.path))
        wrong = _wrong(key, request) if key is not None else None
        return Reply(200, {"received": True}) if wrong is None else Reply(401, {"error": wrong})

    def error_reply(self, fault: Error) -> Reply:
        """Any customer's own."""
        if fault.code is not None:
            raise BadControl("code means nothing here: a customer's endpoint has a status and a body")
        return Reply(fault.status or 500, {"error": "told to fail"})


def _key(path: str, secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise BadControl(f"{path}: a secret is `whsec_` and base64") from error


def _wrong(key: bytes, request: Request) -> str | None:
    """What is wrong with the signature; nothing where one of those given is right."""
    event_id, stamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
    if not event_id or not stamp.isdecimal():
        return "webhook-id or webhook-timestamp is missing"
    if abs(time.time() - int(stamp)) > TOLERANCE_S:
        return "webhook-timestamp is too far from now"
    signed = hmac.new(key, f"{event_id}.{stamp}.".encode() + request.raw, hashlib.sha256).digest()
    wanted = b"v1," + base64.b64encode(signed)
    given = request.headers.get("webhook-signature", "").encode(errors="replace").split()
    return None if any(hmac.compare_digest(one, wanted) for one in given) else "webhook-signature is wrong"
