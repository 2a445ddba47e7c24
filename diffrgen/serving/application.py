"""The application: Gradio's page, the address that images are sent to, and the guard before both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from diffrgen.explanation import Explainer
from diffrgen.reporting.reporter import Reporter
from diffrgen.serving.blocks import asset, make_page
from diffrgen.serving.exporter import Exporter
from diffrgen.serving.gallery import make_gallery
from diffrgen.serving.guard import Guard
from diffrgen.serving.image_reader import ImageReader
from diffrgen.serving.options import LOOPBACK, ServeOptions
from diffrgen.serving.receiver import ImageReceiver
from diffrgen.serving.service import ReportService

IMAGES, EXPORTS = "/images", "/exports"
# Edits sentences, zooms the image, saves the report.
READER = "/reader.js"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")


@contextmanager
def made_application(options: ServeOptions, folder: Path) -> Iterator[ASGIApp]:
    """Load the run and yield the application; its processes end with the block.

    folder: takes the gallery's images, and an upload while it is decoded.
    """
    reporter = Reporter(options.run, fused_kernels=options.fused_kernels)
    images = ImageReader(folder, reporter.image_sizes, options.limits)
    try:
        yield _application(options, folder, reporter, images)
    finally:
        images.close()


def _application(options: ServeOptions, folder: Path, reporter: Reporter, images: ImageReader) -> ASGIApp:
    examples = make_gallery(folder, reporter.settings.phantom, options.examples)
    service = ReportService(
        Explainer(reporter), examples, options.limits, options.generation, waiting=options.waiting
    )
    receiver = ImageReceiver(service.held, images, options.limits)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.post(IMAGES, response_class=PlainTextResponse)(receiver.receive)
    application.post(EXPORTS, response_model=None)(Exporter(images, options.limits, options.run).export)
    application.get(READER, response_model=None)(_reader_script)
    gr.mount_gradio_app(
        application,
        make_page(
            service,
            examples,
            options,
            takes_prior=reporter.takes_priors,
            takes_views=reporter.takes_views,
            takes_context=reporter.takes_context,
        ),
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
        css=asset("page.css") + asset("reader.css"),
        head=f'<script type="module" src="{READER.removeprefix("/")}"></script>',
    )
    # Against DNS rebinding: a page of another site must not reach this service through its own host name.
    hosts = ["*"] if options.host not in LOOPBACK else list(LOOPBACK)
    return Guard(TrustedHostMiddleware(application, hosts), options.limits, unbounded=frozenset({IMAGES, EXPORTS}))


def _reader_script() -> Response:
    return Response(asset("reader.js"), media_type="text/javascript")
