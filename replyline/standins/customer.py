"""A stand-in for a customer's webhook endpoint: checks the signature of what it is sent, and records it."""

import base64
import hashlib
import hmac
import time

import msgspec

from replyline.standins.server import BadConfiguration, Reply, Request, Standin

_TOLERANCE_S = 300.0


class Endpoint(msgspec.Struct, forbid_unknown_fields=True):
    """One path and the secret that signs what comes there."""

    secret: str


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    endpoints: dict[str, Endpoint] = {}


class CustomerStandin(Standin):
    """Takes any POST with 200; where it knows the secret, only what is signed with it."""

    name = "customer"

    def __init__(self) -> None:
        super().__init__()
        self._endpoints: dict[str, Endpoint] = {}

    def configure(self, raw: bytes) -> None:
        """Endpoints by path."""
        try:
            self._endpoints |= msgspec.json.decode(raw, type=_Configuration).endpoints
        except msgspec.MsgspecError as error:
            raise BadConfiguration(str(error)) from error

    async def answer(self, request: Request) -> Reply:
        """200, or 401 for a signature that is not right (Standard Webhooks, "Verifying signatures")."""
        if request.method != "POST":
            return Reply(405, {"error": "POST only"})
        endpoint = self._endpoints.get(request.path)
        if endpoint is not None and (wrong := _wrong(endpoint, request)):
            return Reply(401, {"error": wrong})
        return Reply(200, {"received": True})


def _wrong(endpoint: Endpoint, request: Request) -> str | None:
    event_id, stamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
    if not event_id or not stamp.isdecimal():
        return "webhook-id or webhook-timestamp is missing"
    if abs(time.time() - int(stamp)) > _TOLERANCE_S:
        return "webhook-timestamp is too old"
    key = base64.b64decode(endpoint.secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{event_id}.{stamp}.".encode() + request.raw, hashlib.sha256).digest()
    wanted = f"v1,{base64.b64encode(signed).decode()}"
    given = request.headers.get("webhook-signature", "").split()
    return None if any(hmac.compare_digest(one, wanted) for one in given) else "webhook-signature is wrong"
