"""Which inputs a trained network uses: the increase of its losses with one part of another study, or with other routing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffrgen.errors import DataError
from diffrgen.labels import CLASSES
from diffrgen.mechanisms.changes import NOTHING
from diffrgen.mechanisms.localisation import localisation
from diffrgen.mechanisms.losses import StudyLosses, study_losses
from diffrgen.mechanisms.options import MechanismOptions
from diffrgen.metrics.bootstrap import mean_interval
from diffrgen.pipeline.options import PHANTOM
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.pipeline.word_tokens import token_classes


def measure(options: MechanismOptions) -> dict[str, Any]:
    """Return the losses, and what each change adds to them, as plain values.

    `added` to language_loss and disease_loss: the mean over studies with the 95 % interval of a bootstrap over studies.
    `words`, by class of word: the mean over its tokens and the standard error over studies. `localisation`: of a network
    with finding queries, on the phantom, whose truth has boxes. Raises DataError for a folder
    that is no run, and a split of fewer than two studies.
    """
    run = RunFolder.open(options.run)
    settings, model = run.settings(), run.model()
    if model.memory is not None:
        raise DataError(f"{options.run}: needed a network of variant 'diffrgen', whose inputs are measured, got 'promptmrg'")
    data = settings.data_options(model.config, data=options.data, images=options.images)
    labeler = settings.labeler_options(options.labeler, same_data=options.data is None)
    source = load_source(
        data, settings.phantom, labeler, resize=settings.image.resize, sections=bool(settings.sections)
    )
    studies = source.splits[options.split]
    if len(studies) < 2:
        raise DataError(f"{source.splits.source}: needed two studies in the split {options.split!r}, got {len(studies)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    key = options.split if options.data is None else f"{options.split}-of-{Path(options.data).stem}"
    dataset = run.dataset(model.to(device).config, settings, source, studies, key=key, device=device)
    losses = study_losses(model, dataset, token_classes(run.tokenizer()), batch_size=options.batch_size)
    measured = {"split": options.split, "studies": len(studies), **summary(losses)}
    if data.data == PHANTOM and model.finding_queries is not None:
        measured["localisation"] = localisation(
            model, dataset, studies, phantom=settings.phantom, image=settings.image, batch_size=options.batch_size
        )
    return measured


def summary(losses: dict[str, StudyLosses]) -> dict[str, Any]:
    """Return the unchanged losses, and what each change adds, of the losses by change."""
    nothing = losses[NOTHING]
    return {
        "language_loss": float(nothing.language.mean()),
        "disease_loss": float(nothing.disease.mean()),
        "words": _of_words(nothing),
        "added": {name: _added(changed, nothing) for name, changed in losses.items() if name != NOTHING},
    }


def _added(changed: StudyLosses, nothing: StudyLosses) -> dict[str, Any]:
    terms = {
        "language_loss": changed.language - nothing.language,
        "disease_loss": changed.disease - nothing.disease,
    }
    added: dict[str, Any] = {
        name: {"mean": float(values.mean()), "interval": mean_interval(values)} for name, values in terms.items()
    }
    difference = replace(nothing, word=changed.word - nothing.word, which=changed.which - nothing.which)
    return added | {"words": _of_words(difference)}


def _of_words(losses: StudyLosses) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(CLASSES):
        count = losses.count[:, place]
        found[name] = {"tokens": int(count.sum())}
        for term in ("word", "which"):
            mean, error = mean_of_tokens(getattr(losses, term)[:, place], count)
            found[name][term] = {"mean": mean, "standard_error": error}
    return found


def mean_of_tokens(sums: np.ndarray, counts: np.ndarray) -> tuple[float | None, float | None]:
    """Return the mean over tokens and its standard error over studies, from each study's sum and count (n,).

        mean = sum_i x_i / sum_i c_i ;  error = sqrt( n / (n - 1) sum_i (x_i - mean c_i)^2 ) / sum_i c_i

    The tokens of a study depend on each other, studies do not. None for no token, and no error for one study.
    """
    total, studies = counts.sum(), int((counts > 0).sum())
    if not total:
        return None, None
    mean = sums.sum() / total
    if studies < 2:
        return float(mean), None
    spread = np.square(sums - mean * counts).sum() * studies / (studies - 1)
    return float(mean), float(np.sqrt(spread) / total)
