"""Trains an image encoder to classify the findings of labeled images, before it is used for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.pretraining.encoder import label_trained_encoder
    from diffrgen.pretraining.fit import FitSettings
    from diffrgen.pretraining.labelled import LabelledImage, read_labelled, studies_as_labelled
    from diffrgen.pretraining.options import PretrainOptions

__all__ = ["FitSettings", "LabelledImage", "PretrainOptions", "label_trained_encoder", "read_labelled", "studies_as_labelled"]

__getattr__ = on_first_use(__name__, __file__)
