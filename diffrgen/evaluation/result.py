"""The result of an evaluation: scores by row, paired differences, and the scored reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from diffrgen.evaluation.confidence import ConfidenceEvaluation
from diffrgen.evaluation.human_labels import HumanScores
from diffrgen.evaluation.scoring import Scores
from diffrgen.metrics import (
    PairedDifference,
    PublishedData,
    difference_terminal_table,
    published_rows,
    terminal_table,
)
from diffrgen.pipeline.generation import Decoding
from diffrgen.records import Study
from diffrgen.reporting.writer import GeneratedReport

MODEL_ROW, SHUFFLED_ROW = "DiffRGenNet", "DiffRGenNet, images shuffled"
CONFIDENCE = "Confidence of the model's sentences"
CONTEXT_ROW = "DiffRGenNet, context shuffled"
MARKS_ROW, UNMARKED_ROW = "DiffRGenNet, marks allowed", "DiffRGenNet, marks suppressed"


@dataclass(frozen=True)
class Evaluation:
    """Scores by row name (the model first), the folder with predictions.jsonl and metrics.json, the studies, the reports
    generated for them, the decoding of each row of the model, its paired differences to each contender, and each row's
    scores against human labels, where these were given. confidence: of the model's sentences, where the run is calibrated.
    sections: the scores of findings and of impression alone, by row name, of a run that generates both.
    """

    scores: dict[str, Scores]
    folder: Path
    studies: Sequence[Study]
    written: Sequence[GeneratedReport]
    decodings: Mapping[str, Decoding]
    differences: Mapping[str, Mapping[str, PairedDifference]]
    human: Mapping[str, HumanScores]
    published: PublishedData | None = None
    confidence: ConfidenceEvaluation | None = None
    sections: dict[str, Scores] = field(default_factory=dict)

    @property
    def model(self) -> Scores:
        """The scores of the model itself."""
        return self.scores[MODEL_ROW]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the table: those of the run, of the baselines and, with `published`, of the paper."""
        own = {name: scores.table_row() for name, scores in (self.scores | self.sections).items()}
        return own if self.published is None else own | published_rows(self.published)

    def print(self, *, title: str) -> None:
        """Print the columns of the paper's Table 1."""
        console = Console()
        console.print(terminal_table(self.rows(), title=f"{title}; labeler: {self.model.labeler}"))
        if self.differences:
            console.print(difference_terminal_table(self.differences, first=MODEL_ROW))
        for name, scores in self.human.items():
            console.print(f"{name}: {scores}", markup=False, highlight=False)
        if self.confidence is not None:
            console.print(f"{CONFIDENCE}: {self.confidence}", markup=False, highlight=False)
