"""The application: Gradio's page, the address that images are sent to, and the guard before both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from diffrgen.errors import DataError
from diffrgen.explanation import Explainer
from diffrgen.reporting.reporter import Reporter
from diffrgen.serving.gallery import make_gallery
from diffrgen.serving.guard import Guard
from diffrgen.serving.options import ServeOptions, UploadLimits
from diffrgen.serving.page import asset, make_page
from diffrgen.serving.service import ReportService
from diffrgen.serving.shelf import BUSY, Shelf, too_many_bytes

IMAGES = "/images"
RECEIVING_SECONDS = 120
LOOPBACK = ("127.0.0.1", "localhost")
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")


def make_application(options: ServeOptions, folder: Path) -> ASGIApp:
    """Load the run and return the application; the gallery's images go to `folder`."""
    reporter = Reporter(options.run, fused_kernels=options.fused_kernels)
    examples = make_gallery(folder, reporter.settings.phantom, options.examples)
    service = ReportService(Explainer(reporter), examples, options.limits, options.generation)
    page = make_page(service, examples, options, takes_prior=reporter.takes_priors)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.post(IMAGES, response_class=PlainTextResponse)(_receiver(service.shelf, options.limits))
    gr.mount_gradio_app(
        application,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=1,
        theme=gr.themes.Base(font=FONTS, font_mono=("ui-monospace", "monospace")),
        css=asset("page.css"),
    )
    # A page of another site must not reach a service on this machine through a name of its own.
    hosts = ["*"] if options.host not in LOOPBACK else list(LOOPBACK)
    return Guard(TrustedHostMiddleware(application, hosts), frozenset({IMAGES}))


def _receiver(shelf: Shelf, limits: UploadLimits) -> Callable[[Request], Awaitable[PlainTextResponse]]:
    """What takes an image: it answers the token under which the image waits, or says why it is refused."""
    receiving = asyncio.Semaphore(limits.held_images)

    async def receive_image(request: Request) -> PlainTextResponse:
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Images are taken from this service's own page only.", 403)
        if receiving.locked():
            return PlainTextResponse(BUSY, 503)
        async with receiving:
            try:
                content = await asyncio.wait_for(_read(request, limits), RECEIVING_SECONDS)
            except DataError as error:
                return PlainTextResponse(str(error), 413)
            except asyncio.TimeoutError:
                return PlainTextResponse("The image took too long to arrive.", 408)
        try:
            token = shelf.put(content)
        except DataError as error:
            return PlainTextResponse(str(error), 503)
        asyncio.get_running_loop().call_later(limits.held_seconds + 1, shelf.forget_expired)
        return PlainTextResponse(token)

    return receive_image


async def _read(request: Request, limits: UploadLimits) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > limits.max_bytes:
            raise DataError(too_many_bytes(limits))
    return bytes(content)
