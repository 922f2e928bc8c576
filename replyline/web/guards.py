"""What stands before a body is read: who is calling, and how much the route takes. FastAPI reads bodies before it asks either."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from replyline.web.auth import app_of, identify
from replyline.web.limits import SMALL_BODY_BYTES, body_of

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])

JSON_BODY_BYTES = 64_000
"""What a JSON body of somebody known may have, unless its route says otherwise."""
_MOST = "most_body_bytes"


def takes(most: int | None) -> Callable[[Endpoint], Endpoint]:
    """Say how many bytes the body of a route may have; None is all that the deployment allows."""

    def noted(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _MOST, most)
        return endpoint

    return noted


def most_of(endpoint: Callable[..., object], otherwise: int) -> int | None:
    """How many bytes the body of that route may have; None is all that the deployment allows."""
    most: int | None = getattr(endpoint, _MOST, otherwise)
    return most


class KeyedRoute(APIRoute):
    """A route of the API: without a valid key nothing of the body is read."""

    def get_route_handler(self) -> _Handler:
        """What answers a request."""
        answered, most = super().get_route_handler(), most_of(self.endpoint, JSON_BODY_BYTES)

        async def guarded(request: Request) -> Response:
            await identify(request)
            body_of(request).allow(most, proven=True)
            return await answered(request)

        return guarded


class RecordRoute(KeyedRoute):
    """A route to what the door remembers of customers, keys and channels: after a change this process reads all of it anew."""

    def get_route_handler(self) -> _Handler:
        """What answers a request."""
        answered = super().get_route_handler()

        async def noting(request: Request) -> Response:
            try:
                return await answered(request)
            finally:
                if request.method != "GET":
                    app_of(request).changes.note()

        return noting


class OpenRoute(APIRoute):
    """A route for strangers: its body is small unless the route says otherwise, and counts as a stranger's."""

    def get_route_handler(self) -> _Handler:
        """What answers a request."""
        answered, most = super().get_route_handler(), most_of(self.endpoint, SMALL_BODY_BYTES)

        async def guarded(request: Request) -> Response:
            body_of(request).allow(most, proven=False)
            return await answered(request)

        return guarded
