"""Differences between two systems on the same studies: paired intervals, and p by approximate randomisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from diffrgen.labels.findings import COMMON, DISEASES
from diffrgen.metrics.bootstrap import Interval, bootstrap_interval
from diffrgen.metrics.clinical import f1_of_sums
from diffrgen.metrics.conventions import finding_counts, per_study_numbers, presence, scores_of_sums
from diffrgen.metrics.corpus import BLEU_ORDERS, bleu_of_sums
from diffrgen.metrics.temporal import temporal_f1

SWAPS = 10_000
# Swaps whose signs are in memory at once: 256 x 3,858 float64 are 8 MB.
AT_ONCE = 256
# Tolerance for rounding: the order of sums differs.
ROUNDING = 1e-12
Statistic = Callable[[np.ndarray], np.ndarray]


class Measure(NamedTuple):
    """A score: which numbers of a study it needs, and how it follows from their sums (R, K) -> (R,)."""

    numbers: str
    statistic: Statistic


def _bleu(sums: np.ndarray, *, order: int) -> np.ndarray:
    return bleu_of_sums(sums)[:, order - 1]


def _mean(sums: np.ndarray) -> np.ndarray:
    """Of the sums of a score and of 1."""
    return sums[:, 0] / sums[:, 1]


def _average(sums: np.ndarray, *, average: str, column: int = 2) -> np.ndarray:
    return scores_of_sums(sums, average)[:, column]


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        **{f"bleu_{order}": Measure("bleu", partial(_bleu, order=order)) for order in range(1, BLEU_ORDERS + 1)},
        "rouge_l": Measure("rouge_l", _mean),
        "cider": Measure("cider", _mean),
        "temporal_entity_f1": Measure("temporal", _mean),
        **{
            name: Measure("promptmrg", partial(_average, average="samples", column=column))
            for column, name in enumerate(("precision", "recall", "f1"))
        },
        "micro_f1": Measure("clinical_13", f1_of_sums),
        **{
            f"f1chexbert_{findings}_{average}": Measure(f"f1chexbert_{findings}", partial(_average, average=average))
            for findings in (14, 5)
            for average in ("micro", "macro")
        },
    }
)


def paired_numbers(
    corpus: Mapping[str, np.ndarray],
    predicted: np.ndarray,
    truth: np.ndarray,
    texts: tuple[Sequence[str], Sequence[str]],
) -> dict[str, np.ndarray]:
    """Return the numbers of each study that `MEASURES` need, (n, K) by name.

    Args:
        corpus: those of `score_corpus`.
        predicted, truth: states (n, C >= 14) of the generated reports and of their references.
        texts: hypotheses and references, for the words of change.
    """
    means = {**{name: corpus[name][:, 0] for name in ("rouge_l", "cider")}, "temporal": temporal_f1(*texts)}
    positive, present = (
        [presence(states, uncertain=uncertain) for states in (predicted, truth)] for uncertain in (False, True)
    )
    return {
        "bleu": corpus["bleu"],
        **{name: np.stack([each, np.ones(len(each))], axis=1) for name, each in means.items()},
        "promptmrg": per_study_numbers(finding_counts(*positive), "samples"),
        "clinical_13": finding_counts(*positive, findings=DISEASES).sum(axis=2),
        "f1chexbert_14": per_study_numbers(finding_counts(*present), "micro"),
        "f1chexbert_5": per_study_numbers(finding_counts(*present, findings=COMMON), "micro"),
    }


@dataclass(frozen=True)
class PairedDifference:
    """One score of two systems over the same studies.

    difference: first minus second; interval: its 95 % interval, a bootstrap that draws the same studies for both; p: the
    share of random swaps of the systems that make as large a difference. Each is None if the score is not defined.
    """

    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None
    p: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def paired_differences(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    *,
    resamples: int = 1000,
    swaps: int = SWAPS,
    seed: int = 0,
) -> dict[str, PairedDifference]:
    """Compare two systems in each score of `MEASURES` that both have the numbers of.

        p = (1 + #{r: |d_r| >= |d|}) / (1 + swaps),   d_r: each study's two reports exchanged with probability 1/2

    Args:
        first, second: numbers of each study by name, (n, K), the same studies in the same order.
        resamples, swaps, seed: of the interval and of the randomisation.

    METEOR is not among the scores: each resample of it takes the Java program's time.

    Raises:
        ValueError: the numbers of the two are of different shapes.

    Source: Noreen 1989 (approximate randomisation); Riezler and Maxwell 2005 for its use on BLEU.
    """
    return {
        name: _difference(measure, first[measure.numbers], second[measure.numbers], resamples, swaps, seed)
        for name, measure in MEASURES.items()
        if measure.numbers in first and measure.numbers in second
    }


def _difference(
    measure: Measure, first: np.ndarray, second: np.ndarray, resamples: int, swaps: int, seed: int
) -> PairedDifference:
    if first.shape != second.shape:
        raise ValueError(f"expected the same studies for both systems, got numbers of {first.shape} and {second.shape}")
    width = first.shape[1]
    both = np.concatenate([first, second], axis=1).astype(np.float64)  # (n, 2 K)

    def statistic(sums: np.ndarray) -> np.ndarray:
        return measure.statistic(sums[:, :width]) - measure.statistic(sums[:, width:])

    one, other = (float(measure.statistic(each.sum(axis=0, keepdims=True).astype(np.float64))[0]) for each in (first, second))
    difference = one - other
    defined = not np.isnan(difference)
    return PairedDifference(
        first=None if np.isnan(one) else one,
        second=None if np.isnan(other) else other,
        difference=difference if defined else None,
        interval=bootstrap_interval(both, statistic, resamples=resamples, seed=seed) if defined else None,
        p=_p(both, statistic, abs(difference), swaps, seed) if defined else None,
    )


def _p(both: np.ndarray, statistic: Statistic, observed: float, swaps: int, seed: int) -> float:
    width = both.shape[1] // 2
    apart = both[:, :width] - both[:, width:]  # (n, K)
    total = both[:, :width] + both[:, width:]
    larger = 0
    for kept in _signs(len(both), swaps, seed):
        first = both[:, width:].sum(axis=0) + kept @ apart
        differences = statistic(np.concatenate([first, total.sum(axis=0) - first], axis=1))
        # A swap without a defined score counts as at least as large a difference.
        larger += int((np.nan_to_num(np.abs(differences), nan=np.inf) >= observed - ROUNDING).sum())
    return (1 + larger) / (1 + swaps)


def _signs(studies: int, swaps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield which studies keep their systems' places, (<= AT_ONCE, n) of 0 and 1."""
    rng = np.random.default_rng(seed)
    for start in range(0, swaps, AT_ONCE):
        yield rng.integers(2, size=(min(AT_ONCE, swaps - start), studies)).astype(np.float64)
