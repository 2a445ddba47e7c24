"""Scores of generated reports: language (BLEU, ROUGE-L, CIDEr, METEOR), clinical efficacy, diversity, their table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.metrics.bootstrap import Interval
    from diffrgen.metrics.clinical import ClinicalScores, FindingScore, PrecisionRecallF1, clinical_scores
    from diffrgen.metrics.conventions import AveragedScores, ClinicalConventions, clinical_conventions
    from diffrgen.metrics.corpus import CorpusScores, corpus_scores, score_corpus
    from diffrgen.metrics.diversity import ReportDiversity, report_diversity
    from diffrgen.metrics.paired import PairedDifference, paired_differences, paired_numbers
    from diffrgen.metrics.published import PublishedData
    from diffrgen.metrics.radeval import RadEvalScores, radeval_intervals, radeval_scores
    from diffrgen.metrics.table import (
        difference_table,
        difference_terminal_table,
        interval_row,
        markdown_table,
        published_rows,
        table_row,
        terminal_table,
    )
    from diffrgen.metrics.temporal import TemporalScore, temporal_score

__all__ = [
    "AveragedScores",
    "ClinicalConventions",
    "ClinicalScores",
    "CorpusScores",
    "FindingScore",
    "Interval",
    "PairedDifference",
    "PrecisionRecallF1",
    "PublishedData",
    "RadEvalScores",
    "ReportDiversity",
    "TemporalScore",
    "clinical_conventions",
    "clinical_scores",
    "corpus_scores",
    "difference_table",
    "difference_terminal_table",
    "interval_row",
    "markdown_table",
    "paired_differences",
    "paired_numbers",
    "published_rows",
    "radeval_intervals",
    "radeval_scores",
    "report_diversity",
    "score_corpus",
    "table_row",
    "temporal_score",
    "terminal_table",
]

__getattr__ = on_first_use(__name__, __file__)
