"""The data, weights and decoding behind an evaluation: evaluation.json, stored with the scores."""

from __future__ import annotations

from dataclasses import dataclass

from diffrgen.pipeline.generation import Decoding
from diffrgen.records import Split
from diffrgen.text import Protocol

RECORD = "evaluation.json"


@dataclass(frozen=True)
class EvaluationRecord:
    """split; data: the data set's name, None for the run's own; priors: whether prior studies were used; protocol: the
    preprocessing of the language scores; beams: the beam width; weights: SHA-256 of the weights that generated the reports, which
    distinguishes scores of the present weights from older ones; decoding: the decoding options, None in files of version 0.1.
    """

    split: Split
    data: str | None
    priors: bool
    protocol: Protocol
    beams: int
    weights: str
    decoding: Decoding | None = None

    @property
    def decoded(self) -> str:
        """The decoding as text."""
        return f"beam {self.beams}" if self.decoding is None else str(self.decoding)
