"""Corpus scores of generated reports against their references: BLEU-1..4, ROUGE-L, CIDEr and METEOR by pycocoevalcap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer  # type: ignore[import-untyped]
from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]
from pycocoevalcap.cider.cider_scorer import CiderScorer  # type: ignore[import-untyped]
from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]

from diffrgen.metrics.bootstrap import Interval, bootstrap_interval, mean_interval
from diffrgen.metrics.meteor import MeteorUnavailable, meteor_score

BLEU_ORDERS = 4
# Terms that pycocoevalcap adds to avoid divisions by 0.
TINY, SMALL = 1e-15, 1e-9


@dataclass(frozen=True, slots=True)
class CorpusScores:
    """Scores by name, and the 95 % interval over studies of each, None if there is none.

    per_study: the numbers of each study behind them, "bleu" (n, 10) as `bleu_of_sums` takes their sums, "rouge_l" and "cider"
    (n, 1).
    """

    values: dict[str, float]
    intervals: dict[str, Interval | None]
    per_study: dict[str, np.ndarray]


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the values of `score_corpus` without intervals."""
    return score_corpus(hypotheses, references, resamples=0).values


def score_corpus(
    hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> CorpusScores:
    """Score `hypotheses[i]` against `references[i]`, one reference a study.

    The texts are taken as they are, as R2Gen and PromptMRG do: first clean both sides alike with
    `diffrgen.text.clean_report`. Only runs of white space are made one blank. An empty hypothesis is legitimate and
    scores zero.

    Intervals are a bootstrap over studies. BLEU and METEOR of a resample come from its summed counts, ROUGE-L and CIDEr
    are means over its studies. CIDEr's document frequencies stay those of all references: a resample, which holds
    studies twice, would make their words common.

    Args:
        resamples, seed: of the bootstrap; without resamples `intervals` is empty.

    Returns:
        bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, meteor in 0..1 and cider in 0..10. `meteor` is absent, with one
        RuntimeWarning with the reason if Java cannot run it. CIDEr weighs words by their rarity among the references
        and is therefore 0 for a single study.

    Raises:
        ValueError: the lists are empty or of different lengths, an element is no string, or a reference is empty.

    Source: Papineni 2002, Lin 2004, Vedantam 2015, Denkowski 2014, in the COCO caption implementation.
    """
    _validate(hypotheses, references)
    generated, truth = ([" ".join(text.split()) for text in texts] for texts in (hypotheses, references))
    scorer = _bleu_scorer(generated, truth)
    bleu, _ = scorer.compute_score(option="closest")
    values = {f"bleu_{n}": float(value) for n, value in enumerate(bleu, start=1)}
    pairs = [{i: [text] for i, text in enumerate(texts)} for texts in (truth, generated)]
    means = {"rouge_l": Rouge().compute_score(*pairs), "cider": Cider().compute_score(*pairs)}
    values |= {name: float(mean) for name, (mean, _) in means.items()}
    per_study = {"bleu": _counts(scorer)} | {name: np.array(each)[:, None] for name, (_, each) in means.items()}
    intervals: dict[str, Interval | None] = {}
    if resamples:
        intervals |= _bleu_intervals(per_study["bleu"], resamples=resamples, seed=seed)
        intervals |= {name: mean_interval(each, resamples=resamples, seed=seed) for name, (_, each) in means.items()}
    try:
        meteor = meteor_score(generated, truth, resamples=resamples, seed=seed)
    except MeteorUnavailable as reason:
        warnings.warn(f"METEOR is not scored: {reason}", RuntimeWarning, stacklevel=3)
        return CorpusScores(values, intervals, per_study)
    values["meteor"] = meteor.score
    return CorpusScores(values, intervals | ({"meteor": meteor.interval} if resamples else {}), per_study)


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return the numbers of each study (n, 10) that `bleu_of_sums` takes the sums of; texts as in `score_corpus`."""
    return _counts(_bleu_scorer(hypotheses, references))


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return ROUGE-L of each study (n,), 0..1; texts as in `score_corpus`."""
    scorer = Rouge()
    return np.array(
        [scorer.calc_score([hypothesis], [reference]) for hypothesis, reference in zip(hypotheses, references, strict=True)]
    )


class CiderReferences:
    """CIDEr whose words are weighed by their rarity among `references`, whichever studies are scored.

    With the references of the scored studies themselves, it is the CIDEr of `score_corpus`. Raises ValueError for no references.
    """

    def __init__(self, references: Sequence[str]) -> None:
        if not references:
            raise ValueError("expected at least one reference, got none")
        scorer = CiderScorer()
        for reference in references:
            scorer += ("", [reference])
        scorer.compute_doc_freq()
        self._frequency, self._count = scorer.document_frequency, len(references)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Return the CIDEr of each study (n,), 0..10; texts as in `score_corpus`."""
        scorer = CiderScorer()
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            scorer += (hypothesis, [reference])
        scorer.document_frequency = self._frequency
        # As in pycocoevalcap, the number of documents is the number of references.
        scorer.crefs = _OfCollection(scorer.crefs, self._count)
        return np.array(scorer.compute_cider(), dtype=np.float64)


class _OfCollection(list[Any]):
    """Some items of a collection, whose length is that of the collection."""

    def __init__(self, items: Sequence[Any], length: int) -> None:
        super().__init__(items)
        self._length = length

    def __len__(self) -> int:
        return self._length


def _bleu_scorer(hypotheses: Sequence[str], references: Sequence[str]) -> BleuScorer:
    scorer = BleuScorer(n=BLEU_ORDERS)
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        scorer += (hypothesis, [reference])
    return scorer


def _counts(scorer: BleuScorer) -> np.ndarray:
    """Return the numbers of each study, (n, 10); pycocoevalcap chooses the one reference's length itself."""
    return np.array([[each["testlen"], *each["reflen"], *each["guess"], *each["correct"]] for each in scorer.ctest])


def _bleu_intervals(counts: np.ndarray, *, resamples: int, seed: int) -> dict[str, Interval | None]:
    """Return the intervals of BLEU-1 to BLEU-4 from the counts of each study (n, 10)."""

    def interval(order: int) -> Interval | None:
        return bootstrap_interval(counts, lambda sums: bleu_of_sums(sums)[:, order], resamples=resamples, seed=seed)

    return {f"bleu_{order + 1}": interval(order) for order in range(BLEU_ORDERS)}


def bleu_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-1 to BLEU-4 (R, 4) of corpora by their sums (R, 10), as pycocoevalcap computes them.

        bleu_n = min(1, e^(1 - r / c)) (prod_{k <= n} correct_k / guess_k)^(1/n)

    sums: words written c, words of the references r, n-grams written (4), those among them that match (4).
    """
    written, wanted = sums[:, 0] + TINY, sums[:, 1] + SMALL
    guess, correct = sums[:, 2 : 2 + BLEU_ORDERS], sums[:, 2 + BLEU_ORDERS :]
    products = np.cumprod((correct + TINY) / (guess + SMALL), axis=1)
    brevity = np.exp(np.minimum(0.0, 1.0 - wanted / written))
    return brevity[:, None] * products ** (1.0 / np.arange(1, BLEU_ORDERS + 1))


def _validate(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    for name, texts in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(texts, str):
            raise ValueError(f"expected {name} to be a list of strings, got one string: put it into a list")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"expected {name}[{index}] to be a string, got {type(text).__name__}")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"expected one reference a hypothesis, got {len(hypotheses)} hypotheses and {len(references)} references"
        )
    if not hypotheses:
        raise ValueError("expected at least one hypothesis and its reference, got empty lists")
    for index, text in enumerate(references):
        if not text.strip():
            raise ValueError(f"expected references[{index}] to hold words, got {text!r}: drop studies without a report")
