"""Agreement of a report with its prompt: findings mentioned, denied and asserted, by the labeler, over the 13 diseases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from diffrgen.labels import NO_FINDING, State
from diffrgen.metrics.bootstrap import Interval, bootstrap_interval, ratio

COUNTS: tuple[str, ...] = ("study", "contradicted_study", "positive", "negative", "told", "denied", "asserted")
# Each score: the sum of the first counts over the sum of the second ones.
SCORES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "followed": (("told",), ("positive",)),
        "denied": (("denied",), ("positive",)),
        "asserted": (("asserted",), ("negative",)),
        "contradicted": (("denied", "asserted"), ("positive", "negative")),
        "contradicted_studies": (("contradicted_study",), ("study",)),
    }
)


@dataclass(frozen=True, eq=False)
class PromptAgreement:
    """The counts of each study, (n, len(COUNTS)) int64 in the order of COUNTS, of its prompt and its report.

        positive, negative      diseases whose prompt is positive, negative
        told, denied            of the positive ones: those that the report affirms; negates
        asserted                of the negative ones: those that the report affirms
        contradicted_study      1 where any is denied or asserted

    A finding that the report omits or describes as uncertain is neither told nor denied.
    """

    counts: np.ndarray

    @classmethod
    def of(cls, prompts: np.ndarray, reported: np.ndarray) -> PromptAgreement:
        """Count the agreement between the states that prompted reports and those of the reports, both (n, C >= 13) of `State`.

        Raises ValueError for different shapes.
        """
        if prompts.shape != reported.shape:
            raise ValueError(f"expected prompts and reports of the same shape, got {prompts.shape} and {reported.shape}")
        prompts, reported = prompts[:, :NO_FINDING], reported[:, :NO_FINDING]
        positive, negative = prompts == State.POSITIVE, prompts == State.NEGATIVE
        denied, asserted = positive & (reported == State.NEGATIVE), negative & (reported == State.POSITIVE)
        columns = [
            np.ones(len(prompts)),
            (denied | asserted).any(1),
            *(each.sum(1) for each in (positive, negative, positive & (reported == State.POSITIVE), denied, asserted)),
        ]
        return cls(np.stack(columns, axis=1).astype(np.int64))

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores over all studies by the names of SCORES, 0..1; None for 0/0."""
        values = {name: float(_score(name, self.counts.sum(0))) for name in SCORES}
        return {name: None if np.isnan(value) else value for name, value in values.items()}

    def intervals(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval | None]:
        """Return the 95 % interval of each score by bootstrap over studies."""
        return {
            name: bootstrap_interval(self.counts, partial(_score, name), resamples=resamples, seed=seed)
            for name in SCORES
        }

    def to_dict(self, *, resamples: int = 1000) -> dict[str, Any]:
        """Return plain values for JSON: scores, intervals, and the counts summed over studies."""
        return {
            "scores": self.scores,
            "intervals": self.intervals(resamples=resamples),
            "counts": dict(zip(COUNTS, self.counts.sum(0).tolist(), strict=True)),
        }


def _score(name: str, sums: np.ndarray) -> np.ndarray:
    """Return the score (...) of sums (..., len(COUNTS)) over studies, NaN for 0/0."""
    part, whole = (sum(sums[..., COUNTS.index(count)] for count in counts) for counts in SCORES[name])
    return ratio(np.asarray(part, np.float64), np.asarray(whole, np.float64))
