"""The rows of the paper's Table 1 as Markdown and as a terminal table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from types import MappingProxyType

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from diffrgen.metrics.bootstrap import Interval
from diffrgen.metrics.clinical import ClinicalScores
from diffrgen.metrics.diversity import ReportDiversity
from diffrgen.metrics.paired import PairedDifference
from diffrgen.metrics.published import PublishedData

# A number, a 95 % interval, or the reason why there is none.
Cell = float | Interval | str | None
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "precision": "Precision",
        "recall": "Recall",
        "f1": "F1",
        "bleu_1": "BLEU-1",
        "bleu_4": "BLEU-4",
        "meteor": "METEOR",
        "rouge_l": "ROUGE-L",
        "micro_f1": "micro-F1",
        "distinct": "distinct",
    }
)
# A terminal is 80 columns wide; the paper's Tables 2 and A shorten the same way.
SHORT: Mapping[str, str] = MappingProxyType(
    {"Precision": "P", "Recall": "R", "BLEU-1": "B-1", "BLEU-4": "B-4", "METEOR": "M", "ROUGE-L": "R-L"}
)

# What the published rows of a data set refer to; a footnote of every table that shows them.
NOTES: Mapping[str, str] = MappingProxyType(
    {
        "iu-xray": ", whose IU X-Ray rows evaluate models trained on MIMIC-CXR on all of IU X-Ray: they are not comparable "
        "with a model trained on IU X-Ray"
    }
)


def table_row(
    corpus: Mapping[str, float],
    clinical: ClinicalScores | None = None,
    diseases: ClinicalScores | None = None,
    diversity: ReportDiversity | None = None,
) -> dict[str, Cell]:
    """Return one row of the table, with the reason in place of a missing number.

    Precision, recall and F1 are the example-based ones over `clinical`'s findings, as in PromptMRG and the paper's
    Table 1; micro-F1 is over those of `diseases`.
    """
    row: dict[str, Cell] = {key: corpus[key] for key in COLUMNS if key in corpus}
    row.setdefault("meteor", "METEOR requires a Java runtime, which was not available during scoring")
    if clinical is None or diseases is None:
        row.update(dict.fromkeys(("precision", "recall", "f1", "micro_f1"), "no labels to compare"))
    else:
        example, micro = clinical.example, diseases.micro.f1
        row.update(precision=example.precision, recall=example.recall, f1=example.f1)
        row["micro_f1"] = micro if micro is not None else "undefined: no positive finding on either side"
    row["distinct"] = diversity.distinct_ratio if diversity is not None else None
    return row


def interval_row(
    corpus: Mapping[str, Interval | None], clinical: ClinicalScores, diseases: ClinicalScores
) -> dict[str, Cell]:
    """Return the 95 % intervals of `table_row`'s scores; "distinct" has none, as resampled studies come twice."""
    known = {**clinical.intervals, "micro_f1": diseases.micro_f1_interval, **corpus}
    return {
        key: known.get(key) or "no interval: the score is absent or there are fewer than two studies"
        for key in COLUMNS
        if key != "distinct"
    }


def difference_rows(differences: Mapping[str, Mapping[str, PairedDifference]]) -> dict[str, dict[str, str]]:
    """Return a row a score and a column a system, each with the difference, its 95 % interval and p.

    differences: by the system that is compared with, then by score.
    """
    scores = dict.fromkeys(name for each in differences.values() for name in each)
    return {
        COLUMNS.get(score, score): {name: _in_words(each.get(score)) for name, each in differences.items()}
        for score in scores
    }


def difference_table(differences: Mapping[str, Mapping[str, PairedDifference]], *, first: str) -> str:
    """Return the differences of `first` minus each other system as a Markdown table."""
    rows = difference_rows(differences)
    lines = [[f"{first} minus", *differences], ["---", *["---:"] * len(differences)]]
    lines += [[score, *row.values()] for score, row in rows.items()]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines) + "\n"


def difference_terminal_table(differences: Mapping[str, Mapping[str, PairedDifference]], *, first: str) -> Table:
    """Return the differences as a rich table."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), title=f"{escape(first)} minus: difference (95 % interval), p")
    table.add_column("score")
    for name in differences:
        table.add_column(escape(name), justify="right")
    for score, row in difference_rows(differences).items():
        table.add_row(escape(score), *map(escape, row.values()))
    return table


def _in_words(difference: PairedDifference | None) -> str:
    if difference is None or difference.difference is None:
        return "not defined"
    low, high = difference.interval or (float("nan"), float("nan"))
    return f"{difference.difference:+.3f} ({low:+.3f} to {high:+.3f}), p {difference.p:.4f}"


def published_rows(dataset: PublishedData) -> dict[str, dict[str, Cell]]:
    """Return the rows that the paper's Table 1 prints for `dataset`, their names marked as published.

    They come from other models, images and labels than a run's own, and are there for orientation only.

    Raises:
        ValueError: `dataset` is neither "mimic-cxr" nor "iu-xray".
    """
    datasets = json.loads(files("diffrgen.metrics").joinpath("published.json").read_text(encoding="utf-8"))["datasets"]
    if dataset not in datasets:
        raise ValueError(f"expected a data set out of {', '.join(datasets)}, got {dataset!r}")
    reason = f"not in the paper's Table 1{NOTES.get(dataset, '')}"
    return {
        f"{name} (published)": {**scores, "micro_f1": reason, "distinct": reason}
        for name, scores in datasets[dataset].items()
    }


def markdown_table(rows: Mapping[str, Mapping[str, Cell]]) -> str:
    """Return `rows` {name: {column key: number or reason}} as a Markdown table, reasons as footnotes."""
    columns = {key: COLUMNS[key] for key in COLUMNS if any(key in row for row in rows.values())}
    cells, footnotes = _cells(rows, columns)
    lines = [["Model", *columns.values()], ["---", *["---:"] * len(columns)], *cells]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    return text + ("\n" + "".join(f"- {note}\n" for note in footnotes) if footnotes else "")


def terminal_table(rows: Mapping[str, Mapping[str, Cell]], *, title: str | None = None) -> Table:
    """Return `rows` as a rich table, reasons in its caption; print it with `rich.console.Console`."""
    cells, footnotes = _cells(rows, COLUMNS)
    caption = escape("\n".join(footnotes)) or None
    table = Table(box=SIMPLE_HEAD, padding=(0, 0), title=title, caption=caption, caption_justify="left")
    table.add_column("Model", min_width=18)
    for label in COLUMNS.values():
        table.add_column(SHORT.get(label, label), justify="right", no_wrap=True)
    for line in cells:
        table.add_row(*map(escape, line))
    return table


def _cells(rows: Mapping[str, Mapping[str, Cell]], columns: Iterable[str]) -> tuple[list[list[str]], list[str]]:
    """Return the body's texts and the footnotes that they point at."""
    numbers: dict[str, int] = {}
    body = []
    for name, scores in rows.items():
        line = [name.replace("|", "/")]
        for key in columns:
            value = scores.get(key)
            if isinstance(value, int | float):
                line.append(f"{value:.3f}")
            elif isinstance(value, tuple):
                line.append(f"{value[0]:.3f}-{value[1]:.3f}")
            else:
                number = numbers.setdefault(value or "not computed", len(numbers) + 1)
                line.append(f"- ({number})")
        body.append(line)
    return body, [f"({number}) {reason}" for reason, number in numbers.items()]
