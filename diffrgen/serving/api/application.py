"""The application of `serve --api`: reports, a health check, a page that documents both, and the guard before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from diffrgen.clinical.origin import NOTICE, run_origin
from diffrgen.explanation import Explainer
from diffrgen.reporting.reporter import Reporter
from diffrgen.serving.api.answer import ReportAnswer
from diffrgen.serving.api.bearer import read_token
from diffrgen.serving.api.form import CONTEXT, TakenInputs
from diffrgen.serving.api.problem import STATUSES, Problem, RefusedError, json_refusal
from diffrgen.serving.api.reports import FORM, ReportApi
from diffrgen.serving.guard import Guard
from diffrgen.serving.image_reader import ImageReader
from diffrgen.serving.model_queue import ModelQueue
from diffrgen.serving.options import LOOPBACK, ServeOptions

REPORTS = "/v1/reports"
OPEN = re.compile(r"/(healthz|docs|openapi\.json|v1/reports)")
ANSWERED = (400, 401, 408, 413, 415, 422, 429, 500, 503)
FILE = {"type": "string", "format": "binary"}


@contextmanager
def made_application(options: ServeOptions, folder: Path) -> Iterator[ASGIApp]:
    """Load the run and yield the application; its processes end with the block.

    folder: takes an upload while it is decoded.
    """
    token = read_token()
    reporter = Reporter(options.run, fused_kernels=options.fused_kernels)
    images = ImageReader(folder, reporter.image_sizes, options.limits)
    try:
        queue = ModelQueue(Explainer(reporter), options.limits, options.generation, waiting=options.waiting)
        api = ReportApi(queue, images, options.limits, run_origin(options.run), token)
        application = _application(api, TakenInputs(reporter.takes_views, reporter.takes_priors, reporter.takes_context))
        hosts = ["*"] if options.host not in LOOPBACK else list(LOOPBACK)
        yield Guard(
            TrustedHostMiddleware(application, hosts),
            options.limits,
            unbounded=frozenset({REPORTS}),
            opened=OPEN,
            refusal=json_refusal,
        )
    finally:
        images.close()


def _application(api: ReportApi, takes: TakenInputs) -> FastAPI:
    application = FastAPI(
        title="DiffRGenNet",
        description=f"Draft reports for chest radiographs. {NOTICE}",
        version=version("diffrgen"),
        docs_url=None,
        redoc_url=None,
    )
    application.exception_handler(HTTPException)(_http_problem)
    application.post(
        REPORTS,
        summary="The report of one study",
        response_model=ReportAnswer,
        responses={status: {"model": Problem, "description": STATUSES[status]} for status in ANSWERED},
        openapi_extra={
            "requestBody": {"required": True, "content": {FORM: {"schema": _form_schema(takes)}}},
            "security": [{"token": []}],
        },
    )(api.answer)
    application.get("/healthz", summary="Health check")(_health)
    application.get("/docs", include_in_schema=False, response_class=HTMLResponse)(_documentation)
    application.openapi_schema = application.openapi()
    application.openapi_schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return application


def _form_schema(takes: TakenInputs) -> dict[str, Any]:
    """The fields of a request to a run that takes so much; all others are rejected."""
    images = f"The study's images, at most {takes.views}: PNG, JPEG or DICOM."
    fields: dict[str, Any] = {
        "images": {"type": "array", "items": FILE, "minItems": 1, "maxItems": takes.views, "description": images}
    }
    if takes.prior:
        fields["prior_image"] = {**FILE, "description": "Image of the patient's prior study."}
        fields["prior_report"] = {"type": "string", "description": "Report of the patient's prior study."}
    texts = {"indication": "Indication of the study.", "history": "The patient's history."}
    fields |= {name: {"type": "string", "description": texts[name]} for name in CONTEXT if name in takes.context}
    return {"type": "object", "properties": fields, "required": ["images"], "additionalProperties": False}


async def _health() -> dict[str, str]:
    """Answer that the run is loaded."""
    return {"status": "ok"}


async def _documentation(request: Request) -> str:
    """Return the OpenAPI description as a page without a script, so that nothing is fetched from elsewhere."""
    templates = Environment(
        loader=PackageLoader("diffrgen.serving", "assets"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("api.html").render(api=request.app.openapi(), notice=NOTICE)


async def _http_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status, expected = error.status_code, "POST" if request.url.path == REPORTS else "GET"
    return RefusedError(status, STATUSES.get(status, "Refused."), expected=expected, got=request.method).response()
