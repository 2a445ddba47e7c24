"""Corpus scores of written reports against their references: BLEU-1..4, ROUGE-L, CIDEr and METEOR by pycocoevalcap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-untyped]
from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]
from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]

from diffrgen.metrics.meteor import MeteorUnavailable, meteor_score


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Score `hypotheses[i]` against `references[i]`, one reference a study.

    The texts are taken as they are, as R2Gen and PromptMRG do: first clean both sides alike with
    `diffrgen.text.clean_report`. Only runs of white space are made one blank. An empty hypothesis is legitimate and
    scores zero.

    Returns:
        bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, meteor in 0..1 and cider in 0..10. `meteor` is absent, with one
        RuntimeWarning that says why, where Java cannot run it. CIDEr weighs words by their rarity among the references
        and is therefore 0 for a single study.

    Raises:
        ValueError: the lists are empty or of different lengths, an element is no string, or a reference is empty.

    Source: Papineni 2002, Lin 2004, Vedantam 2015, Denkowski 2014, in the COCO caption implementation.
    """
    _validate(hypotheses, references)
    said = {i: [" ".join(text.split())] for i, text in enumerate(hypotheses)}
    truth = {i: [" ".join(text.split())] for i, text in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    scores = {f"bleu_{n}": float(value) for n, value in enumerate(bleu, start=1)}
    scores["rouge_l"] = float(Rouge().compute_score(truth, said)[0])
    scores["cider"] = float(Cider().compute_score(truth, said)[0])
    try:
        scores["meteor"] = meteor_score([said[i][0] for i in said], [truth[i][0] for i in truth])
    except MeteorUnavailable as reason:
        warnings.warn(f"METEOR is left out of the scores: {reason}", RuntimeWarning, stacklevel=2)
    return scores


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
