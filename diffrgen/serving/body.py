"""The body of a request, bounded in length and in the time that it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from diffrgen.errors import DataError


class TooLongError(DataError):
    """The body is longer than allowed."""


class TooSlowError(DataError):
    """The body takes longer than allowed."""


class DisconnectedError(DataError):
    """The client has gone away before the body ended."""


async def receive_body(receive: Receive, *, most_bytes: int, idle_seconds: float, seconds: float) -> bytes:
    """Return the complete body of a request.

    idle_seconds: the longest pause between two parts; seconds: the longest time for all of it.

    Raises:
        TooLongError: more than `most_bytes`. TooSlowError: a limit of time is over. DisconnectedError: no client is left.
    """
    body, clock = bytearray(), asyncio.get_running_loop().time
    end = clock() + seconds
    while True:
        try:
            message = await asyncio.wait_for(receive(), min(idle_seconds, end - clock()))
        except asyncio.TimeoutError:
            raise TooSlowError("The request took too long to arrive.") from None
        if message["type"] == "http.disconnect":
            raise DisconnectedError("The client went away.")
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise TooLongError("The request is too long.")
        if not message.get("more_body"):
            return bytes(body)
