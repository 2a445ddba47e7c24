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
from diffrgen.pretraining.fit import LabelClassifier, LabelledImages, fit_on_labels
from diffrgen.pretraining.labelled import UNKNOWN, LabelledImage
from diffrgen.pretraining.options import PretrainOptions
from diffrgen.retrieval.fit_state import FitCheckpoint
from diffrgen.retrieval.options import Precision
from diffrgen.staging import staged
from diffrgen.workers import worker_options

RECORD = "pretraining.json"


def label_trained_encoder(
    folder: Path,
    encoder: PatchEncoder,
    train: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    *,
    transform: ImageTransform,
    read: ReadImage,
    options: PretrainOptions,
    precision: Precision = "fp32",
    workers: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
    checkpoint: FitCheckpoint | None = None,
) -> dict[str, Any]:
    """Train `encoder` on `train` and keep it in `folder`, from which `PatchEncoder.from_pretrained` loads it.

    transform: the training transform of the images. Returns the record that is kept beside the weights: steps, seconds,
    options, and the AUROC of each disease over the images of `validation`. Errors as of `fit_on_labels`.
    """
    augmented = LabelledImages(train, replace(transform, train=True), read=read, seed=seed)
    classifier, record = fit_on_labels(
        encoder,
        augmented,
        options=options,
        precision=precision,
        workers=workers,
        seed=seed,
        device=device,
        progress=progress,
        checkpoint=checkpoint,
    )
    central = LabelledImages(validation, replace(transform, train=False), read=read)
    record |= {"options": asdict(options), "auroc": _areas(classifier, central, options.batch_size, workers, device)}
    with staged(folder) as stage:
        classifier.encoder.model.save_pretrained(stage, safe_serialization=True)
        (stage / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


@torch.inference_mode()
def _areas(
    classifier: LabelClassifier, images: LabelledImages, batch_size: int, workers: int, device: torch.device | str
) -> dict[str, float]:
    """Return the AUROC of each disease that some of `images` show and others do not."""
    loader = DataLoader(images, batch_size, **worker_options(workers))
    logits = [classifier(pixels.to(device)).cpu().numpy() for pixels, _ in loader]
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
