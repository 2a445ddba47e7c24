"""Limits for idle connections: a time limit for headers, and a slot for the next client."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from diffrgen.serving.clients import client_name

# Maximum open connections, including those without a request.
MOST_CONNECTIONS = 256


class BoundedConnection(H11Protocol):
    """A connection of uvicorn's that is closed when a request's headers take longer than `header_seconds`.

    A connection over `MOST_CONNECTIONS` is accepted nevertheless: in its place the one that has waited longest for a
    request is closed, of the client that has most of these. Where none waits, the new one is closed.
    """

    header_seconds: ClassVar[float] = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection and make room for it."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._client = client_name(self.client[0] if self.client else None)
        self._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._since = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unwatch()
        super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Whether no request is being answered: its headers are incomplete or have not begun."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Start the time limit where a request is waited for, and end it where one has come."""
        if not self.waits:
            self._unwatch()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _make_room(self) -> None:
        open_ones: list[Any] = [each for each in self.connections if not each.transport.is_closing()]
        if len(open_ones) <= MOST_CONNECTIONS:
            return
        waiting = [each for each in open_ones if each.waits and each is not self]
        if not waiting:
            self.transport.abort()
            return
        counts = Counter(each._client for each in waiting)
        most = max(counts.values())
        min((each for each in waiting if counts[each._client] == most), key=lambda each: each._since).transport.abort()


def bounded_connections(header_seconds: float) -> type[BoundedConnection]:
    """Return a protocol for uvicorn's `http` with this time limit."""
    return type("BoundedConnection", (BoundedConnection,), {"header_seconds": header_seconds})
