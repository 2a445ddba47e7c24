"""The body of a request, bounded in length and in the time that it may take to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Receive

from diffrgen.errors import DataError


class TooLongError(DataError):
    """The body is longer than allowed."""


class TooSlowError(DataError):
    """The body takes longer than allowed."""


class DisconnectedError(DataError):
    """The client has gone away before the body ended."""


async def receive_body(receive: Receive, *, most_bytes: int, idle_seconds: float, seconds: float) -> bytes:
    """Return the complete body of a request; limits and errors are those of `body_parts`."""
    parts = body_parts(receive, most_bytes=most_bytes, idle_seconds=idle_seconds, seconds=seconds)
    return b"".join([part async for part in parts])


async def body_parts(
    receive: Receive, *, most_bytes: int, idle_seconds: float, seconds: float
) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request as it arrives.

    idle_seconds: the longest pause between two parts; seconds: the longest time for all of it.

    Raises:
        TooLongError: more than `most_bytes`. TooSlowError: a limit of time is over. DisconnectedError: no client is left.
    """
    received, clock = 0, asyncio.get_running_loop().time
    end = clock() + seconds
    while True:
        try:
            message = await asyncio.wait_for(receive(), min(idle_seconds, end - clock()))
        except asyncio.TimeoutError:
            raise TooSlowError("The request took too long to arrive.") from None
        if message["type"] == "http.disconnect":
            raise DisconnectedError("The client went away.")
        part = message.get("body", b"")
        received += len(part)
        if received > most_bytes:
            raise TooLongError("The request is too long.")
        yield part
        if not message.get("more_body"):
            return
