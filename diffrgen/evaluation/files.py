"""The files of an evaluation: predictions.jsonl, metrics.json, table.md and evaluation.json in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffrgen.evaluation.confidence_figure import draw_confidence
from diffrgen.evaluation.result import CONFIDENCE, MODEL_ROW, Evaluation
from diffrgen.metrics import difference_table, markdown_table
from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.text import ReportSections


def new_folder(parent: Path, name: str) -> Path:
    """Make the first of parent/name, parent/name-2, ... that does not exist: earlier results are kept."""
    number, folder = 1, parent / name
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        # Also raised if another evaluation has just created the folder.
        except FileExistsError:
            number += 1
            folder = parent / f"{name}-{number}"


def write_files(evaluation: Evaluation, dataset: StudyDataset) -> None:
    """Write predictions.jsonl, metrics.json and table.md to the evaluation's folder, and the figure of a calibrated run."""
    folder = evaluation.folder
    folder.mkdir(parents=True, exist_ok=True)
    _write_predictions(evaluation, dataset)
    if evaluation.confidence is not None:
        draw_confidence(evaluation.confidence.scores, folder)
    (folder / "metrics.json").write_text(json.dumps(_metrics(evaluation), indent=2) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(_table(evaluation), encoding="utf-8")


def _write_predictions(evaluation: Evaluation, dataset: StudyDataset) -> None:
    """Write a line for each study: its reference, the generated report, and what the report was generated from."""
    sections: Sequence[ReportSections | None] = dataset.sections or [None] * len(dataset)
    with (evaluation.folder / "predictions.jsonl").open("w", encoding="utf-8") as lines:
        for study, reference, own, report in zip(
            *(dataset.studies, dataset.reports, sections, evaluation.written), strict=True
        ):
            reasons = report.to_dict()
            record = {"id": study.id, "reference": reference, "hypothesis": reasons.pop("report"), **reasons}
            if own is not None:
                record["reference_sections"] = own._asdict()
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def _metrics(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return the content of metrics.json: all numbers of each row, by its name."""
    metrics = {name: scores.to_dict() for name, scores in (evaluation.scores | evaluation.sections).items()}
    for name, decoding in evaluation.decodings.items():
        metrics[name]["decoding"] = asdict(decoding)
    for name, differences in evaluation.differences.items():
        metrics[name]["model_minus_this"] = {score: each.to_dict() for score, each in differences.items()}
    for name, human in evaluation.human.items():
        metrics[name]["human_labels"] = human.to_dict()
    if evaluation.confidence is not None:
        metrics[MODEL_ROW]["confidence"] = evaluation.confidence.to_dict()
    return metrics


def _table(evaluation: Evaluation) -> str:
    """Return the scores as Markdown, with intervals, paired differences and human labels where there are any."""
    rows = evaluation.scores | evaluation.sections
    intervals = markdown_table({name: scores.interval_row() for name, scores in rows.items()})
    table = f"{markdown_table(evaluation.rows())}\n95 % intervals (bootstrap over studies):\n\n{intervals}"
    if evaluation.differences:
        table += f"\nPaired differences (95 % interval, p):\n\n{difference_table(evaluation.differences, first=MODEL_ROW)}"
    if evaluation.human:
        human_lines = "".join(f"- {name}: {scores}\n" for name, scores in evaluation.human.items())
        table += f"\nAgainst human labels:\n\n{human_lines}"
    if evaluation.confidence is not None:
        table += f"\n{CONFIDENCE}: {evaluation.confidence}\n"
    return table
