"""HTML of an explained report, by the templates beside this file; whatever a report or a name says is escaped."""

from __future__ import annotations

from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffrgen.explanation import ExplainedReport
from diffrgen.page.figures import heat_picture, picture, route_picture

NOTICE = "Research use only, not for diagnosis."
STATE_WORDS = {"blank": "not mentioned", "positive": "present", "negative": "absent", "uncertain": "uncertain"}
OPEN_NEIGHBOURS = 5


def render_page(explained: ExplainedReport, *, title: str) -> str:
    """Return a whole HTML page; `title` may be a file name of the user's."""
    return _templates().get_template("page.html").render(title=title, **_content(explained))


def render_fragment(explained: ExplainedReport) -> str:
    """Return the page's body, with its style, for a page that has a head of its own."""
    return _templates().get_template("fragment.html").render(**_content(explained))


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("diffrgen.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return templates


def _content(explained: ExplainedReport) -> dict[str, object]:
    written = explained.written
    findings = sorted(written.states, key=lambda finding: -written.positive_probability[finding])
    style, _, _ = _templates().loader.get_source(_templates(), "style.css")
    return {
        "style": Markup(style),  # a file of this package, not of a user
        "notice": NOTICE,
        "explained": explained,
        "written": written,
        "picture": picture(explained.image),
        "heats": [heat_picture(explained.image, sentence.heat) for sentence in explained.sentences],
        "places": [place_words(sentence.heat) for sentence in explained.sentences],
        "route_pictures": [route_picture(explained.image, route) for route in explained.routes],
        "findings": [(name, STATE_WORDS[written.states[name]], written.positive_probability[name]) for name in findings],
        "open_neighbours": OPEN_NEIGHBOURS,
    }


def place_words(heat: np.ndarray) -> str:
    """Say where in the picture the greatest of heat (gh, gw) lies.

    >>> place_words(np.eye(3)[::-1])
    'upper right'
    """
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    down = ("upper", "middle", "lower")[int(3 * (row + 0.5) / heat.shape[0])]
    across = ("left", "centre", "right")[int(3 * (column + 0.5) / heat.shape[1])]
    return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"
