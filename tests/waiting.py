"""Waiting for a condition, instead of sleeping for as long as it may take."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

Found = TypeVar("Found")

_LOOK_EVERY_S = 0.02


@overload
async def until(condition: Callable[[], Awaitable[Found]], *, timeout_s: float = ..., what: str = ...) -> Found: ...
@overload
async def until(condition: Callable[[], Found], *, timeout_s: float = ..., what: str = ...) -> Found: ...
async def until(condition: Callable[[], object], *, timeout_s: float = 10.0, what: str = "the condition") -> object:
    """Look at `condition` until it is truthy, and return what it gave; AssertionError after `timeout_s` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come true in {timeout_s:g} s: {value!r}"
        await asyncio.sleep(_LOOK_EVERY_S)
