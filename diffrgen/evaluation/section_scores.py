"""The scores of findings and of impression, each alone, for a run that writes both."""

from __future__ import annotations

from collections.abc import Sequence

from diffrgen.evaluation.scoring import Scores, score_reports
from diffrgen.pipeline.labeler import NamedLabeler
from diffrgen.records.entry import is_empty_report
from diffrgen.text import Protocol, ReportSections, apply_protocol


def score_sections(
    generated: Sequence[ReportSections],
    references: Sequence[ReportSections],
    *,
    labeler: NamedLabeler,
    training: Sequence[ReportSections],
    protocol: Protocol,
    resamples: int,
) -> dict[str, Scores]:
    """Return the scores of each section over the studies whose reference has it, none for a section that no reference has.

    The labeler reads the states of references, too: the data's labels are those of a whole report.
    """
    scores = {}
    for section in ReportSections._fields:
        pairs = [
            (getattr(own, section), getattr(reference, section))
            for own, reference in zip(generated, references, strict=True)
            if not is_empty_report(getattr(reference, section))
        ]
        if not pairs:
            continue
        hypotheses, truth = (list(texts) for texts in zip(*pairs, strict=True))
        texts = apply_protocol(protocol, hypotheses, truth, training=[getattr(each, section) for each in training])
        scores[section] = score_reports(
            *texts,
            labeler(hypotheses),
            labeler(truth),
            labeler=labeler.name,
            truth_from=labeler.name,
            resamples=resamples,
            texts=(hypotheses, truth),
        )
    return scores
