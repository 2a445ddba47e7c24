"""Rates the sentences of generated reports: the evidence for each, and its confidence where the run is calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerFast

from diffrgen.labels import DISEASES, Labeler, State, probability_of_agreement
from diffrgen.model import GeneratedReports
from diffrgen.reporting.calibration import ConfidenceCalibration
from diffrgen.reporting.confidence import NotMentioned, SentenceConfidence
from diffrgen.text import decode_report, report_sentences, same_words, token_spans


@dataclass(frozen=True)
class Rating:
    """The confidence fields of `GeneratedReport`; not_mentioned is empty without a calibration."""

    confidence: tuple[SentenceConfidence, ...]
    not_mentioned: tuple[NotMentioned, ...]


@dataclass(frozen=True)
class SentenceRater:
    """labeler: reads the findings of sentences and of retrieved reports; calibration: None for the evidence alone."""

    tokenizer: PreTrainedTokenizerFast
    labeler: Labeler
    calibration: ConfidenceCalibration | None = None

    def rate(self, generated: GeneratedReports, row: int, report: str, retrieved: Sequence[str]) -> Rating:
        """Rate the sentences of report `row`; retrieved: the retrieved reports.

        Raises ValueError if the reports were generated without the log-probabilities of their tokens.
        """
        if generated.token_log_probability is None:
            raise ValueError("expected reports generated with token_scores, got none")
        ids, scores = generated.sequences[row].tolist(), generated.token_log_probability[row].double().cpu().numpy()
        probability = generated.state_probability[row].double().cpu().numpy()[:, : len(DISEASES)]  # (4, C)
        spans = token_spans(self.tokenizer, ids)
        places = [self._place(ids, span, report) for span in spans]
        texts = [report[start:end] for start, end in places]
        *states, whole = self._states([*texts, report])
        others = Retrieved(self._states(retrieved), retrieved)
        sentences = tuple(
            SentenceConfidence(
                text=text,
                start=place[0],
                end=place[1],
                findings={name: State(value).name.lower() for name, value in zip(DISEASES, stated, strict=True) if value},
                probability=None,
                mean_log_probability=round(float(scores[slice(*span)].mean()), 4),
                min_log_probability=round(float(scores[slice(*span)].min()), 4),
                agreement=round(float(probability_of_agreement(stated, probability).prod()), 4) if stated.any() else None,
                support=others.support(stated, text),
            )
            for text, place, span, stated in zip(texts, places, spans, states, strict=True)
        )
        if self.calibration is None:
            return Rating(sentences, ())
        left_out = {
            name: float(probability[State.POSITIVE, column])
            for column, name in enumerate(DISEASES)
            if whole[column] == State.BLANK
        }
        return Rating(
            tuple(replace(sentence, probability=self.calibration.probability(sentence)) for sentence in sentences),
            tuple(NotMentioned(*omitted) for omitted in self.calibration.omitted(left_out)),
        )

    def _states(self, texts: Sequence[str]) -> np.ndarray:
        """Return the states (n, 13) of each text."""
        return self.labeler(texts)[:, : len(DISEASES)]

    def _place(self, ids: Sequence[int], span: tuple[int, int], report: str) -> tuple[int, int]:
        """Return [start, end) in the report of the characters that the tokens of a span are."""
        start, end = (len(decode_report(self.tokenizer, ids[:place])) for place in span)
        return start + len(report[start:end]) - len(report[start:end].lstrip()), end


class Retrieved:
    """The retrieved reports of a study, and how many of them agree with a sentence."""

    def __init__(self, states: np.ndarray, reports: Sequence[str]) -> None:
        """`states`: (N, 13), of the reports."""
        self.states = states
        self.words = [{same_words(sentence) for sentence in report_sentences(report)} for report in reports]

    def support(self, stated: np.ndarray, text: str) -> float | None:
        """Return the share of the reports that agree with a sentence with states `stated` (13,); None without reports."""
        if not self.words:
            return None
        named = stated != State.BLANK
        same = (self.states[:, named] == stated[named]).all(1) if named.any() else [same_words(text) in own for own in self.words]
        return round(float(np.mean(same)), 4)
