"""Converts the evidence for a sentence to a probability: a logistic regression, then isotonic regression.

It is fitted by `python -m diffrgen.calibrate` and kept in the run as confidence.json: numbers alone, which need nothing but
numpy to be applied.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from diffrgen.errors import DataError
from diffrgen.labels import DISEASES
from diffrgen.pipeline.generation import Decoding
from diffrgen.pipeline.options import LabelerName
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import load_json
from diffrgen.records import Split
from diffrgen.reporting.confidence import SentenceConfidence
from diffrgen.weights import check_ranges

FILE, FORMAT_VERSION = "confidence.json", 1
FEATURES = ("mean_log_probability", "min_log_probability", "agreement_log_odds", "support")
# The classifier's agreement is clipped here, so that its log-odds are finite.
SUREST = 1e-4
# A finding is listed as not mentioned from this probability on: more likely than not.
LISTED = 0.5


@dataclass(frozen=True)
class RisingCurve:
    """A probability that rises with a score: given at corners, linear between them, flat outside."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def at(self, score: float) -> float:
        """Return the probability of `score`."""
        return float(np.interp(score, self.scores, self.probabilities))

    def fault(self) -> str | None:
        """Return what of this is not a rising curve, None if it is one."""
        scores, probabilities = np.array(self.scores), np.array(self.probabilities)
        if not len(scores) or len(scores) != len(probabilities):
            return f"needed as many probabilities as scores, got {len(probabilities)} and {len(scores)}"
        if not (np.diff(scores) > 0).all():
            return "needed scores that rise"
        if not ((np.diff(probabilities) >= 0).all() and probabilities[0] >= 0 and probabilities[-1] <= 1):
            return "needed probabilities from 0 to 1 that do not fall"
        return None


@dataclass(frozen=True)
class ConfidenceCalibration:
    """The calibration of a run.

        score = intercept + sum_k coefficients_k (features_k - means_k) / scales_k,    probability = sentences.at(score)

    split, data (None: the run's own), studies, rated: what it was fitted on, `rated` sentences of `studies` studies; labeler:
    who read the findings of sentences and references; weights: SHA-256 of the weights that generated the reports, and
    decoding: how. omissions: the probability that a reference states a finding that the report leaves out, by the
    classifier's P(positive). cross_fitted: the scores on the same studies by calibrations that were fitted without them.
    """

    split: Split
    data: str | None
    studies: int
    rated: int
    labeler: LabelerName
    weights: str
    decoding: Decoding
    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    sentences: RisingCurve
    omissions: RisingCurve
    cross_fitted: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def probability(self, sentence: SentenceConfidence) -> float | None:
        """Return the probability that a sentence is true, None for one without findings."""
        if not sentence.findings:
            return None
        standard = (np.array(sentence_features(sentence)) - self.means) / self.scales
        return round(self.sentences.at(self.intercept + float(standard @ self.coefficients)), 3)

    def omitted(self, positive: dict[str, float]) -> list[tuple[str, float]]:
        """Return the findings to list as not mentioned with their probabilities, the most probable first.

        positive: the classifier's P(positive) of each finding that the report leaves out.
        """
        found = [(name, round(self.omissions.at(value), 3)) for name, value in positive.items() if name in DISEASES]
        return sorted((one for one in found if one[1] >= LISTED), key=lambda one: -one[1])

    def warn_of(self, decoding: Decoding) -> None:
        """Warn where reports are decoded in another way than those of the calibration: its probabilities are of the latter."""
        if replace(decoding, seed=0, preset=None) != replace(self.decoding, seed=0, preset=None):
            warnings.warn(
                f"the sentence confidence was calibrated for reports decoded by {self.decoding}, but these are decoded by "
                f"{decoding}: its probabilities may be wrong; recalibrate with python -m diffrgen.calibrate and the same options",
                stacklevel=3,
            )


def sentence_features(sentence: SentenceConfidence) -> tuple[float, ...]:
    """Return the values of FEATURES of a sentence with findings; without retrieved reports, the support is 0."""
    agreement = min(max(sentence.agreement or 0.0, SUREST), 1 - SUREST)
    return (
        sentence.mean_log_probability,
        sentence.min_log_probability,
        math.log(agreement / (1 - agreement)),
        sentence.support or 0.0,
    )


def read_calibration(run: RunFolder) -> ConfidenceCalibration | None:
    """Return the calibration that the run holds, None if it holds none, as runs do before `diffrgen.calibrate`.

    Raises DataError for a file that is no calibration, of another version, out of range, or of other weights than the run's.
    """
    path = run.path / FILE
    if not path.is_file():
        return None
    calibration = load_json(ConfidenceCalibration, path)
    again = f"remove it, or run python -m diffrgen.calibrate {run.path} --overwrite"
    if calibration.format_version != FORMAT_VERSION or calibration.features != FEATURES:
        raise DataError(
            f"{path}: needed format_version {FORMAT_VERSION} with the features {', '.join(FEATURES)}, got "
            f"{calibration.format_version} with {', '.join(calibration.features)}; {again}"
        )
    check_ranges(asdict(calibration), path)
    for name in ("means", "scales", "coefficients"):
        if len(getattr(calibration, name)) != len(FEATURES):
            raise DataError(f"{path}: {name}: needed {len(FEATURES)} numbers, got {len(getattr(calibration, name))}; {again}")
    if min(calibration.scales) <= 0:
        raise DataError(f"{path}: scales: needed numbers above 0, got {min(calibration.scales):g}; {again}")
    for name in ("sentences", "omissions"):
        fault = getattr(calibration, name).fault()
        if fault is not None:
            raise DataError(f"{path}: {name}: {fault}; {again}")
    if calibration.weights != weights_digest(run.path):
        raise DataError(f"{path}: was fitted on reports of other weights than this run's; {again}")
    return calibration
