"""What stands before Gradio: the few addresses that the page needs, bounded bodies, nothing to other hosts."""

from __future__ import annotations

import json
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio has more: uploads to a folder, files of that folder, a proxy, an API and its documentation, monitoring.
OPEN = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|images|(assets|static)/[\w./@-]+|"
    r"gradio_api/(info|startup-events|queue/(join|data)|cancel|reset|heartbeat/\w+))/?"
)
# A request without its images: a report of an earlier study and a few words.
MOST_BYTES = 100_000
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


class Guard:
    """ASGI middleware: answers 404 beyond `OPEN`, 413 to a long body, 400 to a strange one.

    Every answer tells the browser to call nobody else. unbounded: paths whose handler bounds the body itself.
    """

    def __init__(self, app: ASGIApp, unbounded: frozenset[str]) -> None:
        self._app, self._unbounded = app, unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        if not OPEN.fullmatch(scope["path"]) or ".." in scope["path"]:
            await _refuse(send, 404, b"There is nothing here.")
        elif scope["path"] in self._unbounded or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, _with_headers(send))
        else:
            body = await _read(receive)
            if body is None:
                await _refuse(send, 413, b"The request is too long.")
            elif not _is_plain(body):
                await _refuse(send, 400, b"The request cannot be read.")
            else:
                await self._app(scope, _again(body, receive), _with_headers(send))


async def _read(receive: Receive) -> bytes | None:
    """The whole body, None where it is over `MOST_BYTES`."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body"):
            return body


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
    """What gives `body` once more, then what comes after it."""
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


async def _refuse(send: Send, status: int, reason: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason})
