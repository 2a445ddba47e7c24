"""HTML of an explained report, by the templates beside this file; whatever a report or a name says is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffrgen.explanation import ExplainedReport
from diffrgen.page.figures import heat_picture, picture, route_picture
from diffrgen.page.words import NOTICE, STATE_WORDS, place_words

OPEN_NEIGHBOURS = 5


def render_page(explained: ExplainedReport, *, title: str) -> str:
    """Return a whole HTML page; `title` may be a file name of the user's."""
    return _templates().get_template("page.html").render(title=title, **_content(explained))


def render_fragment(explained: ExplainedReport) -> str:
    """Return the page's body, with its style, for a page that has a head of its own."""
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
    """Return an HTML page of links to pages; faults: what to say of the images that have none."""
    return _templates().get_template("index.html").render(entries=entries, faults=faults, notice=NOTICE, style=_style())


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
    return {
        "style": _style(),
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


def _style() -> Markup:
    # A file of this package, not of a user: it is not escaped.
    return Markup(_templates().get_template("style.css").render())
