"""The upload address: an image is received, decoded, and held under a token until its report is requested."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import PlainTextResponse

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages
from diffrgen.serving.body import DisconnectedError, TooLongError, TooSlowError, receive_body
from diffrgen.serving.clients import Turns, client_of
from diffrgen.serving.held_images import HeldImages
from diffrgen.serving.image_reader import ImageReader
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.refusals import too_many_bytes

# Uploads received at the same time, each of at most `UploadLimits.max_bytes`; one client may have half of them.
RECEIVED_AT_ONCE, WAITING = 16, 64


class ImageReceiver:
    """Receives uploads; clients take turns, and one image is decoded at a time."""

    def __init__(self, held: HeldImages, reader: ImageReader, limits: UploadLimits) -> None:
        self._held, self._reader, self._limits = held, reader, limits
        self._receiving = Turns(RECEIVED_AT_ONCE, per_client=RECEIVED_AT_ONCE // 2, waiting=WAITING)
        self._decoding = Turns(1, per_client=1, waiting=RECEIVED_AT_ONCE)

    async def receive(self, request: Request) -> PlainTextResponse:
        """Answer with the token of the waiting image, or the reason why it is rejected."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Images are taken from this service's own page only.", 403)
        client = client_of(request.scope)
        try:
            # The slot is held while the image is decoded, so that the number of slots bounds the memory.
            async with self._receiving.turn(client):
                content = await self._body(request)
                image = await self._decoded(content, client)
        except (TooLongError, DisconnectedError):
            return PlainTextResponse(too_many_bytes(self._limits), 413)
        except TooSlowError:
            return PlainTextResponse("The image took too long to arrive.", 408, {"connection": "close"})
        except DataError as error:
            return PlainTextResponse(str(error), 422)
        token = self._held.put(image, client)
        asyncio.get_running_loop().call_later(self._limits.held_seconds + 1, self._held.forget_expired)
        return PlainTextResponse(token)

    async def _body(self, request: Request) -> bytes:
        limits = self._limits
        return await receive_body(
            request.receive,
            most_bytes=limits.max_bytes,
            idle_seconds=limits.idle_seconds,
            seconds=limits.body_seconds,
        )

    async def _decoded(self, content: bytes, client: str) -> ResizedImages:
        async with self._decoding.turn(client):
            return await asyncio.wrap_future(self._reader.read(content))
