"""The page itself: a form and a place for the answer, as Gradio blocks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import gradio as gr
from jinja2 import Environment, PackageLoader, select_autoescape

from diffrgen.serving.clients import client_name
from diffrgen.serving.gallery import Example
from diffrgen.serving.options import ServeOptions
from diffrgen.serving.service import ReportService

TITLE = "DiffRGenNet: chest X-ray reports"
# Gradio keeps the last answer of this many sessions in memory; nothing here reads it.
KEPT_SESSIONS = 1


def make_page(
    service: ReportService,
    examples: Sequence[Example],
    options: ServeOptions,
    *,
    takes_prior: bool,
    takes_views: int = 1,
    takes_context: Sequence[str] = (),
) -> gr.Blocks:
    """Return the blocks; the form's requests go to `service`.

    takes_prior: whether the model uses a prior study, for which the form then has fields. takes_views: the maximum number of
    images per study; the form has a field for a second one if it is above 1. takes_context: the sections that the model uses,
    such as the indication, each with a field.
    """
    templates = Environment(loader=PackageLoader("diffrgen.serving", "assets"), autoescape=select_autoescape())
    form_html = templates.get_template("form.html").render(
        examples=examples,
        limits=options.limits,
        takes_prior=takes_prior,
        takes_views=takes_views,
        takes_context=takes_context,
    )

    async def answer(event: gr.EventData, request: gr.Request) -> str:
        return await service.answer(event._data, client_name(request.client.host if request.client else None))

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        form = gr.HTML(form_html, js_on_load=asset("page.js"), apply_default_css=False, elem_id="form")
        result = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="answer")
        # Requests wait in the service, which knows whose turn it is; Gradio's own queue takes them as they come.
        asked = form.submit(
            answer, None, result, api_visibility="private", show_progress="hidden", concurrency_limit=None
        )
        asked.success(None, result, None, js="(html) => window.diffrgenAnswered(html)")
        asked.failure(None, None, None, js="() => window.diffrgenFailed()")
    page.queue(max_size=None, api_open=False)
    page.state_session_capacity = KEPT_SESSIONS
    return page


def asset(name: str) -> str:
    """Return the text of a file in assets/."""
    return files("diffrgen.serving").joinpath("assets", name).read_text(encoding="utf-8")
