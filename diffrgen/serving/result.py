"""The HTML that answers a visitor: the report with its reasons, or what is wrong."""

from __future__ import annotations

from html import escape

from diffrgen.explanation import ExplainedReport
from diffrgen.page import render_fragment

FILE_NAME = "chest-xray-report.html"


def result_html(explained: ExplainedReport) -> str:
    """Return the report's fragment under a heading, with a button that the page's script saves it by."""
    return (
        '<section class="result" aria-labelledby="answer-title"><div class="result-head">'
        '<h2 id="answer-title" data-answer tabindex="-1">Result</h2>'
        f'<button type="button" class="secondary" data-download="{FILE_NAME}">Download as a page</button></div>'
        f"{render_fragment(explained)}</section>"
    )


def problem_html(message: str) -> str:
    """Return a message that the page's script shows beside its button."""
    return f"<p data-problem hidden>{escape(message)}</p>"
