"""The encoder of a run that was trained on labels first: made once, and kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from diffrgen.images import ImageTransform, ReadImage
from diffrgen.images.encoder import PatchEncoder
from diffrgen.labels import DISEASES
from diffrgen.metrics.auroc import auroc
from diffrgen.pretraining.fit import FitSettings, LabelClassifier, LabelledImages, fit_on_labels
from diffrgen.pretraining.labelled import UNKNOWN, LabelledImage
from diffrgen.staging import staged
from diffrgen.workers import worker_options

RECORD = "pretraining.json"


def label_trained_encoder(
    folder: Path,
    encoder: PatchEncoder,
    train: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    settings: FitSettings,
    *,
    transform: ImageTransform,
    read: ReadImage,
) -> dict[str, Any]:
    """Train `encoder` on `train` and keep it in `folder`, from which `PatchEncoder.from_pretrained` loads it.

    transform: the training transform of the images. Returns the record that is kept beside the weights: steps, seconds,
    options, and the AUROC of each disease over the images of `validation`. Errors as of `fit_on_labels`.
    """
    augmented = LabelledImages(train, replace(transform, train=True), read=read, seed=settings.seed)
    classifier, record = fit_on_labels(encoder, augmented, settings)
    central = LabelledImages(validation, replace(transform, train=False), read=read)
    record |= {"options": asdict(settings.options), "auroc": _areas(classifier, central, settings)}
    with staged(folder) as stage:
        classifier.encoder.model.save_pretrained(stage, safe_serialization=True)
        (stage / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


@torch.inference_mode()
def _areas(classifier: LabelClassifier, images: LabelledImages, settings: FitSettings) -> dict[str, float]:
    """Return the AUROC of each disease that some of `images` show and others do not."""
    loader = DataLoader(images, settings.options.batch_size, **worker_options(settings.workers))
    logits = [classifier(pixels.to(settings.device)).cpu().numpy() for pixels, _ in loader]
    if not logits:
        return {}
    scores, truth = np.concatenate(logits), images.truth.numpy()
    areas = {}
    for number, name in enumerate(DISEASES):
        known = truth[:, number] != UNKNOWN
        shown = truth[known, number] == 1
        if shown.any() and not shown.all():
            areas[name] = auroc(scores[known, number], shown, resamples=0).value
    return areas
