"""What an evaluation scored, and how: written as evaluation.json beside the scores."""

from __future__ import annotations

from dataclasses import dataclass

from diffrgen.pipeline.generation import Decoding
from diffrgen.records import Split
from diffrgen.text import Protocol

RECORD = "evaluation.json"


@dataclass(frozen=True)
class EvaluationRecord:
    """split, and the data set's name where it is not the run's own; whether prior studies were used; the
    preprocessing protocol of the language scores; the beam width; weights: SHA-256 of the weights that wrote the reports, which
    tells scores of a run from those of its past; decoding: how the reports were decoded, None in files of version 0.1.
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
        """How the reports were decoded, in words."""
        return f"beam {self.beams}" if self.decoding is None else str(self.decoding)
