"""uvicorn as this service runs it: bounded connections, no access log, signals left to the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from diffrgen.serving.connections import bounded_connections
from diffrgen.serving.options import UploadLimits

STOPS_WITHIN = 2


class EndingServer(uvicorn.Server):
    """A server that a call ends, not a signal."""

    def stop(self) -> None:
        """Answer what can be answered within `STOPS_WITHIN` seconds, then end."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn's own handling would end the process before its files are removed."""
        yield


def make_server(application: ASGIApp, limits: UploadLimits) -> EndingServer:
    """Return the server of `application`."""
    return EndingServer(
        uvicorn.Config(
            application,
            http=bounded_connections(limits.header_seconds),
            ws="none",
            # Requests are not logged.
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=STOPS_WITHIN,
        )
    )
