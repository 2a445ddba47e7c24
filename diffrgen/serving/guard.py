"""Guards the page and the API: only the required addresses are open, bodies are bounded, browsers contact no other host."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffrgen.serving.body import DisconnectedError, TooLongError, TooSlowError, receive_body
from diffrgen.serving.clients import client_of
from diffrgen.serving.connections import MOST_CONNECTIONS
from diffrgen.serving.options import UploadLimits

Refusal = Callable[[int, str], tuple[bytes, bytes]]
"""Makes the content type and the body of an answer with such a status for such a reason."""

# Gradio's other addresses are closed: uploads to a folder, its files, a proxy, an API and its documentation, monitoring.
OPEN = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|images|exports|reader\.js|(assets|static)/[\w./@-]+|"
    r"gradio_api/(info|startup-events|queue/(join|data)|cancel|reset|heartbeat/\w+))/?"
)
# Maximum size of a request, which holds no image: the report of a prior study and a few fields.
MOST_BYTES = 100_000
# Maximum open requests of one client, including the event streams of open pages.
MOST_PER_CLIENT = MOST_CONNECTIONS // 2
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def plain_refusal(status: int, reason: str) -> tuple[bytes, bytes]:
    """Return the reason as plain text."""
    return b"text/plain; charset=utf-8", reason.encode()


class Guard:
    """ASGI middleware: answers 404 beyond the addresses `opened`, 413 to a long body, 408 to a slow one, 400 to a strange one.

    429 goes to a client with `MOST_PER_CLIENT` requests at once. Every response forbids the browser to contact other hosts.
    unbounded: paths whose handler bounds the body itself; refusal: makes its answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: UploadLimits,
        *,
        unbounded: frozenset[str],
        opened: re.Pattern[str] = OPEN,
        refusal: Refusal = plain_refusal,
    ) -> None:
        self._app, self._limits, self._unbounded, self._opened = app, limits, unbounded, opened
        self._refusal = refusal
        self._answering: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        client = client_of(scope)
        if self._answering[client] >= MOST_PER_CLIENT:
            await self._refuse(send, 429, "Too many requests at once come from this address.")
            return
        self._answering[client] += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._answering[client] -= 1
            if not self._answering[client]:
                del self._answering[client]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._opened.fullmatch(scope["path"]) or ".." in scope["path"]:
            await self._refuse(send, 404, "There is nothing here.")
        elif scope["path"] in self._unbounded or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, _with_headers(send))
        else:
            limits = self._limits
            try:
                body = await receive_body(
                    receive, most_bytes=MOST_BYTES, idle_seconds=limits.idle_seconds, seconds=limits.body_seconds
                )
            except TooLongError as error:
                await self._refuse(send, 413, str(error))
            except TooSlowError as error:
                await self._refuse(send, 408, str(error), (b"connection", b"close"))
            except DisconnectedError:
                return
            else:
                if _is_plain(body):
                    await self._app(scope, _again(body, receive), _with_headers(send))
                else:
                    await self._refuse(send, 400, "The request cannot be read.")

    async def _refuse(self, send: Send, status: int, reason: str, *more: tuple[bytes, bytes]) -> None:
        kind, body = self._refusal(status, reason)
        headers = [(b"content-type", kind), *HEADERS, *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _is_plain(body: bytes) -> bool:
    """Whether `body` is JSON, or nothing, that names no file: Gradio would look for that, and log it."""
    try:
        return not body or bool(json.loads(body, object_hook=_named_no_file))
    except (ValueError, RecursionError):
        return False


def _named_no_file(fields: dict[str, object]) -> dict[str, object]:
    if "path" in fields:
        raise ValueError("names a file")
    return fields


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that replays `body`, then continues with the original one."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *HEADERS]}
        await send(message)

    return wrapped
