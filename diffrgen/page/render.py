"""HTML of an explained report, from the templates in templates/; the text of reports and names is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffrgen.explanation import ExplainedReport
from diffrgen.page.figures import heat_pictures, picture, route_picture
from diffrgen.page.words import (
    METRIC_MEANINGS,
    METRIC_NAMES,
    NOTICE,
    STATE_WORDS,
    SURE,
    confidence_words,
    place_words,
    prior_row_names,
    prose,
    route_words,
    share_words,
    shares_by_name,
    spread_words,
    state_words,
    sure_words,
    view_name,
)
from diffrgen.reporting.confidence import SentenceConfidence, not_mentioned_words

OPEN_NEIGHBOURS = 5
# Findings in these states get a place on the page; absent ones have none.
SHOWN_STATES = frozenset({"positive", "uncertain"})
# The page may load only its embedded pictures and style, so injected markup would have no effect.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_page(explained: ExplainedReport, *, title: str, abstain: float | None = None) -> str:
    """Return a complete HTML page; `title` may be a file name of the user's.

    abstain: sentences that are less probable than this are called doubtful, where the run is calibrated.
    """
    return _templates().get_template("page.html").render(title=title, **_content(explained, abstain))


def render_fragment(explained: ExplainedReport) -> str:
    """Return the page's body, with its style, for a page that has its own head."""
    return _templates().get_template("fragment.html").render(**_content(explained))


@dataclass(frozen=True)
class IndexEntry:
    """A line of the index: the image as the user named it, the page's link, a picture, the report, what is present."""

    title: str
    link: str
    picture: str
    report: str
    present: tuple[str, ...]


def render_index(entries: Sequence[IndexEntry], faults: Sequence[str]) -> str:
    """Return an HTML page of links to pages; faults: messages for images without a page."""
    content = {"entries": entries, "faults": faults, "notice": NOTICE, "policy": POLICY, "style": _style()}
    return _templates().get_template("index.html").render(content)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("diffrgen.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["prose"] = prose
    return templates


def _content(explained: ExplainedReport, abstain: float | None = None) -> dict[str, object]:
    written, prior = explained.written, explained.prior
    findings = sorted(written.states, key=lambda finding: -written.positive_probability[finding])
    return {
        "style": _style(),
        "notice": NOTICE,
        "policy": POLICY,
        "explained": explained,
        "written": written,
        "pictures": [picture(image) for image in explained.images],
        "views": [view_name(written.views, place) for place in range(len(explained.images))],
        "findings": [
            (
                name,
                STATE_WORDS[written.states[name]],
                state_words(written.states[name], written.severity_of(name)),
                written.positive_probability[name],
            )
            for name in findings
        ],
        "confidence": [confidence_words(sentence, below=abstain) for sentence in written.confidence or ()],
        "not_mentioned": not_mentioned_words(written.not_mentioned or ()),
        "heats": [heat_pictures(explained.images, sentence.heat) for sentence in explained.sentences],
        "spreads": [spread_words(sentence.heat, written.views) for sentence in explained.sentences],
        "parts": [shares_by_name(sentence.shares) for sentence in explained.sentences],
        "attention": [share_words(sentence.shares) for sentence in explained.sentences],
        "prior_picture": picture(prior.image) if prior and prior.image is not None else None,
        "prior_states": [(name, STATE_WORDS[state]) for name, state in prior.states.items() if state != "blank"] if prior else [],
        "prior_rows": prior_row_names(prior) if prior else [],
        "seen": _seen(explained),
        "sure": [_sure(confidence) for confidence in explained.confidence],
        "sure_legend": _legend() if written.confidence is not None else [],
        "open_neighbours": OPEN_NEIGHBOURS,
        "metric_names": METRIC_NAMES,
        "metric_meanings": METRIC_MEANINGS,
        "route_pictures": [route_picture(explained.image, route) for route in explained.routes],
        "route_words": [route_words(route) for route in explained.routes],
    }


def _sure(confidence: SentenceConfidence | None) -> str | None:
    """Return the class of the style of a sentence; None if its probability is not known."""
    return None if confidence is None or confidence.probability is None else sure_words(confidence.probability)


def _legend() -> list[tuple[str, str]]:
    """Return class and words of each band of probabilities, the surest first."""
    levels, most = [], 1.0
    for least, words in SURE:
        levels.append((words, f"{words}: {least:.0%} to {most:.0%}"))
        most = least
    return levels


def _seen(explained: ExplainedReport) -> list[tuple[str, str, str, str]]:
    """Return name, state, picture and place of each finding that has a place."""
    states, shown = explained.written.states, []
    for seen in explained.seen:
        if states[seen.finding] in SHOWN_STATES:
            (image,) = heat_pictures(explained.image[None], seen.heat[None])
            shown.append((seen.finding, STATE_WORDS[states[seen.finding]], image, place_words(seen.heat)))
    return shown


def _style() -> Markup:
    # The style is a file of this package, so it is not escaped.
    return Markup(_templates().get_template("style.css").render())
