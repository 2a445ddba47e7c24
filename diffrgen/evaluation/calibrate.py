"""Calibrates a run: fits the probability that a sentence of its reports is true, on a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diffrgen.errors import DataError
from diffrgen.evaluation.calibration_fit import cross_fitted, fit_confidence, fit_curve
from diffrgen.evaluation.options import CalibrateOptions
from diffrgen.evaluation.sentences import JudgedSentences, judge_sentences, left_out, reference_states
from diffrgen.evaluation.split import SplitChoice, check_may_write, load_split
from diffrgen.labels import Labeler
from diffrgen.metrics.confidence import ConfidenceScores, confidence_scores
from diffrgen.pipeline.labeler import run_labeler
from diffrgen.pipeline.options import LabelerOptions
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.reporting.calibration import FEATURES, FILE, ConfidenceCalibration, RisingCurve
from diffrgen.reporting.rater import SentenceRater
from diffrgen.reporting.writer import GeneratedReport, run_decoding, write_reports


def calibrate(options: CalibrateOptions) -> tuple[ConfidenceCalibration, ConfidenceScores]:
    """Calibrate a run and keep the calibration in its folder; return it with its cross-fitted scores.

    Raises DataError for a folder that is no run or may not be written, a calibration that is there already, unusable data, and
    reports with too few sentences to learn from.
    """
    run = RunFolder.open(options.run)
    if run.name is not None:
        raise DataError(f"{run.name}: needed the folder of a run, which gets {FILE}, got a hub name; copy {run.path} first")
    if (run.path / FILE).exists() and not options.overwrite:
        raise DataError(f"{run.path / FILE}: this run is already calibrated; pass --overwrite to repeat the calibration")
    settings, model = run.settings(), run.model(fused_kernels=options.fused_kernels)
    generation = options.generation.over(settings.generation)
    check_may_write(run.path)
    decoding = run_decoding(model, generation, max_tokens=settings.max_tokens)
    labeler = run_labeler(settings.labeler)
    choice = SplitChoice(
        *(options.split, options.data, options.images, options.skip_broken),
        labeler=LabelerOptions(labeler.name),
        decoded=options.decoded,
    )
    source, studies = load_split(run, settings, model.config, choice)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    dataset = run.dataset(model.config, settings, source, studies, key=choice.key, priors=options.priors, device=device)
    rater = SentenceRater(dataset.settings.tokenizer, labeler)
    written = write_reports(model, dataset, generation, labeler=labeler, workers=options.workers, rater=rater)
    truth = reference_states([study.report for study in studies], labeler)
    judged = judge_sentences(written, truth)
    fitted = fit_confidence(judged.features, judged.correct, judged.study)
    scores = _cross_fitted_scores(judged, resamples=options.resamples)
    calibration = ConfidenceCalibration(
        split=options.split,
        data=choice.data_name,
        studies=len(studies),
        rated=len(judged.correct),
        labeler=labeler.name,
        weights=weights_digest(run.path),
        decoding=decoding,
        features=FEATURES,
        means=tuple(fitted.score.means.tolist()),
        scales=tuple(fitted.score.scales.tolist()),
        coefficients=tuple(fitted.score.coefficients.tolist()),
        intercept=fitted.score.intercept,
        sentences=fitted.curve,
        omissions=_fit_omissions(written, truth, labeler),
        cross_fitted=scores.to_dict(),
    )
    save_json(calibration, run.path / FILE)
    return calibration, scores


def _cross_fitted_scores(judged: JudgedSentences, *, resamples: int) -> ConfidenceScores:
    """Score each half of the studies by a calibration on the other half."""
    probability = cross_fitted(judged.features, judged.correct, judged.study)
    return confidence_scores(probability, judged.correct, judged.study, resamples=resamples)


def _fit_omissions(written: Sequence[GeneratedReport], truth: np.ndarray, labeler: Labeler) -> RisingCurve:
    """Return the probability, as a function of P(positive), that the reference mentions a finding that the report omits."""
    omissions = left_out(written, truth, labeler)
    if not len(omissions.stated):
        return RisingCurve((0.0,), (0.0,))
    return fit_curve(omissions.positive, omissions.stated)
