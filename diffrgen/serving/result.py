"""The HTML response to a visitor: the explained report, or an error message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape

from diffrgen.explanation import ExplainedReport
from diffrgen.page import render_fragment

DOWNLOADS = (("text", "Text"), ("page", "Page"), ("dicom-sr", "DICOM SR"), ("fhir", "FHIR"))


def result_html(explained: ExplainedReport, warnings: Sequence[str] = ()) -> str:
    """Return the report's fragment under a heading, with the data for the page's scripts.

    warnings: points to check before the report is shared.
    """
    buttons = "".join(
        f'<button type="button" class="secondary" data-download="{kind}">{name}</button>' for kind, name in DOWNLOADS
    )
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return (
        f'<section class="result" aria-labelledby="answer-title" data-reading="{escape(_reading(explained))}" '
        f'data-not-mentioned="{escape(_left_out(explained))}">'
        '<div class="result-head"><h2 id="answer-title" data-answer tabindex="-1">Result</h2>'
        f'<div class="downloads" role="group" aria-label="Download as"><span aria-hidden="true">Download as</span>{buttons}</div>'
        f'</div>{f"""<ul class="warnings" role="note">{items}</ul>""" if items else ""}'
        f'<p class="export-problem" role="alert"></p>{render_fragment(explained)}</section>'
    )


def _reading(explained: ExplainedReport) -> str:
    """The sentences with their attention (one grid per view) and probability, as JSON for the script."""
    readings = [
        {
            "text": sentence.text,
            "heat": [[[round(float(x), 4) for x in row] for row in view] for view in sentence.heat],
            "probability": None if rated is None else rated.probability,
        }
        for sentence, rated in zip(explained.sentences, explained.confidence, strict=True)
    ]
    return json.dumps(readings)


def _left_out(explained: ExplainedReport) -> str:
    """The findings that the report omits, as JSON for the script."""
    return json.dumps([asdict(each) for each in explained.written.not_mentioned or ()])


def problem_html(message: str) -> str:
    """Return a message that the page's script shows next to its button."""
    return f"<p data-problem hidden>{escape(message)}</p>"
