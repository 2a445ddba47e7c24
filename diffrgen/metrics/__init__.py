"""Scores of written reports: language (BLEU, ROUGE-L, CIDEr, METEOR), clinical efficacy, diversity, their table."""

from __future__ import annotations

from diffrgen.metrics.bootstrap import Interval
from diffrgen.metrics.clinical import ClinicalScores, FindingScore, PrecisionRecallF1, clinical_scores
from diffrgen.metrics.corpus import CorpusScores, corpus_scores, score_corpus
from diffrgen.metrics.diversity import ReportDiversity, report_diversity
from diffrgen.metrics.radeval import RadEvalScores, radeval_scores
from diffrgen.metrics.table import (
    PublishedData,
    interval_row,
    markdown_table,
    published_rows,
    table_row,
    terminal_table,
)

__all__ = [
    "ClinicalScores",
    "CorpusScores",
    "FindingScore",
    "Interval",
    "PrecisionRecallF1",
    "PublishedData",
    "RadEvalScores",
    "ReportDiversity",
    "clinical_scores",
    "corpus_scores",
    "interval_row",
    "markdown_table",
    "published_rows",
    "radeval_scores",
    "report_diversity",
    "score_corpus",
    "table_row",
    "terminal_table",
]
