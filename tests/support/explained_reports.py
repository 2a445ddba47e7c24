"""An explained report made up by hand: two sentences, three neighbours, and a prior study where asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from diffrgen.explanation import AttentionShares, ExplainedPrior, ExplainedReport, ReportSentence
from diffrgen.explanation.differences import compare_neighbours
from diffrgen.explanation.routes import layer_routes
from diffrgen.explanation.sentences import mark_shared
from diffrgen.reporting.confidence import NotMentioned, SentenceConfidence
from diffrgen.reporting.writer import GeneratedReport, RetrievedReport


def explained_report(*, said: str = "the heart is normal .", other: str = "", prior: bool = False) -> ExplainedReport:
    """Two sentences, three neighbours of which one shares the second sentence."""
    generator = np.random.default_rng(0)
    sentences = [said, "no effusion ."]
    told = [f"{other} no effusion . old fracture .", "clear .", "clear again ."]
    metrics = np.array([[3.0, 0.5, 9.0], [1.0, 0.1, 4.0], [2.0, 0.9, 5.0]], dtype=np.float32)
    neighbours = tuple(RetrievedReport(f"s{n}{other}", 0.9 - 0.1 * n, text) for n, text in enumerate(told))
    heat = np.full((2, 2), 0.1, dtype=np.float32)
    heat[0, 1] = 0.7
    image = generator.integers(0, 256, (32, 32), dtype=np.uint8)
    differences = tuple(compare_neighbours(torch.from_numpy(metrics), ("l2", "cosine")))
    written = GeneratedReport(
        report=" ".join(sentences),
        states={"edema": "positive", "fracture": "negative", "pneumonia": "blank", "lung lesion": "uncertain"},
        positive_probability={"edema": 0.91, "fracture": 0.02, "pneumonia": 0.13, "lung lesion": 0.37},
        neighbours=neighbours,
        routing=((0.7, 0.3), (0.2, 0.5, 0.3)),
    )
    return ExplainedReport(
        written=written,
        position=0,
        images=image[None],
        sentences=(
            ReportSentence(sentences[0], heat[None], AttentionShares(0.5, 0.3, 0.2), ()),
            ReportSentence(sentences[1], heat.T.copy()[None], AttentionShares(0.4, 0.3, 0.2, 0.1), (0,)),
        ),
        neighbour_sentences=tuple(mark_shared(text, sentences) for text in told),
        differences=differences,
        routes=layer_routes(written.routing, layers=2, grid=(4, 4), reports=3),
        prior=ExplainedPrior(
            {"edema": "negative", "fracture": "positive", "pneumonia": "blank"},
            image,
            mark_shared("no effusion . " + other, sentences),
            differences[:2],
        )
        if prior
        else None,
    )


def surely(report: ExplainedReport, *probabilities: float | None) -> ExplainedReport:
    """The report as a calibrated run gives it."""
    confidence = tuple(
        SentenceConfidence(sentence.text, 0, 1, {}, probability, -0.1, -0.2, None, None)
        for sentence, probability in zip(report.sentences, probabilities, strict=True)
    )
    left_out = (NotMentioned("pneumothorax", 0.87),)
    return replace(report, written=replace(report.written, confidence=confidence, not_mentioned=left_out))
