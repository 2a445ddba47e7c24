"""An explained report in a terminal: the page's contents without its pictures."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffrgen.explanation import ExplainedReport
from diffrgen.page.words import METRIC_NAMES, confidence_words, share_words, state_words
from diffrgen.reporting.confidence import not_mentioned_words
from diffrgen.text import printable

SHOWN_NEIGHBOURS = 3
BAR = 20


def print_report(console: Console, name: str, explained: ExplainedReport, *, abstain: float | None = None) -> None:
    """Print the report of the image `name`, the disease states, the nearest neighbours and the routing weights.

    abstain: sentences that are less probable than this are called doubtful, where the run is calibrated.
    """
    written = explained.written
    console.rule(f"[bold]{escape(name)}")
    confidence = written.confidence or [None] * len(explained.sentences)
    section = None
    for sentence, rated in zip(explained.sentences, confidence, strict=True):
        if sentence.section != section:
            section = sentence.section
            console.print(f"[bold]{str(section).upper()}")
        console.print(printable(sentence.text), markup=False, highlight=False)
        if rated is not None:
            console.print(f"    {confidence_words(rated, below=abstain)}", markup=False, highlight=False)
        shared = f"; also in {len(sentence.shared_with)} of {len(written.neighbours)} retrieved reports"
        looked = f"    attention: {share_words(sentence.shares)}{shared if sentence.shared_with else ''}"
        console.print(looked, style="dim", markup=False, highlight=False)
    if written.not_mentioned:
        named = not_mentioned_words(written.not_mentioned)
        console.print(f"not mentioned, although the classifier is confident: {named}", markup=False, highlight=False)
    console.print(_states(explained))
    for place, neighbour in enumerate(written.neighbours[:SHOWN_NEIGHBOURS]):
        line = printable(f"{neighbour.id}: {neighbour.report}")
        console.print(f"similar ({neighbour.similarity:.2f}), {line}", markup=False)
        words = ", ".join(f"{METRIC_NAMES[d.metric]} {d.words}" for d in explained.differences[place])
        console.print(f"    beside the other retrieved reports: {words}", style="dim", markup=False, highlight=False)
    for route in explained.routes:
        masks = ", ".join(f"A^{order} {weight:.2f}" for order, weight in zip(route.orders, route.weights, strict=True))
        console.print(f"routing of {route.stream} features, layer {route.layer}: {masks}", markup=False, highlight=False)


def _states(explained: ExplainedReport) -> Table:
    written = explained.written
    table = Table("finding", "state", "P(positive)", "", title="disease states", title_justify="left")
    for finding, state in written.states.items():
        probability = written.positive_probability[finding]
        words = state_words(state, written.severity_of(finding))
        table.add_row(finding, words, f"{probability:.2f}", "━" * round(BAR * probability))
    return table
